"""What is persisted: the types in which the stages meet.

Pure data, versioned by `RECORD_VERSION`; no model, no files. Every record names its item by (uid, replica).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from constitution.messages import Conversation

RECORD_VERSION = 1


class RecordKind(StrEnum):
    """Names under which a run folder keeps the records of its items."""

    REVISION = "revision"
    """`RevisionRecord`: every item that went through the loop."""
    PREFERENCE = "preference"
    """`PreferenceRecord`: the labelled pairs."""
    UNDECIDED = "undecided"
    """`UndecidedRecord`: what was compared and made no pair."""
    FAILURE = "failure"
    """`FailureRecord`: items that could not be finished, in whatever stage."""
    FINDING = "finding"
    """`FindingRecord`: what the filters found, in rows they dropped and in rows they let pass with a flag."""


EVALUATION = "evaluation"
"""Name of the measurement that holds the one `EvaluationResult` of a run."""
SUITE_RESULTS = "suite-results"
"""Name of the measurements that hold one `SuiteResult` each."""
SUITE_ANSWERS = "suite-answers"
"""Name of the measurements that hold one `SuiteAnswer` each."""
EVALUATIONS = (EVALUATION, SUITE_RESULTS, SUITE_ANSWERS)


class Stage(StrEnum):
    """The stages of a run, in their order. A finished stage keeps a summary in the run folder."""

    GENERATE = "generate"
    """Summary: `records`, `failures`, `gate` (`GateTally`) where there is a gate, `bad_calls` where there are any."""
    LABEL = "label"
    """Summary: `LabelQuality`."""
    EXPORT = "export"
    """Summary: `files` (configuration → path in the run folder) and `rows` (configuration → count)."""
    SFT = "sft"
    """Summary: `TrainingResult`."""
    DPO = "dpo"
    """Summary: `TrainingResult`."""
    EVALUATE = "evaluate"
    """Summary: `verdicts`, the table in sentences. The whole result is the measurement `EVALUATION`."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Item(Record):
    """One input conversation that ends with a user turn, or with a tool's result.

    `uid` is the row's own id when it has one, else a hash of its content, with `#2`, `#3` … on legal duplicates.
    `facts` travels with the item untouched (checker data, source columns); no prompt is made from it.
    """

    uid: str
    messages: Conversation
    tags: tuple[str, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    source: str = ""
    """Where it came from, as `file:row`."""


class Verdict(StrEnum):
    NOTHING_TO_CHANGE = "nothing_to_change"
    FAULT = "fault"


GateRole: TypeAlias = Literal["own", "earlier", "helpfulness", "harm"]
"""Why the gate asks a principle: it asked for the revision, it had an earlier round, or it always speaks for its side."""


class GateCheck(Record):
    """One principle's verdict on a revision: log-odds, in nats, that a critique finds nothing to change, before and after."""

    principle_id: str
    role: GateRole
    before_nats: float
    after_nats: float
    worse: bool


class RejectedRevision(Record):
    """A revision that the gate turned down, and on what grounds. `revision` is "" for a retry that came to nothing."""

    revision: str
    checks: tuple[GateCheck, ...]
    revision_cut: bool = False
    note: str = ""


class GateRuling(Record):
    """What the gate made of one round: the checks of the revision it let through, and all that it turned down, in order."""

    accepted: bool
    checks: tuple[GateCheck, ...] = ()
    """Of the accepted revision; empty when it repeats the text before it, word for word."""
    rejected: tuple[RejectedRevision, ...] = ()

    @property
    def retries(self) -> int:
        """Draws after the first."""
        return len(self.rejected) - (not self.accepted)


BAD_CALL_KEPT = "a call that cannot be made: the text before it was kept"
"""How the note of a round begins whose revision calls a tool that there is not, or with arguments that do not fit."""


BAD_CALLS_KEY = "bad_calls"
"""In the summary of the loop, how many revisions that are; not there where there are none."""


class Round(Record):
    """One critique, and the revision it led to. `round` is 0-based."""

    round: int
    principle_id: str
    critique: str
    verdict: Verdict
    revision: str | None
    """None when there was nothing to change, when the revision was empty or called a tool as it cannot be called (then `note`
    says so), or when the gate turned it down (then `gate` holds it)."""
    critique_cut: bool = False
    """The critique was cut at its token limit."""
    revision_cut: bool = False
    note: str = ""
    """What was done to the texts besides (an empty revision left out, a label taken off its front)."""
    gate: GateRuling | None = None
    """None without a gate, and where there was no revision to look at."""


class RevisionRecord(Record):
    """One item through draft → (critique → revision) × rounds."""

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    messages: Conversation
    tags: tuple[str, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    draft: str
    draft_cut: bool = False
    """The draft was cut at its token limit: not a whole answer."""
    draft_trimmed: bool = False
    """It was cut, and ends here with its last whole sentence."""
    rounds: tuple[Round, ...]

    @property
    def final(self) -> str:
        """The newest revision that counts, or the draft when there is none. Never one that the gate turned down."""
        revisions = [r.revision for r in self.rounds if r.revision is not None]
        return revisions[-1] if revisions else self.draft

    @property
    def changed(self) -> bool:
        return any(r.revision is not None for r in self.rounds)

    @property
    def bad_calls(self) -> int:
        """Revisions left out since they call a tool that there is not, or with arguments that do not fit its schema."""
        return sum(r.note.startswith(BAD_CALL_KEPT) for r in self.rounds)

    @property
    def unmended(self) -> bool:
        """A critique found a fault in the draft, and no revision took its place: the draft is nobody's example."""
        return not self.changed and any(r.verdict is Verdict.FAULT and r.critique for r in self.rounds)

    @property
    def gate_closed(self) -> bool:
        """The gate turned down whatever revision there was."""
        return not self.changed and any(r.gate is not None and not r.gate.accepted for r in self.rounds)

    @property
    def final_cut(self) -> bool:
        """Whether the final text was cut at its token limit."""
        revised = [r for r in self.rounds if r.revision is not None]
        return revised[-1].revision_cut if revised else self.draft_cut


Method: TypeAlias = Literal["pointwise", "letters", "yes_no", "contrast"]
Source: TypeAlias = Literal["draft", "revision", "sample"]
LabelSource: TypeAlias = Literal["ai", "people"]


class ComparisonRecord(Record):
    """Two answers judged under one principle by one labelling model.

    `margin_nats` is the log-odds that `first` is better than `second`. For letters it is one order's log P(A) − log P(B) with
    the sign turned so that it always speaks of `first`; for methods that look at one answer at a time, the difference of both.
    """

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    number: Annotated[int, Field(ge=0)] = 0
    """Of the pair among those of its item."""
    labeller: Annotated[int, Field(ge=0)] = 0
    """Place of the model among those that label."""
    principle_id: str
    method: Method
    order: Literal["first_second", "second_first", "none"]
    margin_nats: float
    mass_outside: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that went to none of the words asked for (letters, yes_no: of the worse of both answers), or 0."""
    arguments: tuple[str, str] | None = None
    """letters after a debate: what was said for `first`, and for the other answer."""


class ComparedRecord(Record):
    """Two answers to one prompt, and all that was said of them. `number` counts the pairs of an item from 0."""

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    number: Annotated[int, Field(ge=0)] = 0
    prompt: Conversation
    margin_nats: float
    method: Method
    principle_ids: tuple[str, ...]
    comparisons: tuple[ComparisonRecord, ...] = ()
    tags: tuple[str, ...] = ()


class PreferenceRecord(ComparedRecord):
    """A labelled pair. `p_chosen` in [0.5, 1]: the probability, by AI feedback, that `chosen` is the better answer.

    `margin_nats` are the log-odds before temperature and limits. Comparisons speak of the first answer that was compared, which
    is the chosen one when `chosen_is_first`.
    """

    chosen: str
    rejected: str
    chosen_source: Source
    rejected_source: Source
    chosen_index: Annotated[int, Field(ge=0)] = 0
    """Round of a revision, replica of a sample, 0 of a draft."""
    rejected_index: Annotated[int, Field(ge=0)] = 0
    chosen_is_first: bool = True
    p_chosen: Annotated[float, Field(ge=0.5, le=1.0)]

    @property
    def label_source(self) -> LabelSource:
        """Who labelled the pair."""
        return "ai"

    @property
    def first(self) -> str:
        """The answer that comparisons speak of."""
        return self.chosen if self.chosen_is_first else self.rejected

    @property
    def second(self) -> str:
        return self.rejected if self.chosen_is_first else self.chosen

    @property
    def first_margin_nats(self) -> float:
        """Log-odds that `first` is better than `second`."""
        return self.margin_nats if self.chosen_is_first else -self.margin_nats


class ReviewedPreference(PreferenceRecord):
    """A pair whose label is people's. `p_chosen` and `margin_nats` are theirs; comparisons are still those of AI feedback.

    Made of a stored record and of verdicts whenever pairs are read; never stored itself.
    """

    reviewers: Annotated[int, Field(ge=1)]
    """People who judged it."""
    ai_p_chosen: Annotated[float, Field(ge=0.0, le=1.0)] | None
    """Probability, by AI feedback, that the same answer is the better one; None where that was undecided."""

    @property
    def label_source(self) -> LabelSource:
        return "people"


class UndecidedRecord(ComparedRecord):
    """Two answers that were compared, and why they are no pair. `margin_nats` speaks of `first`."""

    first: str
    second: str
    first_source: Source
    second_source: Source
    first_index: Annotated[int, Field(ge=0)] = 0
    second_index: Annotated[int, Field(ge=0)] = 0
    reason: str

    @property
    def first_margin_nats(self) -> float:
        """Log-odds that `first` is better than `second`."""
        return self.margin_nats


ComparedPair: TypeAlias = PreferenceRecord | UndecidedRecord
"""Two answers that were compared, with a label or without."""


class Judgement(StrEnum):
    """What one person says of two answers, or of a single one."""

    FIRST = "first"
    """The first answer is better."""
    SECOND = "second"
    TIE = "tie"
    """Neither is better."""
    BOTH_BAD = "both_bad"
    """Neither is fit to be learned from."""
    GOOD = "good"
    """Of a single answer: fit to be learned from."""
    BAD = "bad"
    """Of a single answer: not fit."""
    SKIP = "skip"
    """Seen, and not judged."""
    WITHDRAWN = "withdrawn"
    """What this person said before is taken back."""


class HumanVerdict(Record):
    """One person's verdict on one answer, or on two.

    It speaks of texts, whatever a run makes of its rows: `replies` are the fingerprints of the answers with their prompt, in
    rising order, and `first` names the answer whose fingerprint comes first.
    """

    version: int = RECORD_VERSION
    replies: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], ...], Field(min_length=1, max_length=2)]
    uid: str
    replica: Annotated[int, Field(ge=0)] = 0
    number: Annotated[int, Field(ge=0)] = 0
    """Of the pair among those of its item, when it was judged."""
    reviewer: Annotated[str, Field(min_length=1, max_length=80)]
    judgement: Judgement
    shown: Literal["first_second", "second_first", "single", "unknown"]
    """Which answer stood at place A; `unknown` where another program showed them."""
    note: Annotated[str, Field(max_length=10_000)] = ""
    at: str
    """When, in UTC (ISO 8601)."""
    seconds: Annotated[float, Field(ge=0.0)] | None = None
    """From the pair's being shown to the verdict; None where nobody measured it."""
    by: Literal["page", "terminal", "csv", "argilla", "label-studio"]

    @property
    def pair(self) -> str:
        """The name of what was judged."""
        return "-".join(self.replies)


class SFTRecord(Record):
    """One supervised row: the assistant's `reply` to `messages`, which end with a user turn."""

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    round: int | None = None
    """Of the revision that the reply is; None for a draft, and for rows of a file."""
    messages: Conversation
    reply: str
    tags: tuple[str, ...] = ()
    source: str = ""
    """Where it came from, as `file:row`; "" for a row of a run."""


class FailureRecord(Record):
    """One item that could not be finished: counted and shown, never dropped."""

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    stage: str
    cause: str
    detail: str


class FindingRecord(Record):
    """That a rule of the filters was broken, and by what. It holds no text: `span` is a place in one (characters)."""

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    rule: str
    action: Literal["drop", "flag"]
    detail: str
    place: Literal["reply", "prompt"] = "reply"
    """The text that the span lies in: the final reply, or the last user turn."""
    span: tuple[int, int] | None = None
    score: float | None = None
    limit: float | None = None


class Outcome(StrEnum):
    """How an item ended. The ledger balances: every (uid, replica) has exactly one."""

    PAIR = "pair"
    KEPT = "kept"
    """Kept without a pair (nothing to change, or no preference between the candidates)."""
    FILTERED = "filtered"
    FAILED = "failed"
    PENDING = "pending"


class LedgerEntry(Record):
    uid: str
    replica: int = 0
    outcome: Outcome
    reason: str = ""
    """The rule for `filtered`, `stage: cause` for `failed`, why there is no pair for `kept`."""
