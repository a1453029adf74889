"""The data sets of a run as files: supervised rows, preference rows, and the card that says what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cai.config.settings import RunConfig
from cai.data.cards import dataset_card
from cai.data.exporting.plain import JSONL, PARQUET
from cai.data.length_gaps import LengthGaps
from cai.data.rows import FileSuffix, Row, RowKind, preference_rows, sft_rows, write_files
from cai.pipeline.describing import dataset_facts
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session, stage_key
from cai.records import PreferenceRecord, RevisionRecord, Stage
from cai.review.flow import Review
from cai.store import RunFolder, write_bytes_atomically

DATASETS = "datasets"
CARD = "README.md"
CARD_VERSION = 3
"""Rises when the card of equal records becomes another text: what an earlier version wrote is then written again."""
_SUFFIXES: dict[str, tuple[FileSuffix, ...]] = {
    "jsonl": ("jsonl",),
    "parquet": ("parquet",),
    "both": ("jsonl", "parquet"),
}


def review_of(session: Session) -> Review:
    """What people say of the run at this moment: it decides which of its records and pairs are learned, and as what."""
    return Review.of(session.folder, session.inputs.config.review)


def export(session: Session) -> None:
    """Write `datasets/`: equal records, equal bytes. The files are written again whenever they are missing or outdated."""
    folder, config = session.folder, session.inputs.config
    labelled = folder.stage(Stage.LABEL)
    assert labelled is not None, "the labels come before the export"
    review = review_of(session)
    key = export_key(session.inputs, labelled.fingerprint, review.fingerprint)
    if session.is_current(Stage.EXPORT, key) and is_exported(folder):
        return
    folder.forget_stage(Stage.EXPORT)  # a kill in between must not leave the note of other files
    target = folder.path / DATASETS
    seen = ExportedRecords()
    files: dict[str, list[str]] = {"sft": [], "preferences": []}
    first: dict[str, str] = {}
    rows: dict[str, int] = {}
    for suffix in _SUFFIXES[config.export_format]:
        seen = ExportedRecords()
        kinds: tuple[tuple[RowKind, Iterator[Row]], ...] = (
            ("sft", sft_rows(seen.records(review.records_of(folder)))),
            ("preferences", preference_rows(seen.pairs(review.pairs_of(folder)))),
        )
        for kind, made in kinds:
            names, rows[kind] = write_files(target, kind, suffix, made, config.export_rows_per_file)
            files[kind] += [f"{DATASETS}/{name}" for name in names]
            first.setdefault(kind, names[0] if len(names) == 1 else f"{kind}-*-of-*.{suffix}")
    shown = JSONL if "jsonl" in _SUFFIXES[config.export_format] else PARQUET
    tables = {each.name: each for each in (*shown.pairs, *shown.supervised)}
    facts = replace(
        dataset_facts(folder, licence=config.export_licence, languages=config.export_languages),
        files={kind: {"train": name} for kind, name in first.items() if rows[kind]},
        rows=rows,
        kept_share=seen.kept_share,
        length_gap=seen.gaps.result(),
        columns={kind: tables[kind].columns for kind in first},
        loading={kind: tables[kind].use.format(file=name) for kind, name in first.items() if rows[kind]},
        told=shown.options,
        settings=seen.unmended_fact() | review.tally.told(),
    )
    write_bytes_atomically(target / CARD, dataset_card(facts).encode())
    written = [folder.path / name for each in files.values() for name in each]
    folder.put_stage(Stage.EXPORT, key, {"files": files, "rows": rows}, files=[*written, target / CARD])
    if review.tally.waiting:
        told = f"{review.tally.pairs_waiting:,} pairs and {review.tally.rows_waiting:,} supervised rows wait for review"
        session.tell("export", 1, 1, f"{told}; see `cai review`")


def export_key(inputs: Inputs, labelled: str, reviewed: str) -> str:
    """Fingerprint of the records (by that of their labels, and of their review) and of all else that files and card tell."""
    config, constitution = inputs.config, inputs.constitution
    files = [config.export_format, config.export_rows_per_file]
    told = [CARD_VERSION, config.export_licence, config.export_languages]
    return stage_key(labelled, files, told, constitution.fingerprint, constitution.name, _models(config), reviewed)


def is_exported(folder: RunFolder) -> bool:
    """Whether every file that the last export wrote is there."""
    stage = folder.stage(Stage.EXPORT)
    names = [name for each in stage.summary["files"].values() for name in each] if stage else []
    return bool(names) and all((folder.path / name).is_file() for name in [*names, f"{DATASETS}/{CARD}"])


@dataclass
class ExportedRecords:
    """What the card tells of records and pairs, counted while they go by; each pass over all of them counts anew."""

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
        self.kept = self.changed = self.unmended = 0
        for record in records:
            self.kept += not record.changed
            self.changed += record.changed
            self.unmended += record.unmended
            yield record

    def pairs(self, pairs: Iterator[PreferenceRecord]) -> Iterator[PreferenceRecord]:
        self.gaps = LengthGaps()
        for pair in pairs:
            self.gaps.add(pair)
            yield pair

    def unmended_fact(self) -> dict[str, str]:
        """For the card; {} where there is none."""
        return {"drafts with a fault that stayed, in no supervised row": str(self.unmended)} if self.unmended else {}


def _models(config: RunConfig) -> dict[str, str]:
    return {role: str(spec) for role, spec in config.models.items()}
