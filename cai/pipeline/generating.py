"""The loop and the labels as stages of a run: records and outcomes into the run folder, page by page.

A stage begins anew with its first page, and is noted as finished after its last: one that was interrupted is never taken for
a finished one. Begun again, it asks for the same calls, which are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from cai.config.settings import RunConfig
from cai.data.filters import filtered
from cai.engines.base import Engine
from cai.labels import Label, LabelTally, run_labels
from cai.labels.labelling import OnLabelEvent
from cai.loop import LoopEvent, gate_tally, run_loop
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session, stage_key
from cai.pipeline.sharding import Shard
from cai.records import FailureRecord, LedgerEntry, Outcome, PreferenceRecord, RecordKind, RevisionRecord, Stage

HELD_OUT = "held out for the evaluation"
ROWS_PER_COMMIT = 250
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


def label_key(config: RunConfig, feedback: str, generated: str) -> str:
    """Fingerprint of all that the labels depend on.

    Args:
        config: Of the run.
        feedback: Fingerprint of the model that labels.
        generated: That of the records they are made of.
    """
    return stage_key(
        generated,
        config.filters.model_dump(mode="json"),
        config.labels.model_dump(mode="json", exclude={"chunk_items"}),
        feedback,
    )


def labels(
    records: Iterable[RevisionRecord], inputs: Inputs, feedback: Engine, on_event: OnLabelEvent | None = None
) -> Iterator[Label]:
    """Filter what is spoilt, and label the rest: exactly one outcome for every record, near enough in their order."""
    spoilt: list[LedgerEntry] = []

    def sound() -> Iterator[RevisionRecord]:
        for record in records:
            entry = filtered(inputs.config.filters, record, cut=record.final_cut)
            if entry is None:
                yield record
            else:
                spoilt.append(entry)

    config = inputs.config
    for made in run_labels(sound(), inputs.constitution, feedback, config.labels, seed=config.seed, on_event=on_event):
        yield from spoilt
        spoilt.clear()
        yield made
    yield from spoilt


def outcome_of(label: Label) -> LedgerEntry:
    """The ledger's line for what the labels made of a record."""
    match label:
        case PreferenceRecord():
            return LedgerEntry(uid=label.uid, replica=label.replica, outcome=Outcome.PAIR)
        case FailureRecord():
            return _failed(label)
        case LedgerEntry():
            return label


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
            folder.settle(_failed(each) for each in failures)
    session.tell("rows", threads, threads)
    summary: dict[str, Any] = dict(counts)
    if config.loop.gate is not None:
        summary["gate"] = gate_tally(folder.records(RecordKind.REVISION, RevisionRecord)).model_dump(mode="json")
    folder.put_stage(Stage.GENERATE, key, summary)


def label(session: Session) -> None:
    """Filter what is spoilt, and label the rest by AI feedback; afterwards no item is without an outcome."""
    inputs, folder = session.inputs, session.folder
    generated = folder.stage(Stage.GENERATE)
    assert generated is not None, "the loop runs before the labels"
    key = label_key(inputs.config, session.feedback.fingerprint, generated.fingerprint)
    if session.is_current(Stage.LABEL, key):
        return
    several = folder.count_records(RecordKind.REVISION) > inputs.config.labels.chunk_items
    made = labels(
        folder.records(RecordKind.REVISION, RevisionRecord),
        inputs,
        session.feedback,
        lambda done, total, _: session.tell("label", done, total, growing=several),
    )
    tally = LabelTally()
    for number, page in enumerate(_pages(made)):
        with folder.transaction():
            if number == 0:
                session.begin(Stage.LABEL)
                folder.reopen(RecordKind.REVISION, dropping=(RecordKind.PREFERENCE, RecordKind.FAILURE))
            folder.add_records(RecordKind.PREFERENCE, (each for each in page if isinstance(each, PreferenceRecord)))
            folder.add_records(RecordKind.FAILURE, (each for each in page if isinstance(each, FailureRecord)))
            folder.settle(outcome_of(each) for each in page)
        for each in page:
            tally.add(each)
    with folder.transaction():
        folder.assert_balanced(finished=True)
        folder.put_stage(Stage.LABEL, key, tally.quality().model_dump(mode="json"))


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
