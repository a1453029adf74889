"""The data sets of a run as files: supervised rows, preference rows, and the card that says what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cai.config.settings import RunConfig
from cai.data.cards import DatasetFacts, dataset_card, kept_share, length_gap
from cai.data.rows import RowKind, preference_rows, sft_rows, write_rows
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session, stage_key
from cai.records import Outcome, PreferenceRecord, RecordKind, RevisionRecord, Stage
from cai.store import write_bytes_atomically

DATASETS = "datasets"
_SUFFIXES = {"jsonl": ("jsonl",), "parquet": ("parquet",), "both": ("jsonl", "parquet")}


def finished_records(session: Session) -> Iterator[RevisionRecord]:
    """The records that are part of the data sets: neither filtered nor failed."""
    folder = session.folder
    good = {(e.uid, e.replica) for e in folder.ledger() if e.outcome in {Outcome.PAIR, Outcome.KEPT}}
    return (r for r in folder.records(RecordKind.REVISION, RevisionRecord) if (r.uid, r.replica) in good)


def pairs(session: Session) -> Iterator[PreferenceRecord]:
    return session.folder.records(RecordKind.PREFERENCE, PreferenceRecord)


def export(session: Session) -> None:
    """Write `datasets/`: equal records, equal bytes. The files are written again whenever they are missing or outdated."""
    folder, config = session.folder, session.inputs.config
    labelled = folder.stage(Stage.LABEL)
    assert labelled is not None, "the labels come before the export"
    constitution, key = session.inputs.constitution, export_key(session.inputs, labelled.fingerprint)
    wanted = exported_paths(config)
    if session.is_current(Stage.EXPORT, key) and all(path.is_file() for path in wanted):
        return
    folder.forget_stage(Stage.EXPORT)  # a kill in between must not leave the note of other files
    target = folder.path / DATASETS
    names = _names(config)
    unmended = sum(record.unmended for record in finished_records(session))
    rows = {kind: max(_write(session, kind, target / name) for name in each) for kind, each in names.items()}
    facts = DatasetFacts(
        name=f"Revisions and preferences under “{constitution.name}”",
        files={kind: each[0] for kind, each in names.items() if rows[kind]},
        rows=rows,
        ledger={f"{o.value}: {reason}" if reason else o.value: n for (o, reason), n in folder.ledger_reasons().items()},
        models=_models(config),
        constitution=constitution.name,
        constitution_fingerprint=constitution.fingerprint,
        seed=config.seed,
        kept_share=kept_share(finished_records(session)),
        length_gap=length_gap(pairs(session)),
        settings={"drafts with a fault that stayed, in no supervised row": str(unmended)} if unmended else {},
    )
    write_bytes_atomically(target / "README.md", dataset_card(facts).encode())
    files = {kind: [f"{DATASETS}/{name}" for name in each] for kind, each in names.items()}
    folder.put_stage(Stage.EXPORT, key, {"files": files, "rows": rows}, files=wanted)


def export_key(inputs: Inputs, labelled: str) -> str:
    """Fingerprint of the records (by that of their labels) and of all else that the card tells."""
    constitution = inputs.constitution
    return stage_key(labelled, inputs.config.export_format, constitution.fingerprint, constitution.name, _models(inputs.config))


def exported_paths(config: RunConfig) -> list[Path]:
    """The files that `export` writes."""
    target = config.run / DATASETS
    return [target / name for each in _names(config).values() for name in each] + [target / "README.md"]


def _names(config: RunConfig) -> dict[str, list[str]]:
    suffixes = _SUFFIXES[config.export_format]
    return {kind: [f"{kind}.{suffix}" for suffix in suffixes] for kind in ("sft", "preferences")}


def _models(config: RunConfig) -> dict[str, str]:
    return {"policy": str(config.policy), "feedback": str(config.feedback_or_policy)}


def _write(session: Session, kind: str, path: Path) -> int:
    row_kind: RowKind = "sft" if kind == "sft" else "preferences"
    rows = sft_rows(finished_records(session)) if row_kind == "sft" else preference_rows(pairs(session))
    return write_rows(path, rows, row_kind)
