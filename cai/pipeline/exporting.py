"""The data sets of a run as files: supervised rows, preference rows, and the card that says what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cai.config.settings import RunConfig
from cai.data.cards import DatasetFacts, LengthGaps, dataset_card
from cai.data.rows import FileSuffix, Row, RowKind, preference_rows, sft_rows, write_files
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session, stage_key
from cai.records import Outcome, PreferenceRecord, RecordKind, RevisionRecord, Stage
from cai.store import RunFolder, write_bytes_atomically

DATASETS = "datasets"
CARD = "README.md"
_SUFFIXES: dict[str, tuple[FileSuffix, ...]] = {
    "jsonl": ("jsonl",),
    "parquet": ("parquet",),
    "both": ("jsonl", "parquet"),
}


def finished_records(session: Session) -> Iterator[RevisionRecord]:
    """The records that are part of the data sets: neither filtered nor failed."""
    return session.folder.records(RecordKind.REVISION, RevisionRecord, outcomes=(Outcome.PAIR, Outcome.KEPT))


def pairs(session: Session) -> Iterator[PreferenceRecord]:
    return session.folder.records(RecordKind.PREFERENCE, PreferenceRecord)


def export(session: Session) -> None:
    """Write `datasets/`: equal records, equal bytes. The files are written again whenever they are missing or outdated."""
    folder, config = session.folder, session.inputs.config
    labelled = folder.stage(Stage.LABEL)
    assert labelled is not None, "the labels come before the export"
    constitution, key = session.inputs.constitution, export_key(session.inputs, labelled.fingerprint)
    if session.is_current(Stage.EXPORT, key) and is_exported(folder):
        return
    folder.forget_stage(Stage.EXPORT)  # a kill in between must not leave the note of other files
    target = folder.path / DATASETS
    seen = _Seen()
    files: dict[str, list[str]] = {"sft": [], "preferences": []}
    first: dict[str, str] = {}
    rows: dict[str, int] = {}
    for suffix in _SUFFIXES[config.export_format]:
        seen = _Seen()
        kinds: tuple[tuple[RowKind, Iterator[Row]], ...] = (
            ("sft", sft_rows(seen.records(finished_records(session)))),
            ("preferences", preference_rows(seen.pairs(pairs(session)))),
        )
        for kind, made in kinds:
            names, rows[kind] = write_files(target, kind, suffix, made, config.export_rows_per_file)
            files[kind] += [f"{DATASETS}/{name}" for name in names]
            first.setdefault(kind, names[0] if len(names) == 1 else f"{kind}-*-of-*.{suffix}")
    unmended = {"drafts with a fault that stayed, in no supervised row": str(seen.unmended)} if seen.unmended else {}
    facts = DatasetFacts(
        name=f"Revisions and preferences under “{constitution.name}”",
        files={kind: name for kind, name in first.items() if rows[kind]},
        rows=rows,
        ledger={f"{o.value}: {reason}" if reason else o.value: n for (o, reason), n in folder.ledger_reasons().items()},
        models=_models(config),
        constitution=constitution.name,
        constitution_fingerprint=constitution.fingerprint,
        seed=config.seed,
        kept_share=seen.kept_share,
        length_gap=seen.gaps.result(),
        settings=unmended,
    )
    write_bytes_atomically(target / CARD, dataset_card(facts).encode())
    written = [folder.path / name for each in files.values() for name in each]
    folder.put_stage(Stage.EXPORT, key, {"files": files, "rows": rows}, files=[*written, target / CARD])


def export_key(inputs: Inputs, labelled: str) -> str:
    """Fingerprint of the records (by that of their labels) and of all else that the files and the card tell."""
    config, constitution = inputs.config, inputs.constitution
    files = [config.export_format, config.export_rows_per_file]
    return stage_key(labelled, files, constitution.fingerprint, constitution.name, _models(config))


def is_exported(folder: RunFolder) -> bool:
    """Whether every file that the last export wrote is there."""
    stage = folder.stage(Stage.EXPORT)
    names = [name for each in stage.summary["files"].values() for name in each] if stage else []
    return bool(names) and all((folder.path / name).is_file() for name in [*names, f"{DATASETS}/{CARD}"])


@dataclass
class _Seen:
    """What the card tells of records and pairs, counted while they are written."""

    kept: int = 0
    changed: int = 0
    unmended: int = 0
    gaps: LengthGaps = field(default_factory=LengthGaps)

    @property
    def kept_share(self) -> float | None:
        """Share of records that end with their draft; None without records."""
        total = self.kept + self.changed
        return self.kept / total if total else None

    def records(self, records: Iterator[RevisionRecord]) -> Iterator[RevisionRecord]:
        for record in records:
            self.kept += not record.changed
            self.changed += record.changed
            self.unmended += record.unmended
            yield record

    def pairs(self, pairs: Iterator[PreferenceRecord]) -> Iterator[PreferenceRecord]:
        for pair in pairs:
            self.gaps.add(pair)
            yield pair


def _models(config: RunConfig) -> dict[str, str]:
    return {"policy": str(config.policy), "feedback": str(config.feedback_or_policy)}
