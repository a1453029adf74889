"""Texts of control tokens, found without a tokenizer: by the forms in which the families of models write them.

For models whose tokenizer is not at hand. Where it is, `ChatTokenizer` knows the tokens themselves.
"""

from __future__ import annotations

import re

_FORMS = re.compile(
    r"(?=<\|[^|<>\n]{1,40}\|>"  # <|im_end|>, <|eot_id|>, <|start_header_id|>
    r"|<｜[^｜<>\n]{1,40}｜>"  # DeepSeek's
    r"|</?s>|<(?:bos|eos|pad|unk)>"
    r"|<(?:start|end)_of_turn>|<(?:start|end)_of_(?:role|text)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"
    r"|</?(?:think|tool_call|tool_response)>)"
)


def neutralised(text: str, forms: re.Pattern[str] | None = None) -> str:
    """The text with a space after the first character of everything that reads like a control token: `< |im_end|>`.

    Args:
        text: A message's, which is data.
        forms: Matches, with no width, where a control token's text begins; default: the known forms.
    """
    places = {found.start() for found in (forms or _FORMS).finditer(text)}
    return "".join(f"{each} " if place in places else each for place, each in enumerate(text)) if places else text
