"""How long a row is for the trainer that will read it, in tokens.

The trainers' count, not ours: they put whole conversations through the tokenizer's own `apply_chat_template`, as they are.
Loads no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from cai.models.tool_turns import definitions, template_turns
from constitution.messages import Message, tools_of
from constitution.rendering import render_plain
from constitution.tool_text import as_reply, as_text

if TYPE_CHECKING:
    from cai.models.chat import ChatTokenizer


class TokenCounter:
    """Counts by one tokenizer.

    Args:
        coder: It.
        plain: As Human/Assistant text with an end-of-text token, not by the chat template; so also where there is none.
    """

    def __init__(self, coder: ChatTokenizer, *, plain: bool = False) -> None:
        self._tokenizer: Any = coder.tokenizer
        self._plain = plain or not coder.tokenizer.chat_template

    def exchange(self, prompt: Sequence[Message], reply: str) -> int | None:
        """Tokens of prompt and reply; None where the chat template refuses them."""
        tools = tools_of(prompt)
        messages = (*prompt, as_reply(reply, tools))
        if self._plain:
            return len(self._tokenizer(render_plain(as_text(messages)).removeprefix("\n\n"))["input_ids"]) + 1
        turns = template_turns(messages)
        offered: dict[str, Any] = {"tools": definitions(tools)} if tools else {}
        try:
            return len(self._tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **offered))
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
            return None
