"""What a reward is, and the guard around it: whatever a reward does, the run goes on or ends with a reason.

Knows replies and numbers; knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cai.errors import CaiError
from cai.records import Item

SHOWN_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply to be judged: the item it answers, its text, and how many tokens were drawn for it, and which."""

    item: Item
    text: str
    tokens: int
    ids: tuple[int, ...] = ()


class Reward(Protocol):
    """Judges replies."""

    @property
    def name(self) -> str:
        """Short, for tables and curves."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies all that decides its judgements, as far as it can be known."""
        ...

    def begin(self) -> None:
        """Get ready to judge: read weights, start processes. Called once, before the first reply is drawn.

        Raises:
            CaiError: If it will not be able to: better now than after a step.
        """
        ...

    def rewards(self, replies: Sequence[Reply]) -> Sequence[float]:
        """One number for each reply, in order; higher is better, NaN where it cannot say."""
        ...

    def close(self) -> None:
        """Free what it holds. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of one batch: a reward for each reply, NaN for one that failed, and why the first few did."""

    rewards: tuple[float, ...]
    failures: tuple[str, ...]

    @property
    def failed(self) -> int:
        return sum(map(math.isnan, self.rewards))


def judged(reward: Reward, replies: Sequence[Reply]) -> Judgement:
    """Ask a reward, and take nothing it does for granted.

    What it raises, a wrong number of values, and values that are no numbers are failures of the replies concerned, counted and
    told of. An infinite value is passed on: it has exploded, which is for the caller to see.
    """
    try:
        values = list(reward.rewards(replies))
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
        why = error.problem if isinstance(error, CaiError) else f"{type(error).__name__}: {error}"
        return _all_failed(replies, f"{reward.name}: {why}")
    if len(values) != len(replies):
        return _all_failed(replies, f"{reward.name}: gave {len(values)} values for {len(replies)} replies")
    found: list[float] = []
    failures: list[str] = []
    for reply, value in zip(replies, values, strict=True):
        number = _number(value)
        if math.isnan(number) and len(failures) < SHOWN_FAILURES:
            failures.append(f"{reward.name}: {value!r} for a reply to {reply.item.uid}")
        found.append(number)
    return Judgement(tuple(found), tuple(failures))


def bounded(judgement: Judgement, limit: float) -> Judgement:
    """With values that are beyond ±limit as failures: of what is only measured, one explosion need not end a run."""
    beyond = [value for value in judgement.rewards if abs(value) > limit]
    if not beyond:
        return judgement
    values = tuple(math.nan if abs(value) > limit else value for value in judgement.rewards)
    return Judgement(values, (*judgement.failures, f"the truth of a reply is {beyond[0]:g}, beyond rl.reward_limit"))


def _all_failed(replies: Sequence[Reply], why: str) -> Judgement:
    return Judgement((math.nan,) * len(replies), (why,))


def _number(value: object) -> float:
    """The value as a float, NaN where it is none: rewards of strangers may give None, text, or one-element arrays."""
    try:
        return float(value)  # pyright: ignore[reportArgumentType] - that is what the try is for
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan
