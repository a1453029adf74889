"""Texts in the making, and what a scheduler does with them. Knows token ids; knows no conversations and no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cai.engines.base import EngineStatistics, FinishReason, SamplingParams


@dataclass(slots=True, eq=False)
class Row:
    """One text in the making.

    Args:
        prompt: Token ids.
        params: How its tokens are drawn. Rows with equal ones are drawn together: what does not matter to it keeps its default.
        seed: Of its noise (`sampling.noise_seed`).
        max_tokens: Of the answer.
        most_tokens: Prompt plus answer may become this long.
        generated: Tokens drawn so far.
        finish: Why it ended; None while it goes on, and for a row that alone did not fit into memory.
    """

    prompt: list[int]
    params: SamplingParams
    seed: int
    max_tokens: int
    most_tokens: int
    generated: list[int] = field(default_factory=list[int])
    finish: FinishReason | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generated)


class Scheduler(Protocol):
    """Decides which rows are computed together, and computes them."""

    def add(self, row: Row) -> None:
        """Queue a row; computes nothing."""
        ...

    def run(self) -> Iterator[Row]:
        """Rows as they end, until none is left. Rows added meanwhile are run too; it may be left and entered again."""
        ...

    def drop(self, rows: Iterable[Row]) -> None:
        """Forget rows that nobody waits for any more."""
        ...

    def close(self) -> None:
        """Free what it holds on the device; rows that have not ended wait for the next `run`. Safe to call twice."""
        ...

    def statistics(self) -> EngineStatistics:
        """Counters since the scheduler was made."""
        ...
