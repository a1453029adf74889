"""What an evaluation by suites found, for each model and for each against the first. Pure data: stored, exported, shown.

Every share and mean has a 95 % interval. `Comparison.rows` are `BehaviourRow`s, so that what reads those reads these.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cai.evaluation.judging import JudgeQuality
from cai.evaluation.results import MIN_ROWS, BehaviourRow
from cai.evaluation.suites import Kind, Outcome
from cai.labels.calibration import Calibration
from constitution.messages import Conversation

Better: TypeAlias = Literal["less", "more", "neither"]
Correction: TypeAlias = Literal["holm", "benjamini-hochberg", "none"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BehaviourShare(_Frozen):
    """One behaviour of one model: the share of its answers that are bad, in [0, 1]."""

    behaviour: str
    label: str
    kind: Kind
    twin: str | None
    prompts: int
    clusters: int
    answers: int
    share: float
    low: float
    high: float
    broken: float


class MeasureValue(_Frozen):
    """One figure of one model. `rows` answers, or comparisons, in `clusters`."""

    measure: str
    label: str
    unit: str
    better: Better
    value: float
    low: float
    high: float
    rows: int
    clusters: int


class ConfidenceResult(_Frozen):
    """How sure a model is, against how often it is right.

    Args:
        way: `token`: the likeliest option's share of the probability of all options; `stated`: in its own words.
        mean_confidence: In [0, 1].
        accuracy: Likewise; confidence above it is over-confidence.
        unparsed: Stated: answers that do not say how sure they are; they count in nothing else.
        by_word: Stated: answers whose confidence is a word ("fairly sure") and no number.
        calibration: Reliability, expected calibration error, Brier score.
    """

    way: Literal["token", "stated"]
    mean_confidence: float
    accuracy: float
    unparsed: int
    by_word: int
    calibration: Calibration


class ModelResult(_Frozen):
    """One model on one suite."""

    model: str
    fingerprint: str
    behaviours: tuple[BehaviourShare, ...]
    measures: tuple[MeasureValue, ...]
    confidence: tuple[ConfidenceResult, ...]
    failures: dict[str, int]
    """Cause → answers that could not be given or judged: in no figure of this model."""
    unmeasured: dict[str, str]
    """Measure → why there is no figure."""


class MeasureChange(_Frozen):
    """One figure before and after; `difference` is after − before. `p` is None where only the interval speaks."""

    measure: str
    label: str
    unit: str
    better: Better
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float | None
    p_corrected: float | None = None
    rows: int
    clusters: int
    clusters_needed: int | None = None
    """Shares: to show a change of `SMALLEST_DIFFERENCE` four times in five; None for figures in other units."""

    @property
    def enough(self) -> bool:
        return self.clusters >= MIN_ROWS

    @property
    def clear(self) -> bool:
        """Whether the change is shown."""
        p = self.p if self.p_corrected is None else self.p_corrected
        return (self.low > 0 or self.high < 0) and (p is None or p < 0.05)


class Comparison(_Frozen):
    """One model against the first: the same prompts, the same noise."""

    before: str
    after: str
    rows: tuple[BehaviourRow, ...]
    measures: tuple[MeasureChange, ...]


class SuiteResult(_Frozen):
    """One suite. Comparisons are with the first of `models`."""

    suite: str
    description: str
    fingerprint: str
    judge: str
    judges: tuple[JudgeQuality, ...]
    models: tuple[ModelResult, ...]
    comparisons: tuple[Comparison, ...]
    temperatures: tuple[float, ...]
    seeds: Annotated[int, Field(ge=1)]
    correction: Correction
    tests_corrected_for: int = 0
    """p-values of the whole evaluation, this suite's among them, that `p_corrected` is corrected for."""

    @property
    def failures(self) -> int:
        return sum(sum(model.failures.values()) for model in self.models)


class SuiteAnswer(_Frozen):
    """One answer of one model, as it was judged. `section` is a behaviour's id, or `stated`, `drift`, `preference`."""

    suite: str
    model: str
    section: str
    uid: str
    cluster: str
    temperature: float
    seed: int
    conversation: Conversation
    reply: str
    cut: bool
    outcome: Outcome | None
    """None where nobody judges: open prompts."""
    why: str
    score: float | None = None
    """preference: 1 won against the first model, 0 lost, 0.5 where the orders contradict each other. stated: confidence."""
