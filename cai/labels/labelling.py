"""Finished items → labelled pairs: engines in, records out. Every (item, replica) ends with pairs, kept without, or failed.

Knows no files. A judge that fails on one answer fails that item alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

from cai.engines.base import Engine, RequestFailure
from cai.labels.alone import AnswerScore, score_answers, yes_no_spellings
from cai.labels.candidates import Candidates, propose
from cai.labels.ensemble import MarginScales, Voice, pair_margin
from cai.labels.letters import ORDERS, Compared, Reasoning, compare, letter_spellings
from cai.labels.settings import LabelSettings
from cai.records import (
    ComparisonRecord,
    FailureRecord,
    LedgerEntry,
    Method,
    Outcome,
    PreferenceRecord,
    RevisionRecord,
    UndecidedRecord,
)
from cai.verdicts import Judged
from constitution.schema import Constitution

OnLabelEvent: TypeAlias = Callable[[int, int, int], None]
"""(calls answered, calls in all) of the chunk in work, and items finished before it."""

Heard: TypeAlias = list[list[ComparisonRecord]] | RequestFailure
"""What the labellers say of one item: for each of its pairs, every comparison."""

SMALL_MARGIN = "the judge does not know"
OTHER_WORDS = "the judge answers with other words"
CONTRADICTION = "the two orders contradict each other"


@dataclass(frozen=True, slots=True)
class ItemLabels:
    """What became of one (item, replica): its line in the ledger, its pairs, what was compared and stayed undecided."""

    entry: LedgerEntry
    pairs: tuple[PreferenceRecord, ...] = ()
    undecided: tuple[UndecidedRecord, ...] = ()
    failure: FailureRecord | None = None


def run_labels(
    records: Iterable[RevisionRecord],
    constitution: Constitution,
    labellers: Sequence[Engine],
    settings: LabelSettings,
    *,
    seed: int,
    scales: Mapping[Voice, float] | None = None,
    on_event: OnLabelEvent | None = None,
) -> Iterator[ItemLabels]:
    """Label every record; one result for each, in their order.

    Args:
        records: Finished items; replicas of an item follow each other.
        constitution: Its principles judge.
        labellers: The models that label.
        settings: How.
        seed: Of the run.
        scales: For `ensemble: normalised`, from `MarginScales` over all records.
        on_event: Told of progress.

    Raises:
        EngineError: If a model cannot label by this method at all.
    """
    proposals = propose(records, constitution, settings)
    finished = 0
    while chunk := list(islice(proposals, settings.chunk_items)):
        groups = [each for each in chunk if isinstance(each, Candidates)]
        report = _counting_from(finished, on_event) if on_event else None
        labelled = iter(label_candidates(groups, labellers, settings, seed=seed, scales=scales, on_done=report))
        for each in chunk:
            yield next(labelled) if isinstance(each, Candidates) else ItemLabels(each)
        finished += len(groups)


def check_labeller(engine: Engine, method: Method) -> None:
    """See that a model can label by a method; weights are not needed.

    Raises:
        EngineError: If the words that it is to answer with have no probability of their own: they are several tokens.
    """
    if method == "letters":
        letter_spellings(engine.count_tokens)
    elif method == "yes_no":
        yes_no_spellings(engine.count_tokens)


def margin_scales(
    records: Iterable[RevisionRecord],
    constitution: Constitution,
    labellers: Sequence[Engine],
    settings: LabelSettings,
    *,
    seed: int,
    on_event: OnLabelEvent | None = None,
) -> dict[Voice, float]:
    """How large each voice's margins are over all records: what `ensemble: normalised` divides by. Decides nothing."""
    scales = MarginScales()
    groups = (each for each in propose(records, constitution, settings) if isinstance(each, Candidates))
    finished = 0
    while chunk := list(islice(groups, settings.chunk_items)):
        report = _counting_from(finished, on_event) if on_event else None
        for heard in hear(chunk, labellers, settings, seed=seed, on_done=report):
            for comparisons in [] if isinstance(heard, RequestFailure) else heard:
                scales.add(comparisons)
        finished += len(chunk)
    return scales.result()


def label_candidates(
    groups: Sequence[Candidates],
    labellers: Sequence[Engine],
    settings: LabelSettings,
    *,
    seed: int,
    scales: Mapping[Voice, float] | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> list[ItemLabels]:
    """Judge the answers of several items; results in the order given. Arguments as for `run_labels`."""
    heard = hear(groups, labellers, settings, seed=seed, on_done=on_done)
    return [_labels(group, each, settings, scales) for group, each in zip(groups, heard, strict=True)]


def hear(
    groups: Sequence[Candidates],
    labellers: Sequence[Engine],
    settings: LabelSettings,
    *,
    seed: int,
    on_done: Callable[[int, int], None] | None = None,
) -> list[Heard]:
    """Ask every labelling model about every pair; nothing is decided yet."""
    all_of_them: list[Heard] = [[[] for _ in group.pairs] for group in groups]
    for number, engine in enumerate(labellers):
        report = _share_of(number, len(labellers), on_done) if on_done else None
        if settings.method == "letters":
            heard = _by_letters(groups, engine, number, settings, report)
        else:
            heard = _by_answers(groups, engine, number, settings, seed, report)
        for place, found in enumerate(heard):
            before = all_of_them[place]
            if isinstance(before, RequestFailure):
                continue
            if isinstance(found, RequestFailure):
                all_of_them[place] = found
            else:
                for comparisons, more in zip(before, found, strict=True):
                    comparisons.extend(more)
    return all_of_them


def _counting_from(finished: int, on_event: OnLabelEvent) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        on_event(done, total, finished)

    return tell


def _share_of(number: int, labellers: int, on_done: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        on_done(number * total + done, labellers * total)

    return tell


def _by_answers(
    groups: Sequence[Candidates],
    engine: Engine,
    labeller: int,
    settings: LabelSettings,
    seed: int,
    on_done: Callable[[int, int], None] | None,
) -> Iterator[Heard]:
    asked: list[Judged] = []
    for group in groups:
        for answer in group.answers:
            known = dict(answer.grounds) if labeller == 0 and not settings.models else {}
            for principle in group.principles:
                key = f"{seed}/{group.uid}/{group.replica}/verdict/0"
                asked.append(Judged(group.conversation, answer.text, principle, key, known.get(principle.id)))
    scores = iter(score_answers(engine, asked, settings, on_done=on_done))
    for group in groups:
        rows = [[next(scores) for _ in group.principles] for _ in group.answers]
        failed = [each for row in rows for each in row if isinstance(each, RequestFailure)]
        yield (
            failed[0]
            if failed
            else [
                [
                    _comparison(group, number, labeller, principle.id, settings, one, other)
                    for principle, one, other in zip(group.principles, rows[first], rows[second], strict=True)
                    if isinstance(one, AnswerScore) and isinstance(other, AnswerScore)
                ]
                for number, (first, second) in enumerate(group.pairs)
            ]
        )


def _comparison(
    group: Candidates,
    number: int,
    labeller: int,
    principle_id: str,
    settings: LabelSettings,
    one: AnswerScore,
    other: AnswerScore,
) -> ComparisonRecord:
    return ComparisonRecord(
        uid=group.uid,
        replica=group.replica,
        number=number,
        labeller=labeller,
        principle_id=principle_id,
        method=settings.method,
        order="none",
        margin_nats=one.nats - other.nats,
        mass_outside=max(one.mass_outside, other.mass_outside),
    )


def _by_letters(
    groups: Sequence[Candidates],
    engine: Engine,
    labeller: int,
    settings: LabelSettings,
    on_done: Callable[[int, int], None] | None,
) -> Iterator[Heard]:
    asked = [
        Compared(group.conversation, group.answers[first].text, group.answers[second].text, principle)
        for group in groups
        for first, second in group.pairs
        for principle in group.principles
    ]
    reasoning = Reasoning(settings.reasoning_tokens, settings.max_p_reasoned) if settings.reasoning_tokens else None
    margins = iter(compare(engine, asked, reasoning=reasoning, debated=settings.debate, on_done=on_done))
    for group in groups:
        pairs: list[list[ComparisonRecord]] = []
        failure: RequestFailure | None = None
        for number in range(len(group.pairs)):
            comparisons: list[ComparisonRecord] = []
            for principle in group.principles:
                found = next(margins)
                if isinstance(found, RequestFailure):
                    failure = failure or found
                    continue
                comparisons += [
                    ComparisonRecord(
                        uid=group.uid,
                        replica=group.replica,
                        number=number,
                        labeller=labeller,
                        principle_id=principle.id,
                        method="letters",
                        order=order,
                        margin_nats=margin,
                        mass_outside=outside,
                        arguments=found.arguments,
                    )
                    for order, margin, outside in zip(ORDERS, found.margins_nats, found.masses_outside, strict=True)
                ]
            pairs.append(comparisons)
        yield failure or pairs


def _labels(group: Candidates, heard: Heard, settings: LabelSettings, scales: Mapping[Voice, float] | None) -> ItemLabels:
    if isinstance(heard, RequestFailure):
        failure = FailureRecord(uid=group.uid, replica=group.replica, stage="label", cause=heard.cause, detail=heard.detail)
        reason = f"{failure.stage}: {failure.cause}"
        entry = LedgerEntry(uid=group.uid, replica=group.replica, outcome=Outcome.FAILED, reason=reason)
        return ItemLabels(entry, failure=failure)
    made = [_decided(group, number, comparisons, settings, scales) for number, comparisons in enumerate(heard)]
    pairs = tuple(each for each in made if isinstance(each, PreferenceRecord))
    undecided = tuple(each for each in made if isinstance(each, UndecidedRecord))
    outcome = Outcome.PAIR if pairs else Outcome.KEPT
    reason = "" if pairs else f"undecided: {undecided[0].reason}"
    return ItemLabels(LedgerEntry(uid=group.uid, replica=group.replica, outcome=outcome, reason=reason), pairs, undecided)


def _decided(
    group: Candidates,
    number: int,
    comparisons: Sequence[ComparisonRecord],
    settings: LabelSettings,
    scales: Mapping[Voice, float] | None,
) -> PreferenceRecord | UndecidedRecord:
    weights = {principle.id: principle.weight for principle in group.principles}
    together = partial(pair_margin, ensemble=settings.ensemble, weights=weights, scales=scales)
    margin = together(comparisons)
    first, second = (group.answers[place] for place in group.pairs[number])
    of_the_pair = {
        "uid": group.uid,
        "replica": group.replica,
        "number": number,
        "prompt": group.conversation,
        "method": settings.method,
        "principle_ids": tuple(principle.id for principle in group.principles),
        "comparisons": tuple(comparisons),
        "tags": group.tags,
    }
    if reason := _why_undecided(comparisons, margin, together, settings):
        return UndecidedRecord.model_validate(
            {
                **of_the_pair,
                "margin_nats": margin,
                "first": first.text,
                "second": second.text,
                "first_source": first.source,
                "second_source": second.source,
                "first_index": first.index,
                "second_index": second.index,
                "reason": reason,
            }
        )
    chosen, rejected = (first, second) if margin > 0 else (second, first)
    return PreferenceRecord.model_validate(
        {
            **of_the_pair,
            "margin_nats": abs(margin),
            "chosen": chosen.text,
            "rejected": rejected.text,
            "chosen_source": chosen.source,
            "rejected_source": rejected.source,
            "chosen_index": chosen.index,
            "rejected_index": rejected.index,
            "chosen_is_first": margin > 0,
            "p_chosen": p_chosen(abs(margin), settings),
        }
    )


def p_chosen(margin_nats: float, settings: LabelSettings) -> float:
    """The label of a margin ≥ 0: its probability at the temperature, in [0.5, `max_p_chosen`]."""
    return min(settings.max_p_chosen, 1.0 / (1.0 + math.exp(-min(margin_nats / settings.temperature, 700.0))))


def _why_undecided(
    comparisons: Sequence[ComparisonRecord],
    margin: float,
    together: Callable[[Sequence[ComparisonRecord]], float],
    settings: LabelSettings,
) -> str:
    """Why there is no pair, or ""; `together` makes one margin of some comparisons, as `margin` was made of all."""
    outside = sum(each.mass_outside for each in comparisons) / len(comparisons)
    if outside > settings.max_mass_outside:
        return OTHER_WORDS
    if settings.method == "letters" and settings.require_agreement:
        of_orders = [together([each for each in comparisons if each.order == order]) for order in ORDERS]
        if min(of_orders) < 0.0 < max(of_orders):
            return CONTRADICTION
    return SMALL_MARGIN if abs(margin) < settings.min_margin_nats or margin == 0.0 else ""
