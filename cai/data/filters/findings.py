"""What a rule looks at, what it is, and what it found. Plain values; no rule in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cai.data.filters.settings import FilterRules
from constitution.messages import Conversation

Scope: TypeAlias = Literal["row", "whole", "pair"]
"""What a rule needs: the row alone, something that was gathered from all rows (or from other files), or the label."""
Place: TypeAlias = Literal["reply", "prompt"]
"""The text that a span lies in; of a prompt, its last user turn."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply to be judged.

    Args:
        prompt: What it answers; ends with a user turn.
        text: The reply that a model would learn.
        before: The draft that it is a revision of; None where it is no revision.
        beside: What nobody learns, but a model of the same kind said to the same prompt: the draft (which may be the reply
            itself), the rejected answer of a pair. What is as common there is no habit of the replies.
        cut: Whether it was cut at its token limit.
        uid: Of its item. Replies of one item are never each other's duplicates.
    """

    prompt: Conversation
    text: str
    before: str | None = None
    beside: str | None = None
    cut: bool = False
    uid: str = ""

    @property
    def question(self) -> str:
        """The last user turn; "" where there is none."""
        return next((message.content for message in reversed(self.prompt) if message.role == "user"), "")

    @property
    def known(self) -> str:
        """All that was said before the reply, system message and draft included: what is in here is not the reply's own."""
        parts = [message.content for message in self.prompt]
        return "\n".join(parts if self.before is None else [*parts, self.before])


@dataclass(frozen=True, slots=True)
class Finding:
    """That a rule was broken, and by what.

    Args:
        rule: Its id.
        detail: In words, without the text itself.
        span: Start and end, in characters, of what triggered it; None where that is the whole or the absence of something.
        place: The text that the span lies in.
        score: What was measured.
        limit: What it was measured against.
    """

    rule: str
    detail: str
    span: tuple[int, int] | None = None
    place: Place = "reply"
    score: float | None = None
    limit: float | None = None


Look: TypeAlias = Callable[[Reply, FilterRules], Finding | None]
"""Judges one reply; a rule without thresholds passes the settings over (`_`)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its id is also its key in the settings and the ledger's reason.

    Args:
        id: Of the rule.
        description: What it finds, in one sentence.
        scope: What it needs to see.
        limits: Settings that hold its thresholds; the rule is off where the first of them is null or empty.
        look: Judges one reply alone; None where something has to be gathered first (see `Sieve`).
        of_revisions: It compares a reply with the text before it: where that is not known, it has nothing to look at.
    """

    id: str
    description: str
    scope: Scope = "row"
    limits: tuple[str, ...] = ()
    look: Look | None = None
    of_revisions: bool = False
