r"""Transcripts in hh-rlhf's form: turns opened by `\n\nHuman:` and `\n\nAssistant:` (arXiv 2204.05862).

The form cannot quote its own markers: a turn that holds one is two turns. That is the format's limit, not ours to guess at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from constitution.messages import Message, Role
from constitution.tool_text import reply_text

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
_MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt that ends with a user turn, or a tool's result, and the reply to it (None when there was none)."""

    prompt: tuple[Message, ...]
    reply: str | None


def looks_like_transcript(text: str) -> bool:
    """Whether `text` begins with hh-rlhf's marker of a user turn."""
    return text.startswith((HUMAN, HUMAN.lstrip()))


def parse_transcript(text: str) -> tuple[Message, ...]:
    """The turns of a transcript, their texts without the space around them.

    Raises:
        ValueError: If the text does not begin with a turn.
    """
    start = _MARKER.match(text)
    if start is None:
        raise ValueError(f"a transcript begins with 'Human:' or 'Assistant:', this one with {text[:20]!r}")
    parts = _MARKER.split(text)
    return tuple(
        Message(role=_ROLES[name], content=content.strip()) for name, content in zip(parts[1::2], parts[2::2], strict=True)
    )


def split_exchange(messages: tuple[Message, ...]) -> Exchange:
    """Cut the last assistant turn off; it is the reply, what is before it the prompt."""
    if messages and messages[-1].role == "assistant":
        return Exchange(messages[:-1], reply_text(messages[-1]))
    return Exchange(messages, None)


def common_prompt(first: tuple[Message, ...], second: tuple[Message, ...]) -> tuple[Message, ...]:
    """The longest beginning that two prompts share and that ends with a user turn; () when there is none."""
    length = 0
    for number, (one, other) in enumerate(zip(first, second, strict=False), start=1):
        if one != other:
            break
        if one.role == "user":
            length = number
    return first[:length]
