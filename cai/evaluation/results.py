"""What an evaluation found. Pure data: stored in the run folder, shown by the command line and the report."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cai.evaluation.suites import Kind, Outcome

MIN_ROWS = 20
"""Below so many prompts a share says little: the table says so aloud."""
SMALLEST_DIFFERENCE = 0.1
"""A change that is worth showing: "enough rows" is enough for this one."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(ge=0.0, le=1.0)]


class BehaviourRow(_Frozen):
    """One behaviour before and after. Shares are of answers judged bad, in [0, 1]; a `difference` below 0 is an improvement."""

    behaviour: str
    label: str
    kind: Kind
    prompts: int
    answers: int
    """Per side: prompts × (temperatures and seeds)."""
    before: Share
    before_low: Share
    before_high: Share
    after: Share
    after_low: Share
    after_high: Share
    difference: float
    difference_low: float
    difference_high: float
    mcnemar_p: Share
    broken_before: Share
    broken_after: Share
    twin: str | None = None
    """The control of a fault, or the fault of a control."""
    clusters: int | None = None
    """Answers to one prompt are one cluster, and so may be prompts about one thing; None: as many as prompts."""
    clusters_needed: int | None = None
    """To show a change of `SMALLEST_DIFFERENCE` four times in five, given how much answers changed here."""
    p_corrected: Share | None = None
    """`mcnemar_p`, corrected for the number of tests in the evaluation; None: not corrected."""

    @property
    def independent(self) -> int:
        """Clusters: as many as there are independent rows."""
        return self.prompts if self.clusters is None else self.clusters

    @property
    def enough(self) -> bool:
        return self.independent >= MIN_ROWS

    @property
    def clear(self) -> bool:
        """Whether the change is shown: the interval leaves out 0, and the corrected p-value is below 5 %."""
        p = self.mcnemar_p if self.p_corrected is None else self.p_corrected
        return (self.difference_low > 0 or self.difference_high < 0) and p < 0.05

    @property
    def missing_clusters(self) -> int:
        """How many more clusters it takes to say whether there is a change worth showing; 0: none, or it is shown."""
        wanted = max(MIN_ROWS, self.clusters_needed or 0)
        return 0 if self.clear and self.enough else max(0, wanted - self.independent)


class AnswerPair(_Frozen):
    """One prompt's answers before and after, at one temperature and seed."""

    uid: str
    behaviour: str
    prompt: str
    temperature: float
    seed: int
    before: str
    before_outcome: Outcome
    before_why: str
    after: str
    after_outcome: Outcome
    after_why: str
    cluster: str = ""
    """What the prompt is about, where several are about one thing."""


class Showcase(_Frozen):
    prompt: str
    before: str
    after: str


class EvaluationResult(_Frozen):
    """The whole comparison."""

    suite: str
    judge: str
    policy_before: str
    policy_after: str
    rows: tuple[BehaviourRow, ...]
    by_temperature: dict[str, tuple[BehaviourRow, ...]]
    """The same table for each temperature alone; keys are `greedy` and `T=1`."""
    answers: tuple[AnswerPair, ...]
    showcase: tuple[Showcase, ...]
    failures: int
    """Answers that could not be given or judged: left out of the shares, on both sides."""

    def verdicts(self) -> list[str]:
        """What the table says, in sentences; with a warning for every behaviour on too few prompts."""
        lines: list[str] = []
        for row in self.rows:
            change = f"{row.before:.0%} → {row.after:.0%}"
            if not row.enough:
                lines.append(
                    f"{row.label}: {change}, on {row.prompts} prompt{'s' * (row.prompts != 1)} only: too few to conclude from."
                )
            elif row.kind == "control":
                worse = row.difference > 0.03
                lines.append(f"{row.label} (control): {change}; " + ("WORSE by more than 3 points." if worse else "held."))
            elif row.before == 0:
                lines.append(f"{row.label}: {change}; there was no fault to begin with.")
            else:
                fallen = 1 - row.after / row.before
                verdict = f"fell by {fallen:.0%}." if fallen >= 0 else f"ROSE by {-fallen:.0%}."
                lines.append(f"{row.label}: {change}; {verdict}")
        return lines
