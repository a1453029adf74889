"""Which answers to an item are compared with which. Pure functions of records; no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from cai.labels.settings import LabelSettings
from cai.records import LedgerEntry, Outcome, RevisionRecord, Source
from constitution.messages import Conversation
from constitution.rendering import read_critique
from constitution.schema import Constitution, Principle
from constitution.selection import applicable


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer.

    Args:
        text: The answer.
        source: What it is.
        index: Round of a revision, replica of a sample, 0 of a draft.
        grounds: (principle id, ground) of critiques of it that are written already.
    """

    text: str
    source: Source = "sample"
    index: int = 0
    grounds: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Candidates:
    """Several answers to one prompt, the principles they are judged by, and which (first, second) of them are compared."""

    uid: str
    replica: int
    conversation: Conversation
    answers: tuple[Candidate, ...]
    pairs: tuple[tuple[int, int], ...]
    principles: tuple[Principle, ...]
    tags: tuple[str, ...] = ()


def propose(
    records: Iterable[RevisionRecord], constitution: Constitution, settings: LabelSettings
) -> Iterator[Candidates | LedgerEntry]:
    """What there is to compare of each record, or the reason why there is nothing; in the order of `records`."""
    if settings.candidates == "samples":
        for _, group in groupby(records, key=lambda record: record.uid):
            yield from _of_samples(list(group), constitution, settings)
        return
    for record in records:
        yield _of_chain(record, constitution, settings)


def _of_chain(record: RevisionRecord, constitution: Constitution, settings: LabelSettings) -> Candidates | LedgerEntry:
    if not record.changed:
        return _kept(record, _why_unchanged(record))
    # The first round's critique speaks of the draft: its ground need not be written again.
    first = record.rounds[0]
    grounds = ((first.principle_id, read_critique(first.critique).ground),) if first.critique else ()
    revisions = [Candidate(r.revision, "revision", r.round) for r in record.rounds if r.revision is not None]
    draft = Candidate(record.draft, "draft", grounds=grounds)
    # The newest first: comparisons speak of what is hoped to be better.
    answers = [*reversed(revisions), draft] if settings.candidates == "chain" else [revisions[-1], draft]
    if revisions[-1].text == record.draft and settings.candidates == "draft_revision":
        return _kept(record, "the revision repeats the draft")
    return _compared(record, answers, "the revisions repeat the draft", constitution, settings)


def _of_samples(
    replicas: Sequence[RevisionRecord], constitution: Constitution, settings: LabelSettings
) -> Iterator[Candidates | LedgerEntry]:
    first, *others = replicas
    if not others:
        yield _kept(first, "no second sample to compare with")
        return
    answers = [Candidate(each.draft, "sample", each.replica) for each in replicas]
    same = "both samples are the same" if len(answers) == 2 else "all samples are the same"
    compared = _compared(first, answers, same, constitution, settings)
    yield compared
    taken = {first.draft: first.replica}
    for other in others:
        alike = taken.setdefault(other.draft, other.replica)
        if isinstance(compared, LedgerEntry):
            reason = compared.reason
        elif not other.draft.strip():
            reason = "an answer is empty"
        elif alike != other.replica:
            reason = f"the same as replica {alike}"
        else:
            reason = f"judged beside replica {first.replica}"
        yield _kept(other, reason)


def _compared(
    record: RevisionRecord, answers: Sequence[Candidate], same: str, constitution: Constitution, settings: LabelSettings
) -> Candidates | LedgerEntry:
    principles = _judging(record, constitution, settings)
    if not principles:
        return _kept(record, "no principle to judge by")
    filled = [answer for answer in answers if answer.text.strip()]
    if len(filled) < 2:
        return _kept(record, "an answer is empty")
    by_text: dict[str, Candidate] = {}
    for answer in filled:
        by_text.setdefault(answer.text, answer)
    if len(by_text) < 2:
        return _kept(record, same)
    distinct = tuple(by_text.values())
    return Candidates(
        uid=record.uid,
        replica=record.replica,
        conversation=record.messages,
        answers=distinct,
        pairs=tuple(combinations(range(len(distinct)), 2)),
        principles=principles,
        tags=record.tags,
    )


def _kept(record: RevisionRecord, reason: str) -> LedgerEntry:
    return LedgerEntry(uid=record.uid, replica=record.replica, outcome=Outcome.KEPT, reason=reason)


def _why_unchanged(record: RevisionRecord) -> str:
    if record.gate_closed:
        return "the gate rejected the revision"
    if record.unmended:
        return "the revision was empty"
    return "nothing to change" if record.rounds else "no principle applies"


def _judging(record: RevisionRecord, constitution: Constitution, settings: LabelSettings) -> tuple[Principle, ...]:
    if settings.principles == "applicable":
        return applicable(constitution, record.tags)
    wanted = {r.principle_id for r in record.rounds} if settings.principles == "used" else set(settings.principles)
    if settings.principles == "used" and not wanted:
        return applicable(constitution, record.tags)
    return tuple(principle for principle in constitution.principles if principle.id in wanted)
