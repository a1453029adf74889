"""The loop and the labels as stages of a run: records and outcomes into the run folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cai.data.filters import filtered
from cai.engines.base import Engine
from cai.labels import label_quality, run_labels
from cai.labels.labelling import OnLabelEvent
from cai.loop import LoopEvent, gate_tally, run_loop
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session, stage_key
from cai.records import FailureRecord, LedgerEntry, Outcome, PreferenceRecord, RecordKind, RevisionRecord, Stage

HELD_OUT = "held out for the evaluation"


@dataclass
class Labelled:
    """What the labels came to: together, every record's outcome."""

    pairs: list[PreferenceRecord] = field(default_factory=list[PreferenceRecord])
    entries: list[LedgerEntry] = field(default_factory=list[LedgerEntry])
    failures: list[FailureRecord] = field(default_factory=list[FailureRecord])


def generation_key(inputs: Inputs, policy: Engine, feedback: Engine) -> str:
    """Fingerprint of all that the loop's records depend on."""
    config = inputs.config
    return stage_key(
        inputs.fingerprint(),
        inputs.constitution.fingerprint,
        policy.fingerprint,
        feedback.fingerprint,
        config.loop.model_dump(mode="json", exclude={"chunk_items"}),
        config.seed,
    )


def label_key(inputs: Inputs, feedback: Engine, generated: str) -> str:
    """Fingerprint of all that the labels depend on; `generated` is that of the records they are made of."""
    config = inputs.config
    return stage_key(
        generated,
        config.filters.model_dump(mode="json"),
        config.labels.model_dump(mode="json", exclude={"chunk_items"}),
        feedback.fingerprint,
    )


def labelled(
    records: Iterable[RevisionRecord], inputs: Inputs, feedback: Engine, on_event: OnLabelEvent | None = None
) -> Labelled:
    """Filter what is spoilt, and label the rest."""
    found = Labelled()

    def sound() -> Iterable[RevisionRecord]:
        for record in records:
            entry = filtered(inputs.config.filters, record, cut=record.final_cut)
            if entry is None:
                yield record
            else:
                found.entries.append(entry)

    made = run_labels(sound(), inputs.constitution, feedback, inputs.config.labels, seed=inputs.config.seed, on_event=on_event)
    for each in made:
        match each:
            case PreferenceRecord():
                found.pairs.append(each)
                found.entries.append(LedgerEntry(uid=each.uid, replica=each.replica, outcome=Outcome.PAIR))
            case FailureRecord():
                found.failures.append(each)
            case LedgerEntry():
                found.entries.append(each)
    return found


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

    records: list[RevisionRecord] = []
    failures: list[FailureRecord] = []
    made = run_loop(items, inputs.constitution, session.policy, session.feedback, config.loop, seed=config.seed, on_event=tell)
    for record in made:
        if isinstance(record, RevisionRecord):
            records.append(record)
        else:
            failures.append(record)
    session.tell("rows", threads, threads)
    with folder.transaction():
        folder.reset_ledger()
        session.forget_after(Stage.GENERATE)
        folder.put_records(RecordKind.REVISION, records)
        folder.put_records(RecordKind.PREFERENCE, [])
        folder.put_records(RecordKind.FAILURE, failures)
        folder.settle(_held_out(session))
        folder.settle(_failed(failures))
        summary: dict[str, Any] = {"records": len(records), "failures": len(failures)}
        if config.loop.gate is not None:
            summary["gate"] = gate_tally(records).model_dump(mode="json")
        folder.put_stage(Stage.GENERATE, key, summary)


def label(session: Session) -> None:
    """Filter what is spoilt, and label the rest by AI feedback; afterwards no item is without an outcome."""
    inputs, folder = session.inputs, session.folder
    generated = folder.stage(Stage.GENERATE)
    assert generated is not None, "the loop runs before the labels"
    key = label_key(inputs, session.feedback, generated.fingerprint)
    if session.is_current(Stage.LABEL, key):
        return
    several = folder.count_records(RecordKind.REVISION) > inputs.config.labels.chunk_items
    found = labelled(
        folder.records(RecordKind.REVISION, RevisionRecord),
        inputs,
        session.feedback,
        lambda done, total, _: session.tell("label", done, total, growing=several),
    )
    earlier = [f for f in folder.records(RecordKind.FAILURE, FailureRecord) if f.stage != Stage.LABEL]
    quality = label_quality(found.pairs, found.entries)
    with folder.transaction():
        session.forget_after(Stage.LABEL)
        folder.put_records(RecordKind.PREFERENCE, found.pairs)
        folder.put_records(RecordKind.FAILURE, [*earlier, *found.failures])
        folder.settle([*found.entries, *_failed(found.failures)])
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
