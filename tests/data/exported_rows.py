"""Exports of a run or of bare pairs, and their rows read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from labelled_runs import revision_of

from cai.data.exporting import FORMATS, Choices, ExportOutcome, Source, format_named, write_export
from cai.data.rows import sft_rows
from cai.pipeline.run_exports import export_run
from cai.records import PreferenceRecord

ALL = pytest.mark.parametrize("name", list(FORMATS))


def exported(run: Path, name: str, folder: Path, **choices: Any) -> ExportOutcome:
    if name == "hh-rlhf":
        choices.setdefault("threshold", 0.5)
    return export_run(run, format_named(name), folder, **choices)


def direct(pairs: list[PreferenceRecord], name: str, folder: Path, **choices: Any) -> ExportOutcome:
    """An export of these pairs, without a run."""
    source = Source(lambda: iter(pairs), lambda: sft_rows(map(revision_of, pairs)))
    return write_export(source, format_named(name), folder, Choices(**choices), lambda _: "card\n")


def rows_in(path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        from datasets import load_from_disk

        return list(load_from_disk(str(path)))  # type: ignore[arg-type]
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    return json.loads(text)["comparisons"] if path.suffix == ".json" else [json.loads(line) for line in text.split("\n")[:-1]]


def told(outcome: ExportOutcome) -> str:
    return "\n".join(outcome.told())
