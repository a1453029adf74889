"""What a report shows: plain values, already counted. Knows no files and no HTML.

Shares are in [0, 1]. A part of the run that has not happened yet is None or empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cai.evaluation.results import AnswerPair, EvaluationResult
from cai.labels.quality import LabelQuality
from cai.loop import GateTally
from cai.records import Outcome, PreferenceRecord, RevisionRecord, Stage
from cai.store import Usage
from cai.training.results import TrainingResult


@dataclass(frozen=True, slots=True)
class Reason:
    outcome: Outcome
    reason: str
    """May be empty."""
    rows: int


@dataclass(frozen=True, slots=True)
class LedgerView:
    """Where every input row went. `expected_rows` is counted from the input, `rows` from the outcomes: they must agree."""

    items: int
    replicas: int
    unreadable: int
    rows: int
    counts: dict[Outcome, int]
    reasons: tuple[Reason, ...]
    failures: tuple[tuple[str, str], ...]
    """Examples of what went wrong: (where, what)."""
    failures_left_out: int

    @property
    def expected_rows(self) -> int:
        return self.items * self.replicas + self.unreadable

    @property
    def balanced(self) -> bool:
        return self.rows == self.expected_rows == sum(reason.rows for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class Transcript:
    """One item through the loop, how it ended, and its label if it became a pair."""

    record: RevisionRecord
    outcome: Outcome
    reason: str
    label: PreferenceRecord | None


@dataclass(frozen=True, slots=True)
class PrincipleUse:
    """A principle of the constitution and what it did in the loop."""

    id: str
    principle: str
    rationale: str
    weight: float
    applies_to: tuple[str, ...]
    drawn: int = 0
    faults: int = 0
    revisions: int = 0

    @property
    def fault_share(self) -> float | None:
        return self.faults / self.drawn if self.drawn else None


@dataclass(frozen=True, slots=True)
class ConstitutionView:
    name: str
    fingerprint: str
    principles: tuple[PrincipleUse, ...]


@dataclass(frozen=True, slots=True)
class LabelsView:
    """`histogram[i]` counts the labels with p_chosen in the i-th of equally wide bins of [0.5, 1]."""

    quality: LabelQuality
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrainingView:
    """A training stage; `result` is None while it is not finished, `metrics` has the numbers of each logged step."""

    stage: Stage
    result: TrainingResult | None
    metrics: tuple[dict[str, float], ...]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page."""

    name: str
    program: str
    stages: dict[Stage, bool]
    """Every stage that is part of this run, in order, and whether it is finished."""
    ledger: LedgerView
    evaluation: EvaluationResult | None = None
    answers: tuple[AnswerPair, ...] = ()
    answers_total: int = 0
    transcripts: tuple[Transcript, ...] = ()
    transcripts_total: int = 0
    gate: GateTally | None = None
    """None where the loop had no gate."""
    labels: LabelsView | None = None
    training: tuple[TrainingView, ...] = ()
    constitution: ConstitutionView | None = None
    usage: dict[str, Usage] = field(default_factory=dict[str, Usage])
    facts: tuple[tuple[str, str], ...] = ()
    """What one needs to know to repeat the run: (name, value)."""
    datasets: tuple[tuple[str, int, str], ...] = ()
    """Written data sets: (name, rows, files)."""
    config: dict[str, Any] = field(default_factory=dict[str, Any])
