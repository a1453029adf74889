"""Prompts as plain text, where no tokenizer is at hand."""

from __future__ import annotations

from cai.authoring.previews.stages import Request
from constitution.rendering import PLAIN_SPEAKERS, render_plain


def turns_text(request: Request) -> str:
    """The turns one under another, by role."""
    turns = [f"[{message.role}]\n{message.content}" for message in request.messages]
    return "\n\n".join([*turns, f"[assistant]\n{request.response_prefix}"]).rstrip()


def plain_text(request: Request) -> str:
    """The form of base models, as `ChatTokenizer` writes it with `plain`."""
    prefix = f" {request.response_prefix}" if request.response_prefix else ""
    turns = render_plain(request.messages).removeprefix("\n\n")
    return f"{turns}\n\n{PLAIN_SPEAKERS['assistant']}:{prefix}"
