"""The loop and the labels as stages of a run: records and outcomes into the run folder, page by page.

A stage begins anew with its first page, and is noted as finished after its last: one that was interrupted is never taken for
a finished one. Begun again, it asks for the same calls, which are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from cai.config.settings import RunConfig
from cai.engines.base import Engine
from cai.labels import ItemLabels, LabelQuality, LabelTally, OnLabelEvent, check_labeller, margin_scales, run_labels
from cai.labels.stop_bar import WeakLabellerError
from cai.loop import LoopEvent, gate_tally, run_loop
from cai.pipeline.examining import Examination, examination, first_pairs, refuse_weak
from cai.pipeline.filtering import FilteredLabels, Records, RunFilters, filters_key, rules_in_force
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session, stage_key
from cai.pipeline.sharding import Shard
from cai.records import BAD_CALLS_KEY, FailureRecord, LedgerEntry, Outcome, RecordKind, RevisionRecord, Stage

LABEL_KINDS = (RecordKind.PREFERENCE, RecordKind.UNDECIDED, RecordKind.FAILURE, RecordKind.FINDING)
"""What filters and labels make: records of these kinds go when labels are made anew."""

HELD_OUT = "held out for the evaluation"
ROWS_PER_COMMIT = 250
TRIAL_ITEMS = 64
"""Chunk of the labels that are tried before the first is written."""
Made = TypeVar("Made")


def generation_key(inputs: Inputs, policy: Engine, feedback: Engine) -> str:
    """Fingerprint of all that the loop's records depend on."""
    whole = whole_generation_key(
        inputs.config, inputs.fingerprint, inputs.constitution.fingerprint, policy.fingerprint, feedback.fingerprint
    )
    return shard_key(whole, inputs.shard)


def whole_generation_key(config: RunConfig, prompts: str, constitution: str, policy: str, feedback: str) -> str:
    """The same for a run of all rows, from the fingerprints of what it depends on."""
    loop = config.loop.model_dump(mode="json", exclude={"chunk_items"})
    return stage_key(prompts, constitution, policy, feedback, loop, config.seed)


def shard_key(whole: str, shard: Shard | None) -> str:
    """Fingerprint of a shard's records, from that of the whole run's."""
    return whole if shard is None else stage_key(whole, str(shard))


def label_key(config: RunConfig, labellers: Sequence[str], generated: str, human: str, *, of_shard: bool = False) -> str:
    """Fingerprint of all that the labels depend on.

    Args:
        config: Of the run.
        labellers: Fingerprints of the models that label.
        generated: That of the records they are made of.
        human: That of the pairs labelled by people, or "".
        of_shard: They are those of a shard, which cannot ask every filter.
    """
    unasked = {"chunk_items", "models", "allow_weak_labels"}
    if config.labels.debate is None:
        unasked.add("debate")
    return stage_key(
        generated,
        filters_key(rules_in_force(config, of_shard=of_shard)),
        config.labels.model_dump(mode="json", exclude=unasked),
        list(labellers),
        human,
    )


def labels(
    records: Records,
    inputs: Inputs,
    labellers: Sequence[Engine],
    on_event: OnLabelEvent | None = None,
) -> Iterator[FilteredLabels]:
    """Filter what is spoilt, and label the rest: exactly one outcome for every record, near enough in their order.

    Args:
        records: Begins to read them; called again where a filter or the ensemble has to see all of them first.
        inputs: Of the run.
        labellers: The models that label.
        on_event: Told of progress.
    """
    config, constitution = inputs.config, inputs.constitution
    filters = RunFilters(inputs, records)
    scales = None
    if config.labels.ensemble == "normalised":
        scales = margin_scales(filters.sound(), constitution, labellers, config.labels, seed=config.seed, on_event=on_event)
    sound = filters.judging()
    labelled = run_labels(sound, constitution, labellers, config.labels, seed=config.seed, scales=scales, on_event=on_event)
    for made in labelled:
        yield from filters.dropped()
        yield filters.judged(made)
    yield from filters.dropped()


def check_labellers(session: Session) -> None:
    """See, before anything is generated, that the models can label: by the run's method, and better than by chance.

    Labels that are finished are not looked at again.

    Raises:
        EngineError: If one cannot.
        WeakLabellerError: If they are not better than chance, and that is not allowed.
    """
    inputs = session.inputs
    for engine in session.labellers:
        check_labeller(engine, inputs.config.labels.method)
    generated = generation_key(inputs, session.policy, session.feedback)
    if session.is_current(Stage.GENERATE, generated) and session.is_current(Stage.LABEL, _label_key(session, generated)):
        return
    refuse_weak(_examination(session).added_to(LabelTally().quality()), inputs)


def generate(session: Session) -> None:
    """Draft, critique and revise every item that is not held out. Done already on the same inputs: nothing happens."""
    inputs, folder = session.inputs, session.folder
    config, items = inputs.config, inputs.training_items
    key = generation_key(inputs, session.policy, session.feedback)
    if session.is_current(Stage.GENERATE, key):
        return
    threads = len(items) * config.loop.replicas

    def tell(event: LoopEvent) -> None:
        session.tell("rows", event.items_done, threads)
        if event.stage == "draft":  # each row has one; how many of the others there are hangs on answers
            session.tell("draft", event.done, threads)
        else:
            round_name = f" {event.round + 1}" if config.loop.rounds > 1 else ""
            session.tell(f"{event.stage}{round_name}", event.done, event.total, growing=True)

    made = run_loop(items, inputs.constitution, session.policy, session.feedback, config.loop, seed=config.seed, on_event=tell)
    counts = {"records": 0, "failures": 0}
    for number, page in enumerate(_pages(made)):
        records = [each for each in page if isinstance(each, RevisionRecord)]
        failures = [each for each in page if isinstance(each, FailureRecord)]
        with folder.transaction():
            if number == 0:
                _begin_generation(session)
            counts["records"] += folder.add_records(RecordKind.REVISION, records)
            counts["failures"] += folder.add_records(RecordKind.FAILURE, failures)
            if bad := sum(each.bad_calls for each in records):
                counts[BAD_CALLS_KEY] = counts.get(BAD_CALLS_KEY, 0) + bad
            folder.settle(_failed(each) for each in failures)
    session.tell("rows", threads, threads)
    summary: dict[str, Any] = dict(counts)
    if config.loop.gate is not None:
        summary["gate"] = gate_tally(folder.records(RecordKind.REVISION, RevisionRecord)).model_dump(mode="json")
    folder.put_stage(Stage.GENERATE, key, summary)


def label(session: Session) -> None:
    """Filter what is spoilt, and label the rest by AI feedback; afterwards no item is without an outcome.

    Raises:
        WeakLabellerError: If the labeller is no better than chance or mostly names a place, and that is not allowed. No pair is
            left then, of older labels neither: the manifest tells of this labeller.
    """
    inputs, folder = session.inputs, session.folder
    generated = folder.stage(Stage.GENERATE)
    assert generated is not None, "the loop runs before the labels"
    key = _label_key(session, generated.fingerprint)
    if session.is_current(Stage.LABEL, key):
        return
    examined = _examination(session)
    try:
        if inputs.config.labels.method == "letters":
            refuse_weak(examined.added_to(first_pairs(_trial(session))), inputs)
        quality = refuse_weak(examined.added_to(_write_labels(session)), inputs)
    except WeakLabellerError:
        with folder.transaction():
            session.begin(Stage.LABEL)
            folder.reopen(RecordKind.REVISION, dropping=LABEL_KINDS)
        raise
    with folder.transaction():
        folder.assert_balanced(finished=True)
        folder.put_stage(Stage.LABEL, key, quality.model_dump(mode="json"))


def _write_labels(session: Session) -> LabelQuality:
    """Label every record, and say of all compared pairs how good the labels are."""
    inputs, folder = session.inputs, session.folder
    several = folder.count_records(RecordKind.REVISION) > inputs.config.labels.chunk_items
    made = labels(
        lambda: folder.records(RecordKind.REVISION, RevisionRecord),
        inputs,
        session.labellers,
        lambda done, total, _: session.tell("label", done, total, growing=several),
    )
    tally = LabelTally()
    for number, page in enumerate(_pages(made)):
        outcomes = [each.labels for each in page]
        with folder.transaction():
            if number == 0:
                session.begin(Stage.LABEL)
                folder.reopen(RecordKind.REVISION, dropping=LABEL_KINDS)
            folder.add_records(RecordKind.FINDING, (found for each in page for found in each.findings))
            folder.add_records(RecordKind.PREFERENCE, (pair for each in outcomes for pair in each.pairs))
            folder.add_records(RecordKind.UNDECIDED, (pair for each in outcomes for pair in each.undecided))
            folder.add_records(RecordKind.FAILURE, (each.failure for each in outcomes if each.failure))
            folder.settle(each.entry for each in outcomes)
        for each in outcomes:
            for pair in (*each.pairs, *each.undecided):
                tally.add(pair)
    return tally.quality()


def _label_key(session: Session, generated: str) -> str:
    inputs = session.inputs
    human = inputs.human.fingerprint if inputs.human else ""
    fingerprints = [each.fingerprint for each in session.labellers]
    return label_key(inputs.config, fingerprints, generated, human, of_shard=inputs.shard is not None)


def _examination(session: Session) -> Examination:
    if session.examination is None:
        session.examination = examination(session.inputs, session.labellers, session.tell)
    return session.examination


def _trial(session: Session) -> Iterator[ItemLabels]:
    """The labels of the run from its beginning, in small chunks; calls are remembered, and not made again for the labels."""
    config = session.inputs.config
    small = config.labels.model_copy(update={"ensemble": "mean", "chunk_items": TRIAL_ITEMS})
    inputs = replace(session.inputs, config=config.model_copy(update={"labels": small}))
    made = labels(
        lambda: session.folder.records(RecordKind.REVISION, RevisionRecord),
        inputs,
        session.labellers,
        lambda done, total, _: session.tell("trial", done, total, growing=True),
    )
    return (each.labels for each in made)


def _begin_generation(session: Session) -> None:
    folder = session.folder
    session.begin(Stage.GENERATE)
    folder.reset_ledger()
    for kind in RecordKind:
        folder.drop_records(kind)
    replicas = range(session.inputs.config.loop.replicas)
    folder.settle(
        LedgerEntry(uid=item.uid, replica=replica, outcome=Outcome.FILTERED, reason=HELD_OUT)
        for item in session.inputs.held_out_items
        for replica in replicas
    )


def _failed(failure: FailureRecord) -> LedgerEntry:
    reason = f"{failure.stage}: {failure.cause}"
    return LedgerEntry(uid=failure.uid, replica=failure.replica, outcome=Outcome.FAILED, reason=reason)


def _pages(rows: Iterable[Made]) -> Iterator[list[Made]]:
    """Rows in pages, at least one, which may be empty."""
    source = iter(rows)
    page = list(islice(source, ROWS_PER_COMMIT))
    yield page
    while page := list(islice(source, ROWS_PER_COMMIT)):
        yield page
