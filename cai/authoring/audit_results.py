"""What an audit found. Pure data: written as JSON, printed by the command line."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AuditRow(_Frozen):
    """A quoted row: what one principle made of a text, and what another then made of that."""

    uid: str
    prompt: str
    before: str
    after: str
    critique: str


class PrincipleAudit(_Frozen):
    """One principle on its own, over the rows it applies to."""

    principle_id: str
    applies: int
    """Rows it applies to and was asked about; failures are not in it."""
    fired: int
    """Drafts it finds a fault in."""
    changed: int
    """Drafts that its revision alters."""
    judged: int
    """Of its own revisions, those it could be asked about again."""
    mended: int
    """Of these, the ones it is then content with (log-odds of "nothing to change" above 0)."""
    failed: int
    """Rows on which it could not be asked or could not revise: drafts, and revisions of the other principles (so it may exceed
    the drafts). They are in none of the counts above; verdicts on its own revisions that failed are in `AuditResult.failures`
    only."""
    redundant: bool
    """It fires, and some other principle fires on every row it fires on: without it no draft would pass that now does not."""
    nearest: str
    """The principle that fires on most of the rows this one fires on ("" if it never fires, or always alone)."""
    nearest_rows: int

    @property
    def kept(self) -> int:
        """Drafts with "nothing to change"."""
        return self.applies - self.fired


class PairAudit(_Frozen):
    """`second` applied to what `first` made of a draft."""

    first: str
    second: str
    rows: int
    """Revisions of `first` that `second` was asked about."""
    objected: int
    """`second` had nothing against the draft, and finds a fault in the revision: the two disagree."""
    rewrote: int
    """Revisions that `second` altered."""
    undone: int
    """Of those, the ones in which `first` finds a fault again, though it was content with its own revision."""
    objections: tuple[AuditRow, ...] = ()
    undoings: tuple[AuditRow, ...] = ()


class OrderAudit(_Frozen):
    """Two principles that both alter the same drafts, in either order. Satisfied: log-odds of "nothing to change" above 0."""

    one: str
    other: str
    rows: int
    differ: int
    """Rows whose final text depends on the order."""
    satisfied_one_first: float
    """Share of (row, principle) satisfied in the end when `one` comes first, in [0, 1]."""
    satisfied_other_first: float


class GroupAudit(_Frozen):
    """The rows of one behaviour, or of one set of tags."""

    group: str
    rows: int
    applicable: int
    """Rows to which some principle applies."""
    fired: int
    """Rows in which some principle finds a fault."""
    bad: int | None
    """Drafts that are bad by exact truth; None where there is none."""
    bad_passed: int | None
    """Of those, the ones that no principle objects to: not covered."""
    passed: tuple[AuditRow, ...] = ()
    bare: tuple[AuditRow, ...] = ()
    """Rows to which no principle applies."""


class AuditResult(_Frozen):
    """The whole audit of a constitution on a sample of prompts."""

    constitution: str
    items: int
    failures: int
    """Calls that could not be answered; their rows are left out of what they would have counted for."""
    principles: tuple[PrincipleAudit, ...]
    pairs: tuple[PairAudit, ...]
    orders: tuple[OrderAudit, ...]
    groups: tuple[GroupAudit, ...]
    removable: tuple[str, ...]
    """Principles that fire, and may all go together: every draft that is faulted now would still be. The rarest go first."""
