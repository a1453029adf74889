"""Records of a run, which belong to its items, and measurements, which belong to none: rows of JSON with checksums."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from cai.errors import StoreError
from cai.records import Outcome
from cai.store.checksums import row_checksum
from cai.store.database import Database
from cai.store.earlier_records import in_this_form
from cai.store.ledger import ROWS_PER_PAGE

LOG = logging.getLogger(__name__)
KEYS_PER_PAGE = 10_000
RecordKey: TypeAlias = tuple[str, int, int]
"""uid, replica, and sequence among the records of one kind of these."""


class OfItem(Protocol):
    """A record that names its item."""

    @property
    def uid(self) -> str: ...

    @property
    def replica(self) -> int: ...

    def model_dump_json(self) -> str: ...


Model = TypeVar("Model", bound=BaseModel)


class RecordTable:
    """Records and measurements by their kind. `RunFolder` says what its methods promise.

    Args:
        database: Of the run.
        folder: Of the run, for what a user is told.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._damaged: dict[str, int] = {}

    def add(self, kind: str, records: Iterable[OfItem]) -> int:
        """Put `records` after those of this kind that are there; all or none. Returns how many were added.

        Raises:
            ValueError: If a record names no item of this run.
        """
        added, last = 0, ("", 0)

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal added, last
            for record in records:
                added, last, body = added + 1, (record.uid, record.replica), record.model_dump_json()
                yield kind, *last, kind, *last, body, row_checksum(kind, *last, body)

        with self._database.transaction() as connection:
            try:
                connection.executemany(
                    "INSERT INTO records VALUES (?, ?, ?, (SELECT coalesce(max(sequence), 0) + 1 FROM records "
                    "WHERE kind = ? AND uid = ? AND replica = ?), ?, ?)",
                    rows(),
                )
            except sqlite3.IntegrityError as error:
                raise ValueError(f"{kind}: no item {last[0]!r} (replica {last[1]}) in this run") from error
        return added

    def drop(self, kind: str) -> None:
        """Delete the records of a kind: for a stage that makes them anew."""
        self._damaged.pop(kind, None)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM records WHERE kind = ?", (kind,))

    def reopen(self, kind: str, *, dropping: Sequence[str]) -> None:
        """Every item with a record of `kind` is pending again, and loses its records of the kinds `dropping`."""
        # Looked up row by row: a list of them all would be held in memory.
        having = (
            "WHERE EXISTS (SELECT 1 FROM records AS made "
            "WHERE made.kind = ? AND made.uid = {table}.uid AND made.replica = {table}.replica)"
        )
        with self._database.transaction() as connection:
            connection.execute(
                f"UPDATE ledger SET outcome = 'pending', reason = '' {having.format(table='ledger')}",  # noqa: S608
                (kind,),
            )
            for each in dropping:
                self._damaged.pop(each, None)
                connection.execute(f"DELETE FROM records {having.format(table='records')} AND kind = ?", (kind, each))  # noqa: S608

    def records(self, kind: str, model: type[Model], *, outcomes: Collection[Outcome] = ()) -> Iterator[Model]:
        """The records of this kind in order of their items (then replica, then as they were put), read page by page.

        Args:
            kind: Of record.
            model: Its type.
            outcomes: Only those of items that ended so; none named: all.
        """
        marks = ",".join("?" * len(outcomes))
        ended = f"CROSS JOIN ledger USING (uid, replica) WHERE outcome IN ({marks}) AND" if outcomes else "WHERE"
        # The items lead, in the order of their index, so that a page is read without sorting what comes after it.
        sql = (
            "SELECT position, replica, sequence, uid, records.body, records.checksum "  # noqa: S608
            "FROM items CROSS JOIN records USING (uid, replica) "
            f"{ended} kind = ? AND (position, replica) >= (?, ?) AND (position, replica, sequence) > (?, ?, ?) "
            f"ORDER BY position, replica, sequence LIMIT {ROWS_PER_PAGE}"
        )
        after = (-1, -1, -1)
        named = [outcome.value for outcome in outcomes]
        while page := self._database.query(sql, (*named, kind, *after[:2], *after)):
            for _, replica, _, uid, body, checksum in page:
                yield self._parsed(kind, model, body, sound=row_checksum(kind, uid, replica, body) == checksum)
            after = page[-1][:3]

    def keys(self, kind: str) -> Iterator[RecordKey]:
        """Where the records of this kind are, by uid, replica and sequence; read from the index alone, page by page."""
        sql = (
            "SELECT uid, replica, sequence FROM records WHERE kind = ? AND (uid, replica, sequence) > (?, ?, ?) "
            "ORDER BY uid, replica, sequence LIMIT ?"
        )
        after: RecordKey = ("", -1, -1)
        while page := self._database.query(sql, (kind, *after, KEYS_PER_PAGE)):
            yield from ((uid, replica, sequence) for uid, replica, sequence in page)
            after = page[-1][0], page[-1][1], page[-1][2]

    def of_item(self, kind: str, model: type[Model], uid: str, replica: int | None = None) -> list[tuple[int, Model]]:
        """The records of this kind of one item, or of one of its samples, each with its sequence."""
        one = "" if replica is None else " AND replica = ?"
        rows = self._database.query(
            f"SELECT sequence, replica, body, checksum FROM records WHERE kind = ? AND uid = ?{one} ORDER BY replica, sequence",  # noqa: S608
            (kind, uid, *(() if replica is None else (replica,))),
        )
        return [
            (sequence, self._parsed(kind, model, body, sound=row_checksum(kind, uid, at, body) == checksum))
            for sequence, at, body, checksum in rows
        ]

    def uids_with(self, kind: str, field: str, values: Collection[str]) -> set[str]:
        """Items with a record of this kind whose `field` is one of `values`."""
        marks = ",".join("?" * len(values))
        rows = self._database.query(
            f"SELECT DISTINCT uid FROM records WHERE kind = ? AND json_extract(body, ?) IN ({marks})",  # noqa: S608
            (kind, f"$.{field}", *values),
        )
        return {uid for (uid,) in rows}

    def count(self, kind: str) -> int:
        return self._database.query("SELECT count(*) FROM records WHERE kind = ?", (kind,))[0][0]

    def damaged(self, kind: str) -> int:
        """How many of the records and measurements of this kind are not as they were written. They are all looked at once."""
        if kind not in self._damaged:
            bad = sum(row_checksum(*row) != checksum for *row, checksum in self._stored(kind))
            if bad:
                LOG.warning("%s: %d stored rows of kind %r are damaged and are made anew.", self._folder, bad, kind)
            self._damaged[kind] = bad
        return self._damaged[kind]

    def put_measurements(self, kind: str, rows: Iterable[BaseModel]) -> None:
        """Make `rows` the measurements of this kind, in place of any before: what belongs to no item (evaluation answers …)."""
        self._damaged.pop(kind, None)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM measurements WHERE kind = ?", (kind,))
            for n, each in enumerate(rows):
                row = (kind, n, each.model_dump_json())
                connection.execute("INSERT INTO measurements VALUES (?, ?, ?, ?)", (*row, row_checksum(*row)))

    def measurements(self, kind: str, model: type[Model]) -> Iterator[Model]:
        """The measurements of this kind, as they were put."""
        rows = self._database.query(
            "SELECT sequence, body, checksum FROM measurements WHERE kind = ? ORDER BY sequence", (kind,)
        )
        for sequence, body, checksum in rows:
            yield self._parsed(kind, model, body, sound=row_checksum(kind, sequence, body) == checksum)

    def _stored(self, kind: str) -> Iterator[tuple[Any, ...]]:
        """What the checksums of records and measurements are of, and these."""
        sql = (
            "SELECT uid, replica, sequence, body, checksum FROM records "
            "WHERE kind = ? AND (uid, replica, sequence) > (?, ?, ?) ORDER BY uid, replica, sequence LIMIT ?"
        )
        after = ("", -1, -1)
        while page := self._database.query(sql, (kind, *after, ROWS_PER_PAGE)):
            for uid, replica, _, body, checksum in page:
                yield kind, uid, replica, body, checksum
            after = page[-1][:3]
        yield from self._database.query("SELECT * FROM measurements WHERE kind = ?", (kind,))

    def _parsed(self, kind: str, model: type[Model], body: str, *, sound: bool) -> Model:
        if not sound:
            raise StoreError(
                f"{self._folder}: a stored record of kind {str(kind)!r} is damaged.",
                "Run `cai run` again: records are put together anew, and finished model calls are kept.",
            )
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            if (earlier := in_this_form(model, body)) is not None:
                return self._parsed(kind, model, earlier, sound=True)
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                f"{self._folder}: a stored record of kind {str(kind)!r} does not fit this version ({place}: {first['msg']}).",
                "Read it with the version that wrote it, or run again: model calls are kept.",
            ) from error
