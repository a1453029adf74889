"""What the gate did in a run, counted: printed with every run, stored with the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from cai.records import GateRole, GateRuling, RevisionRecord


class GateReason(BaseModel):
    """How many revisions were worse under a principle, and why that one was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    principle_id: str
    role: GateRole
    count: int


class GateCount(BaseModel):
    """Revisions that one principle asked for.

    `reasons` counts each draw that was turned down once for every principle it was worse under, so their sum may exceed
    `turned_down + retries`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    principle_id: str
    revisions: int
    """Rounds that came before the gate."""
    let_in: int
    """Of these, rounds whose revision counts; the retried ones included."""
    let_in_after_retry: int
    retries: int
    """Draws after the first."""
    reasons: tuple[GateReason, ...]

    @property
    def turned_down(self) -> int:
        """Rounds in which the text before the revision was kept."""
        return self.revisions - self.let_in


class GateTally(BaseModel):
    """The gate's work in all; `by_principle` in the order in which the principles first came up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by_principle: tuple[GateCount, ...]

    @property
    def revisions(self) -> int:
        return sum(each.revisions for each in self.by_principle)

    @property
    def turned_down(self) -> int:
        return sum(each.turned_down for each in self.by_principle)

    @property
    def let_in_after_retry(self) -> int:
        return sum(each.let_in_after_retry for each in self.by_principle)

    @property
    def retries(self) -> int:
        return sum(each.retries for each in self.by_principle)

    @property
    def reasons(self) -> tuple[GateReason, ...]:
        """Over all principles that asked, the most frequent first."""
        counts: Counter[tuple[str, GateRole]] = Counter()
        for each in self.by_principle:
            for reason in each.reasons:
                counts[reason.principle_id, reason.role] += reason.count
        return _reasons(counts)


@dataclass
class _Count:
    revisions: int = 0
    let_in: int = 0
    let_in_after_retry: int = 0
    retries: int = 0
    reasons: Counter[tuple[str, GateRole]] = field(default_factory=Counter[tuple[str, GateRole]])

    def add(self, ruling: GateRuling) -> None:
        self.revisions += 1
        self.let_in += ruling.accepted
        self.let_in_after_retry += ruling.accepted and bool(ruling.rejected)
        self.retries += ruling.retries
        worse = (check for rejected in ruling.rejected for check in rejected.checks if check.worse)
        self.reasons.update((check.principle_id, check.role) for check in worse)


def gate_tally(records: Iterable[RevisionRecord]) -> GateTally:
    """Count over all rounds that came before the gate. Memory does not grow with the records."""
    counts: dict[str, _Count] = {}
    for record in records:
        for each in record.rounds:
            if each.gate is not None:
                counts.setdefault(each.principle_id, _Count()).add(each.gate)
    return GateTally(
        by_principle=tuple(
            GateCount(
                principle_id=identity,
                revisions=count.revisions,
                let_in=count.let_in,
                let_in_after_retry=count.let_in_after_retry,
                retries=count.retries,
                reasons=_reasons(count.reasons),
            )
            for identity, count in counts.items()
        )
    )


def _reasons(counts: Counter[tuple[str, GateRole]]) -> tuple[GateReason, ...]:
    return tuple(GateReason(principle_id=identity, role=role, count=count) for (identity, role), count in counts.most_common())
