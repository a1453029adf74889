"""Messages and conversations: the currency of both packages.

Knows the roles and shape of a conversation; knows nothing of models, templates or files.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Role: TypeAlias = Literal["system", "user", "assistant"]


class Message(BaseModel):
    """One turn. `content` is data: it is never read as a template and never as control tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str


Conversation: TypeAlias = Annotated[tuple[Message, ...], Field(min_length=1)]
"""A conversation in order of time. Frozen, so that it can be a key and be shared between stages."""


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    return Message(role="assistant", content=content)


def system(content: str) -> Message:
    return Message(role="system", content=content)
