"""A model's chat template: conversations → text, the same on every day. Knows the template and its moods; encodes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from cai.errors import ModelError
from cai.models.checking import no_chat_template
from cai.models.progress import LOGGER
from cai.models.tool_turns import PROBE_WORDS, definitions, probe, template_turns
from constitution.messages import Conversation, Message, Tool, system, tools_of, user

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "q7"
_THINKING_SWITCHES = ("enable_thinking", "thinking", "open_thinking")
"""What the families' templates call it."""
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""With which some templates mark what the assistant writes."""
FIXED_DATE = "01 Jan 2026"
"""Some templates write today's date; a prompt that changes overnight would neither be found again nor reproduced."""
_FIXED_PARTS = {
    "%Y": "2026",
    "%y": "26",
    "%m": "01",
    "%d": "01",
    "%B": "January",
    "%b": "Jan",
    "%A": "Thursday",
    "%a": "Thu",
} | dict.fromkeys(("%H", "%M", "%S"), "00")
# A macro of that name goes before the clock that transformers offers. A function cannot be given to a template: it would be
# made a string. The empty expression at the end keeps a newline with which the template may begin.
_FIXED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{part}', '{value}')" for part, value in _FIXED_PARTS.items())
    + " }}{% endmacro %}{{ '' }}"
)


class ChatTemplate:
    """The template that a model was trained with, or one given instead.

    Args:
        tokenizer: Any transformers tokenizer.
        name: What to call the model in errors.
        template: Instead of the tokenizer's own.
        thinking: Let the model think before it answers; without, templates that have a switch for it are asked for none.

    Raises:
        ModelError: If there is none, or it cannot render a simple conversation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, name: str, template: str | None, thinking: bool) -> None:
        self._tokenizer: Any = tokenizer
        self._name = name
        self._thinking = thinking
        own: object = self._tokenizer.chat_template
        several = cast("dict[str, str]", own) if isinstance(own, dict) else {}
        # Of several, the one for conversations without tools.
        found = template or (several.get("default") if isinstance(own, dict) else cast("str | None", own))
        if not found:
            raise no_chat_template(name)
        self.text = found
        """As it was found."""
        self._dated = _dated(found)
        of_tools = several.get("tool_use") if template is None else None
        self._of_tools = _dated(of_tools) if of_tools else self._dated
        self._takes_system, self._said_merged = True, False
        self._refuse_unfit()
        self._takes_system = self._renders_system()

    @cached_property
    def takes_tools(self) -> bool:
        """Whether it writes all that a conversation with tools holds."""
        try:
            rendered = self.render(probe(), generation_prompt=True)
        except ModelError as error:
            rendered = error.problem
        missing = [word for word in PROBE_WORDS if word not in rendered]
        if missing:
            LOGGER.info("%s: its chat template knows no tools; they are told, called and answered in words.", self._name)
        return not missing

    def render(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        """A conversation as text.

        Raises:
            ModelError: If the template refuses it.
        """
        try:
            text = self._tokenizer.apply_chat_template(
                template_turns(self._merge_system(messages)),
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self._template_arguments(tools_of(messages)),
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(
                f"model {self._name}: its chat template refuses the conversation: {error}.",
                "Turns must alternate user/assistant; else give another `chat_template`.",
            ) from error
        return str(text)

    def marked_ids(self, messages: Conversation) -> tuple[list[int], list[int]] | None:
        """A whole conversation's ids, and 1 for each that the template says the assistant wrote; None where it says nothing."""
        if _GENERATION.search(self.text) is None or not self._tokenizer.is_fast:
            return None
        marked: Any = self._tokenizer.apply_chat_template(
            template_turns(self._merge_system(messages)),
            return_dict=True,
            return_assistant_tokens_mask=True,
            **self._template_arguments(tools_of(messages)),
        )
        return list(marked["input_ids"]), list(marked["assistant_masks"])

    def _template_arguments(self, tools: Sequence[Tool]) -> dict[str, Any]:
        switches = dict.fromkeys(_THINKING_SWITCHES, self._thinking)
        if not tools:
            return {"chat_template": self._dated, "date_string": FIXED_DATE, **switches}
        return {"chat_template": self._of_tools, "tools": definitions(tools), "date_string": FIXED_DATE, **switches}

    def _merge_system(self, messages: Sequence[Message]) -> Sequence[Message]:
        """For templates without a system turn: put its text before the first user turn's."""
        if self._takes_system or not messages or messages[0].role != "system":
            return messages
        if not self._said_merged:
            self._said_merged = True
            LOGGER.info("%s: its chat template has no system turn; system text goes before the first user's.", self._name)
        first, rest = messages[0], messages[1:]
        if rest and rest[0].role == "user":
            return (user(f"{first.content}\n\n{rest[0].content}"), *rest[1:])
        return (user(first.content), *rest)

    def _refuse_unfit(self) -> None:
        """A template made for other calls (with tools, with lists of parts) may fail, or write nothing of the text."""
        hint = "Give a template for conversations of plain text as `chat_template: FILE`."
        try:
            rendered = self.render((user(_PROBE),), generation_prompt=True)
        except ModelError as error:
            raise ModelError(error.problem, hint) from error
        if _PROBE not in rendered:
            raise ModelError(f"model {self._name}: its chat template leaves out what the user says.", hint)

    def _renders_system(self) -> bool:
        try:
            return _PROBE in self.render((system(_PROBE), user("x")), generation_prompt=True)
        except ModelError:
            return False


def _dated(template: str) -> str:
    """A template that writes the same date on every day."""
    return f"{_FIXED_CLOCK}{template}" if "strftime_now" in template else template
