"""What a report shows: plain values, already counted. Knows no files and no HTML.

Shares are in [0, 1]. A part of the run that has not happened yet is None or empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cai.data.filters.overview import Overview
from cai.evaluation.results import EvaluationResult
from cai.evaluation.suite_results import SuiteResult
from cai.labels.quality import LabelQuality
from cai.loop import GateTally
from cai.records import Outcome, Stage
from cai.report.leash import LeashView
from cai.report.listing import Listing
from cai.review.figures import ReviewFigures
from cai.store import Usage
from cai.training.results import TrainingResult
from cai.training.reward_quality import RewardQuality


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
class LengthRow:
    """Mean length of two sorts of texts, in words: of `rows` of each."""

    what: str
    first: str
    first_words: float
    second: str
    second_words: float
    rows: int


@dataclass(frozen=True, slots=True)
class BesideBehaviour:
    """Bad answers after training in this run and in another, in words; `there` minus `here` with its interval."""

    label: str
    here: str
    there: str
    change: str
    p: float
    prompts: int


@dataclass(frozen=True, slots=True)
class BesideView:
    """What there is to say of a run beside another.

    Args:
        name: Of the other run.
        lines: Rows and labels that both have, and how many differ.
        principles: (id, what happened to it) of those that are not the same.
        settings: (key, here, there) of those that are not the same.
        metrics: (name, here, there) of the last step of training.
        behaviours: After training, on the same prompts.
        not_compared: What could not be, and why.
    """

    name: str
    lines: tuple[str, ...] = ()
    principles: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str, str], ...] = ()
    metrics: tuple[tuple[str, str, str], ...] = ()
    behaviours: tuple[BesideBehaviour, ...] = ()
    not_compared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page."""

    name: str
    program: str
    stages: dict[Stage, bool]
    """Every stage that is part of this run, in order, and whether it is finished."""
    ledger: LedgerView
    evaluation: EvaluationResult | None = None
    suites: tuple[SuiteResult, ...] = ()
    transcripts: Listing | None = None
    answers: Listing | None = None
    suite_answers: Listing | None = None
    lengths: tuple[LengthRow, ...] = ()
    beside: BesideView | None = None
    """None where no other run was given."""
    bad_calls: int = 0
    """Revisions left out since they call a tool as it cannot be called."""
    gate: GateTally | None = None
    """None where the loop had no gate."""
    filters: Overview | None = None
    """None before the filters were asked."""
    labels: LabelsView | None = None
    review: ReviewFigures | None = None
    """None where nobody has reviewed the run."""
    waiting: str = ""
    """What is not learned before a person has judged it, in words."""
    training: tuple[TrainingView, ...] = ()
    leash: LeashView | None = None
    """None where `cai rl` has made no step."""
    reward: RewardQuality | None = None
    """Of the run's reward model; None where it has none, or none was measured."""
    constitution: ConstitutionView | None = None
    usage: dict[str, Usage] = field(default_factory=dict[str, Usage])
    facts: tuple[tuple[str, str], ...] = ()
    """What one needs to know to repeat the run: (name, value)."""
    datasets: tuple[tuple[str, int, str], ...] = ()
    """Written data sets: (name, rows, files)."""
    config: dict[str, Any] = field(default_factory=dict[str, Any])
