"""Files of an export, each in its container; rows go through in a stream, and equal rows are equal bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from cai.data.exporting.formats import Container
from cai.data.rows import Row, RowKind, write_jsonl, write_parquet
from cai.store.files import atomic_file


def file_name(table: str, container: Container, split: str) -> str:
    """Of one part of a table; "" is the only part."""
    if container == "datasets":
        return f"{table}/{split}" if split else table
    return f"{table}-{split}.{container}" if split else f"{table}.{container}"


def data_pattern(name: str, container: Container) -> str:
    """What the card gives `load_dataset` for such a file."""
    return f"{name}/*.arrow" if container == "datasets" else name


def write_table(path: Path, container: Container, kind: RowKind, rows: Iterable[Row], head: Mapping[str, Any] | None) -> int:
    """Write one file (or folder, of `datasets`). Returns how many rows it has; a file without any is not left there.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
    """
    match container:
        case "jsonl":
            count = write_jsonl(path, rows)
        case "parquet":
            count = write_parquet(path, rows, kind)
        case "json":
            count = _write_json(path, rows, head or {})
        case "datasets":
            return _write_datasets_folder(path, kind, rows)
    if not count:
        path.unlink()
    return count


def _write_json(path: Path, rows: Iterable[Row], head: Mapping[str, Any]) -> int:
    """One object: `head`, and the rows as its list `comparisons`, one a line."""
    count = 0
    with atomic_file(path) as file:
        file.write(_json(dict(head))[:-1].encode() + b', "comparisons": [')
        for row in rows:
            file.write(f"{',' if count else ''}\n{_json(row)}".encode())
            count += 1
        file.write(b"\n]}\n")
    return count


def _write_datasets_folder(folder: Path, kind: RowKind, rows: Iterable[Row]) -> int:
    """As `Dataset.save_to_disk` does, by way of a Parquet file: `datasets` takes it in a stream, and knows its columns."""
    datasets: Any = import_module("datasets")
    work = folder.with_name(f".{folder.name}.work")
    try:
        count = write_parquet(work / "rows.parquet", rows, kind)
        if count:
            bars = not datasets.are_progress_bars_disabled()
            datasets.disable_progress_bars()
            try:
                loaded = datasets.Dataset.from_parquet(str(work / "rows.parquet"), cache_dir=str(work / "cache"))
                loaded.save_to_disk(str(folder))
            finally:
                if bars:
                    datasets.enable_progress_bars()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not count:
        with suppress(OSError):
            folder.parent.rmdir()  # where it was made for this part alone
    return count


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
