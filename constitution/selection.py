"""Which principle is used in which round: a pure function of (seed, item, round), never of batch or order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from constitution.schema import Constitution, Principle


def applies(principle: Principle, tags: Iterable[str]) -> bool:
    """Whether a principle is for an item with these tags: it has no `applies_to`, or shares a tag with it.

    An item without tags is open to every principle: nobody has said what it is about, and a critique may well
    find nothing to change.
    """
    own = set(tags)
    return not own or not principle.applies_to or bool(own.intersection(principle.applies_to))


def applicable(constitution: Constitution, tags: Iterable[str]) -> tuple[Principle, ...]:
    """The principles that apply to an item with these tags, in the constitution's order."""
    own = frozenset(tags)
    return tuple(principle for principle in constitution.principles if applies(principle, own))


def select_principle(
    constitution: Constitution,
    *,
    seed: int,
    uid: str,
    round: int,  # noqa: A002 - the field's own word, as in the records
    tags: Iterable[str] = (),
    repeat: bool = True,
) -> Principle | None:
    """Draw one applicable principle by weight.

    Each principle gets an exponential waiting time with its weight as rate, drawn from (seed, uid, round, principle id); the
    first wins, which is the weighted draw. So adding or editing one principle changes only the rows that it wins or loses.

    With `repeat` every round draws anew (with replacement, as in arXiv 2212.08073). Without, the rounds take the principles in
    the order of their waiting times in round 0, which is the weighted draw without replacement.

    Returns:
        The principle, or None when none applies, or, without repeats, when each that applies was drawn in an earlier round.
    """
    key = round if repeat else 0

    def waiting_time(principle: Principle) -> float:
        text = f"{seed}\x1f{uid}\x1f{key}\x1f{principle.id}"
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        return -math.log((number + 0.5) / 2.0**64) / principle.weight

    candidates = applicable(constitution, tags)
    if repeat:
        return min(candidates, key=waiting_time, default=None)
    return sorted(candidates, key=waiting_time)[round] if round < len(candidates) else None
