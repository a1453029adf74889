"""Finished stages of a run, by name, and the files that they left in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.store.canonical import canonical_json
from cai.store.checksums import file_sha256, row_checksum
from cai.store.database import Database


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that a finished stage left in the run folder: `path` is relative to it, `sha256` as it was written."""

    path: str
    stage: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StageResult:
    """A finished stage: `fingerprint` of all its inputs, and `summary`, what the report shows of it."""

    name: str
    fingerprint: str
    summary: dict[str, Any]


class StageTable:
    """What is finished. `RunFolder` says what its methods promise.

    Args:
        database: Of the run.
        folder: Of the run, that paths are relative to.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def put(self, name: str, fingerprint: str, summary: Mapping[str, Any] | None = None, *, files: Iterable[Path] = ()) -> None:
        """Note that a stage is finished. Put it in one `transaction` with the records it made.

        Args:
            name: Of the stage.
            fingerprint: Of all its inputs.
            summary: What the report shows of it.
            files: What it wrote in the run folder; their checksums are kept, for `cai doctor`.
        """
        row = (name, fingerprint, canonical_json(dict(summary or {})))
        written = [
            (path.relative_to(self._folder).as_posix(), name, path.stat().st_size, file_sha256(path)) for path in sorted(files)
        ]
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM stages WHERE name = ?", (name,))
            connection.execute("INSERT INTO stages VALUES (?, ?, ?, ?)", (*row, row_checksum(*row)))
            connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", [(*file, row_checksum(*file)) for file in written]
            )

    def get(self, name: str) -> StageResult | None:
        """A finished stage, or None (also if the note of it is damaged: it is then done again, from stored calls).

        It is current when its fingerprint is that of today's inputs.
        """
        rows = self._database.query("SELECT * FROM stages WHERE name = ?", (name,))
        files = self._database.query("SELECT * FROM files WHERE stage = ?", (name,))
        if not rows or any(row_checksum(*row) != checksum for *row, checksum in rows + files):
            return None
        return StageResult(name, rows[0][1], json.loads(rows[0][2]))

    def files(self) -> list[WrittenFile]:
        """The files of all finished stages."""
        return [
            WrittenFile(*row)
            for *row, checksum in self._database.query("SELECT * FROM files ORDER BY path")
            if row_checksum(*row) == checksum
        ]

    def forget(self, name: str) -> None:
        """The stage counts as unfinished again; its records stay until it puts new ones."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM stages WHERE name = ?", (name,))
