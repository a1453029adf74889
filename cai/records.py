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
    FAILURE = "failure"
    """`FailureRecord`: items that could not be finished, in whatever stage."""


EVALUATION = "evaluation"
"""Name of the measurement that holds the one `EvaluationResult` of a run."""


class Stage(StrEnum):
    """The stages of a run, in their order. A finished stage keeps a summary in the run folder."""

    GENERATE = "generate"
    """Summary: `records`, `failures`, and `gate` (`GateTally`) where there is a gate."""
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
    """One input conversation that ends with a user turn.

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


class Round(Record):
    """One critique, and the revision it led to. `round` is 0-based."""

    round: int
    principle_id: str
    critique: str
    verdict: Verdict
    revision: str | None
    """None when there was nothing to change, when the revision was empty (then `note` says so), or when the gate turned it
    down (then `gate` holds it)."""
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


Method: TypeAlias = Literal["letters", "pointwise"]


class ComparisonRecord(Record):
    """Two answers judged under one principle.

    `margin_nats` is the log-odds that `first` is better than `second`; for letters it is one order's log P(A) − log P(B) with
    the sign turned so that it always speaks of `first`; for pointwise verdicts the difference of the two log-odds.
    """

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    principle_id: str
    method: Method
    order: Literal["first_second", "second_first", "none"]
    margin_nats: float
    mass_outside: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that went to neither letter (letters), or 0."""


class PreferenceRecord(Record):
    """A labelled pair. `p_chosen` in [0.5, 1]: the probability, by AI feedback, that `chosen` is the better answer."""

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    prompt: Conversation
    chosen: str
    rejected: str
    chosen_source: Literal["draft", "revision", "sample"]
    p_chosen: Annotated[float, Field(ge=0.5, le=1.0)]
    margin_nats: float
    method: Method
    principle_ids: tuple[str, ...]
    comparisons: tuple[ComparisonRecord, ...] = ()
    tags: tuple[str, ...] = ()


class SFTRecord(Record):
    """One supervised row: the assistant's `reply` to `messages`, which end with a user turn. Only the reply is learned."""

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    messages: Conversation
    reply: str
    tags: tuple[str, ...] = ()


class FailureRecord(Record):
    """One item that could not be finished: counted and shown, never dropped."""

    version: int = RECORD_VERSION
    uid: str
    replica: int = 0
    stage: str
    cause: str
    detail: str


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
