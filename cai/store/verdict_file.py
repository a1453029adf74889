"""What people said of a run's answers: `review.sqlite`, beside `run.sqlite` and independent of it.

A process that reviews takes no lock of the run, and a process that works on the run writes nothing here: both may be at work
at once, and so may several that review. Each verdict is a transaction of its own, on the disk when `add` returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from cai.errors import StoreError
from cai.records import HumanVerdict, Judgement
from cai.store.checksums import row_checksum
from cai.store.database import Database
from cai.store.files import unwritable
from cai.store.run_folder import DATABASE_NAME
from cai.store.schema import REVIEW_SCHEMA

REVIEW_NAME = "review.sqlite"
ROWS_PER_PAGE = 1000


class VerdictFile:
    """The verdicts on a run's answers; use it in a `with` block, or `close` it."""

    def __init__(self, path: Path, database: Database | None) -> None:
        self.path = path
        self._database = database

    @classmethod
    def open(cls, run: Path) -> VerdictFile:
        """For adding to, made when it is missing.

        Raises:
            StoreError: If there is no run in the folder, or the file is damaged, foreign or cannot be written.
        """
        if not (run / DATABASE_NAME).is_file():
            raise StoreError(f"{run}: no run in this folder.", "Check the path, or start a run with `cai run`.")
        try:
            return cls(run / REVIEW_NAME, Database(run / REVIEW_NAME, schema=REVIEW_SCHEMA))
        except OSError as error:
            raise unwritable(run / REVIEW_NAME, error) from error

    @classmethod
    def look_at(cls, run: Path) -> VerdictFile:
        """For reading; a run that nobody has reviewed has no verdicts.

        Raises:
            StoreError: If the file is damaged or foreign.
        """
        path = run / REVIEW_NAME
        begun = path.is_file() and path.stat().st_size > 0
        return cls(path, Database(path, read_only=True, checked=False, schema=REVIEW_SCHEMA) if begun else None)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def __enter__(self) -> VerdictFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add(self, verdicts: Iterable[HumanVerdict]) -> int:
        """Put verdicts after those that are there; all or none. Returns how many."""
        assert self._database is not None, "opened for adding"
        added = 0
        with self._database.transaction() as connection:
            for each in verdicts:
                row = (each.pair, each.reviewer, each.uid, each.replica, each.model_dump_json())
                connection.execute(
                    "INSERT INTO verdicts (pair, reviewer, uid, replica, body, checksum) VALUES (?, ?, ?, ?, ?, ?)",
                    (*row, row_checksum(*row)),
                )
                added += 1
        return added

    def last_number(self) -> int:
        """Of the newest verdict; 0 without any. Rises with each."""
        rows = self._query("SELECT coalesce(max(number), 0) FROM verdicts")
        return rows[0][0] if rows else 0

    def history(self, *, after: int = 0) -> Iterator[tuple[int, HumanVerdict]]:
        """All verdicts with their numbers, in the order in which they were given, also those that count no more."""
        sql = (
            "SELECT number, pair, reviewer, uid, replica, body, checksum FROM verdicts WHERE number > ? ORDER BY number LIMIT ?"
        )
        while page := self._query(sql, (after, ROWS_PER_PAGE)):
            for number, *row, checksum in page:
                yield number, self._parsed(number, row, sound=row_checksum(*row) == checksum)
            after = page[-1][0]

    def newest_of(self, reviewer: str) -> Iterator[HumanVerdict]:
        """All that this person has said, the newest first."""
        sql = (
            "SELECT number, pair, reviewer, uid, replica, body, checksum FROM verdicts "
            "WHERE reviewer = ? AND number < ? ORDER BY number DESC LIMIT ?"
        )
        before = self.last_number() + 1
        while page := self._query(sql, (reviewer, before, ROWS_PER_PAGE)):
            for number, *row, checksum in page:
                yield self._parsed(number, row, sound=row_checksum(*row) == checksum)
            before = page[-1][0]

    def standing(self) -> dict[tuple[str, str], HumanVerdict]:
        """(pair, reviewer) → what this person says of it now. What was taken back is not there."""
        newest = {(each.pair, each.reviewer): each for _, each in self.history()}
        return {key: each for key, each in newest.items() if each.judgement is not Judgement.WITHDRAWN}

    def join(self, other: Path) -> int:
        """Add the verdicts in the run folder `other`, but for those that are here already. Returns how many were added."""
        known = {each.model_dump_json() for _, each in self.history()}
        with VerdictFile.look_at(other) as theirs:
            return self.add(each for _, each in theirs.history() if each.model_dump_json() not in known)

    def _query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return [] if self._database is None else self._database.query(sql, parameters)

    def _parsed(self, number: int, row: list[Any], *, sound: bool) -> HumanVerdict:
        problem = "its checksum is another"
        if sound:
            try:
                return HumanVerdict.model_validate_json(row[-1])
            except ValueError as error:
                problem = str(error).splitlines()[0]
        raise StoreError(
            f"{self.path}: verdict {number} cannot be read: {problem}.",
            "It was damaged, or written by another version: take the file from a backup, or move it away to begin anew.",
        )
