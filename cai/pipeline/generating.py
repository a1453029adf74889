"""The loop and the labels as stages of a run: records and outcomes into the run folder."""

from __future__ import annotations

from collections.abc import Iterator

from cai.data.filters import filtered
from cai.labels import label_quality, run_labels
from cai.loop import LoopEvent, run_loop
from cai.pipeline.session import Session
from cai.records import FailureRecord, LedgerEntry, Outcome, PreferenceRecord, RecordKind, RevisionRecord, Stage

HELD_OUT = "held out for the evaluation"


def generate(session: Session) -> None:
    """Draft, critique and revise every item that is not held out. Done already on the same inputs: nothing happens."""
    inputs, folder = session.inputs, session.folder
    config, items = inputs.config, inputs.training_items
    key = session.key(
        inputs.fingerprint(),
        inputs.constitution.fingerprint,
        session.policy.fingerprint,
        session.feedback.fingerprint,
        config.loop.model_dump(mode="json", exclude={"chunk_items"}),
        config.seed,
    )
    if session.is_current(Stage.GENERATE, key):
        return
    threads = len(items) * config.loop.replicas

    def tell(event: LoopEvent) -> None:
        round_name = f" {event.round + 1}" if config.loop.rounds > 1 and event.stage != "draft" else ""
        note = f"prompts {event.items_done} of {threads} finished" if threads > config.loop.chunk_items else ""
        session.tell(f"{event.stage}{round_name}", event.done, event.total, note)

    records: list[RevisionRecord] = []
    failures: list[FailureRecord] = []
    made = run_loop(items, inputs.constitution, session.policy, session.feedback, config.loop, seed=config.seed, on_event=tell)
    for record in made:
        if isinstance(record, RevisionRecord):
            records.append(record)
        else:
            failures.append(record)
    with folder.transaction():
        folder.reset_ledger()
        session.forget_after(Stage.GENERATE)
        folder.put_records(RecordKind.REVISION, records)
        folder.put_records(RecordKind.PREFERENCE, [])
        folder.put_records(RecordKind.FAILURE, failures)
        folder.settle(_held_out(session))
        folder.settle(_failed(failures))
        folder.put_stage(Stage.GENERATE, key, {"records": len(records), "failures": len(failures)})


def label(session: Session) -> None:
    """Filter what is spoilt, and label the rest by AI feedback; afterwards no item is without an outcome."""
    inputs, folder = session.inputs, session.folder
    config = inputs.config
    generated = folder.stage(Stage.GENERATE)
    assert generated is not None, "the loop runs before the labels"
    key = session.key(
        generated.fingerprint,
        config.filters.model_dump(mode="json"),
        config.labels.model_dump(mode="json", exclude={"chunk_items"}),
        session.feedback.fingerprint,
    )
    if session.is_current(Stage.LABEL, key):
        return
    entries: list[LedgerEntry] = []

    def sound() -> Iterator[RevisionRecord]:
        for record in folder.records(RecordKind.REVISION, RevisionRecord):
            entry = filtered(config.filters, record, cut=record.final_cut)
            if entry is None:
                yield record
            else:
                entries.append(entry)

    pairs: list[PreferenceRecord] = []
    failures: list[FailureRecord] = []
    made = run_labels(
        sound(),
        inputs.constitution,
        session.feedback,
        config.labels,
        seed=config.seed,
        on_event=lambda done, total, finished: session.tell(
            "label", done, total, f"{finished} pairs finished" if finished else ""
        ),
    )
    for each in made:
        match each:
            case PreferenceRecord():
                pairs.append(each)
                entries.append(LedgerEntry(uid=each.uid, replica=each.replica, outcome=Outcome.PAIR))
            case FailureRecord():
                failures.append(each)
            case LedgerEntry():
                entries.append(each)
    earlier = [f for f in folder.records(RecordKind.FAILURE, FailureRecord) if f.stage != Stage.LABEL]
    quality = label_quality(pairs, entries)
    with folder.transaction():
        session.forget_after(Stage.LABEL)
        folder.put_records(RecordKind.PREFERENCE, pairs)
        folder.put_records(RecordKind.FAILURE, [*earlier, *failures])
        folder.settle([*entries, *_failed(failures)])
        folder.assert_balanced(finished=True)
        folder.put_stage(Stage.LABEL, key, quality.model_dump(mode="json"))


def _held_out(session: Session) -> list[LedgerEntry]:
    replicas = range(session.inputs.config.loop.replicas)
    return [
        LedgerEntry(uid=item.uid, replica=replica, outcome=Outcome.FILTERED, reason=HELD_OUT)
        for item in session.inputs.held_out_items
        for replica in replicas
    ]


def _failed(failures: list[FailureRecord]) -> list[LedgerEntry]:
    return [
        LedgerEntry(uid=each.uid, replica=each.replica, outcome=Outcome.FAILED, reason=f"{each.stage}: {each.cause}")
        for each in failures
    ]
