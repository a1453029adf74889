"""Finished items → labelled pairs: engine in, records out. Every (item, replica) ends as a pair, kept without one, or failed.

Knows no files. A judge that fails on one answer fails that pair alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeAlias

from cai.engines.base import Engine, RequestFailure
from cai.labels.letters import ORDERS, Compared, compare
from cai.labels.settings import LabelSettings
from cai.records import (
    ComparisonRecord,
    FailureRecord,
    LedgerEntry,
    Outcome,
    PreferenceRecord,
    RevisionRecord,
)
from cai.verdicts import Judged, VerdictOdds, judge
from constitution.messages import Conversation
from constitution.rendering import read_critique
from constitution.schema import Constitution, Principle
from constitution.selection import applicable

Label: TypeAlias = PreferenceRecord | LedgerEntry | FailureRecord
OnLabelEvent: TypeAlias = Callable[[int, int, int], None]
"""(calls answered, calls in all) of the chunk in work, and pairs finished before it."""

SOURCES = {"draft_revision": ("revision", "draft"), "two_samples": ("sample", "sample")}


@dataclass(frozen=True, slots=True)
class Candidates:
    """Two answers to one prompt, and the principles they are judged by.

    `grounds` holds (principle id, ground) of critiques of `second` that are written already.
    """

    uid: str
    replica: int
    conversation: Conversation
    first: str
    second: str
    principles: tuple[Principle, ...]
    tags: tuple[str, ...] = ()
    grounds: tuple[tuple[str, str], ...] = ()


def run_labels(
    records: Iterable[RevisionRecord],
    constitution: Constitution,
    feedback: Engine,
    settings: LabelSettings,
    *,
    seed: int,
    on_event: OnLabelEvent | None = None,
) -> Iterator[Label]:
    """Label every record.

    Yields:
        For each (uid, replica) exactly one of: a pair, a ledger entry that says why there is none, or a failure. In the order
        of `records`.
    """
    proposals = _proposals(records, constitution, settings)
    finished = 0
    while chunk := list(islice(proposals, settings.chunk_items)):
        pairs = [each for each in chunk if isinstance(each, Candidates)]
        report = _counting_from(finished, on_event) if on_event else None
        labelled = iter(label_pairs(pairs, feedback, settings, seed=seed, on_done=report))
        for each in chunk:
            yield next(labelled) if isinstance(each, Candidates) else each
        finished += len(pairs)


def _counting_from(finished: int, on_event: OnLabelEvent) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        on_event(done, total, finished)

    return tell


def label_pairs(
    pairs: Sequence[Candidates],
    engine: Engine,
    settings: LabelSettings,
    *,
    seed: int,
    on_done: Callable[[int, int], None] | None = None,
) -> list[Label]:
    """Judge pairs of answers; results in the order given. Swapping `first` and `second` turns the margin's sign."""
    judged = _by_letters if settings.method == "letters" else _by_verdicts
    compared = judged(pairs, engine, settings, seed, on_done)
    return [_label(pair, outcome, settings) for pair, outcome in zip(pairs, compared, strict=True)]


def _proposals(
    records: Iterable[RevisionRecord], constitution: Constitution, settings: LabelSettings
) -> Iterator[Candidates | LedgerEntry]:
    if settings.candidates == "draft_revision":
        for record in records:
            if not record.changed:
                yield _kept(record, _why_unchanged(record))
            elif record.final == record.draft:
                yield _kept(record, "the revision repeats the draft")
            else:
                yield _candidates(record, record.final, record.draft, constitution, settings, known=True)
        return
    for _, group in groupby(records, key=lambda record: record.uid):
        replicas = list(group)
        for one, other in zip(replicas[::2], replicas[1::2], strict=False):
            if one.draft == other.draft:
                yield _kept(one, "both samples are the same")
            else:
                yield _candidates(one, one.draft, other.draft, constitution, settings, known=False)
            yield _kept(other, f"judged beside replica {one.replica}")
        if len(replicas) % 2:
            yield _kept(replicas[-1], "no second sample to compare with")


def _kept(record: RevisionRecord, reason: str) -> LedgerEntry:
    return LedgerEntry(uid=record.uid, replica=record.replica, outcome=Outcome.KEPT, reason=reason)


def _why_unchanged(record: RevisionRecord) -> str:
    if record.gate_closed:
        return "the gate rejected the revision"
    if record.unmended:
        return "the revision was empty"
    return "nothing to change" if record.rounds else "no principle applies"


def _candidates(
    record: RevisionRecord, first: str, second: str, constitution: Constitution, settings: LabelSettings, *, known: bool
) -> Candidates | LedgerEntry:
    principles = _judging(record, constitution, settings)
    if not principles:
        return _kept(record, "no principle to judge by")
    # The first round's critique speaks of the draft: its ground need not be written again.
    first_round = record.rounds[0] if known and record.rounds and record.rounds[0].critique else None
    grounds = ((first_round.principle_id, read_critique(first_round.critique).ground),) if first_round else ()
    return Candidates(
        uid=record.uid,
        replica=record.replica,
        conversation=record.messages,
        first=first,
        second=second,
        principles=principles,
        tags=record.tags,
        grounds=grounds,
    )


def _judging(record: RevisionRecord, constitution: Constitution, settings: LabelSettings) -> tuple[Principle, ...]:
    if settings.principles == "applicable":
        return applicable(constitution, record.tags)
    wanted = {r.principle_id for r in record.rounds} if settings.principles == "used" else set(settings.principles)
    if settings.principles == "used" and not wanted:
        return applicable(constitution, record.tags)
    return tuple(principle for principle in constitution.principles if principle.id in wanted)


def _by_verdicts(
    pairs: Sequence[Candidates],
    engine: Engine,
    settings: LabelSettings,
    seed: int,
    on_done: Callable[[int, int], None] | None,
) -> list[list[ComparisonRecord] | RequestFailure]:
    asked: list[Judged] = []
    for pair in pairs:
        known = dict(pair.grounds)
        for principle in pair.principles:
            for reply, ground in ((pair.first, None), (pair.second, known.get(principle.id))):
                key = f"{seed}/{pair.uid}/{pair.replica}/verdict/0"
                asked.append(Judged(pair.conversation, reply, principle, key, ground))
    odds = iter(judge(engine, asked, ground_tokens=settings.ground_tokens, on_done=on_done))
    outcomes: list[list[ComparisonRecord] | RequestFailure] = []
    for pair in pairs:
        found = [(principle, next(odds), next(odds)) for principle in pair.principles]
        failed = [each for _, one, other in found for each in (one, other) if isinstance(each, RequestFailure)]
        outcomes.append(
            failed[0]
            if failed
            else [
                ComparisonRecord(
                    uid=pair.uid,
                    replica=pair.replica,
                    principle_id=principle.id,
                    method="pointwise",
                    order="none",
                    margin_nats=one.log_odds_nats - other.log_odds_nats,
                )
                for principle, one, other in found
                if isinstance(one, VerdictOdds) and isinstance(other, VerdictOdds)
            ]
        )
    return outcomes


def _by_letters(
    pairs: Sequence[Candidates],
    engine: Engine,
    settings: LabelSettings,  # noqa: ARG001 - same form as `_by_verdicts`
    seed: int,  # noqa: ARG001
    on_done: Callable[[int, int], None] | None,
) -> list[list[ComparisonRecord] | RequestFailure]:
    asked = [Compared(p.conversation, p.first, p.second, principle) for p in pairs for principle in p.principles]
    margins = iter(compare(engine, asked, on_done=on_done))
    outcomes: list[list[ComparisonRecord] | RequestFailure] = []
    for pair in pairs:
        comparisons: list[ComparisonRecord] = []
        failure: RequestFailure | None = None
        for principle in pair.principles:
            found = next(margins)
            if isinstance(found, RequestFailure):
                failure = failure or found
                continue
            comparisons += [
                ComparisonRecord(
                    uid=pair.uid,
                    replica=pair.replica,
                    principle_id=principle.id,
                    method="letters",
                    order=order,
                    margin_nats=margin,
                    mass_outside=outside,
                )
                for order, margin, outside in zip(ORDERS, found.margins_nats, found.masses_outside, strict=True)
            ]
        outcomes.append(failure or comparisons)
    return outcomes


def _label(pair: Candidates, outcome: list[ComparisonRecord] | RequestFailure, settings: LabelSettings) -> Label:
    if isinstance(outcome, RequestFailure):
        return FailureRecord(uid=pair.uid, replica=pair.replica, stage="label", cause=outcome.cause, detail=outcome.detail)
    margin = sum(each.margin_nats for each in outcome) / len(outcome)
    undecided = abs(margin) < settings.min_margin_nats or margin == 0.0
    if settings.method == "letters" and settings.require_agreement and _contradicting(outcome):
        undecided = True
    if undecided:
        return LedgerEntry(uid=pair.uid, replica=pair.replica, outcome=Outcome.KEPT, reason="undecided")
    first_source, second_source = SOURCES[settings.candidates]
    chosen, rejected = (pair.first, pair.second) if margin > 0 else (pair.second, pair.first)
    return PreferenceRecord.model_validate(
        {
            "uid": pair.uid,
            "replica": pair.replica,
            "prompt": pair.conversation,
            "chosen": chosen,
            "rejected": rejected,
            "chosen_source": first_source if margin > 0 else second_source,
            "p_chosen": min(settings.max_p_chosen, 1.0 / (1.0 + math.exp(-min(abs(margin), 700.0)))),
            "margin_nats": abs(margin),
            "method": settings.method,
            "principle_ids": tuple(principle.id for principle in pair.principles),
            "comparisons": tuple(outcome),
            "tags": pair.tags,
        }
    )


def _contradicting(comparisons: Sequence[ComparisonRecord]) -> bool:
    by_order = {order: sum(c.margin_nats for c in comparisons if c.order == order) for order in ORDERS}
    return (by_order["first_second"] > 0) != (by_order["second_first"] > 0)
