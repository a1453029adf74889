"""One run folder: `run.sqlite` (model calls, items, records, ledger, stages) and `manifest.json`, under an exclusive lock.

Everything durable goes through here. User data is never deleted: what cannot be read is refused, with a way out.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

from pydantic import BaseModel, ValidationError

from cai.errors import StoreError
from cai.records import FailureRecord, Item, LedgerEntry, Outcome
from cai.store.calls import CallTable, Usage
from cai.store.canonical import canonical_json
from cai.store.canonical import fingerprint as fingerprint_of
from cai.store.checksums import file_sha256, row_checksum
from cai.store.database import Database
from cai.store.files import PART_SUFFIX, remove_parts, unwritable, write_bytes_atomically
from cai.store.heartbeat import PROGRESS_NAME
from cai.store.interrupts import deferred_interrupts
from cai.store.joining import clear, join
from cai.store.ledger import ROWS_PER_PAGE, Ledger
from cai.store.lock import HOLDER_NAME, LOCK_NAME, RunLock

DATABASE_NAME = "run.sqlite"
PROGRAM = "constitution-cai"
MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1
MANIFEST_CHECKSUM = "sha256"
"""Key, in the manifest, of the fingerprint of everything else in it."""
SHARD_FOLDER = re.compile(r"shard-\d+-of-\d+")
"""Folders of shards may lie in that of the whole, before there is a whole."""
OWN_NAMES = {LOCK_NAME, HOLDER_NAME, MANIFEST_NAME, PROGRESS_NAME}
LOG = logging.getLogger(__name__)


class OfItem(Protocol):
    """A record that names its item."""

    @property
    def uid(self) -> str: ...

    @property
    def replica(self) -> int: ...

    def model_dump_json(self) -> str: ...


Model = TypeVar("Model", bound=BaseModel)


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


class RunFolder:
    """An open run folder; use it in a `with` block, or `close` it.

    Methods that write are durable when they return; several belong together inside `transaction()`.
    """

    def __init__(self, path: Path, database: Database, lock: RunLock | None) -> None:
        self.path = path
        self.calls = CallTable(database)
        """The memo of model calls (see `MemoisedEngine`)."""
        self._database = database
        self._lock = lock
        self._ledger = Ledger(database)
        self._damaged: dict[str, int] = {}

    @classmethod
    def open(cls, path: Path, *, create: bool = True, read_only: bool = False, checked: bool = True) -> RunFolder:
        """Open the run at `path`; begin it when there is none and `create` is true.

        Args:
            path: The folder. A new, an empty or a run folder; anything else is refused.
            create: Begin a new run where there is none.
            read_only: Look only: no lock, also beside a process that writes, also on read-only media.
            checked: Look through the whole database for damage first; False for a glance (with `read_only`).

        Raises:
            StoreError: If the folder is locked by a process, foreign, damaged, missing (`create=False`) or not writable.
        """
        path = Path(path)
        _refuse_foreign(path, create=create and not read_only)
        if read_only:
            return cls(path, Database(path / DATABASE_NAME, read_only=True, checked=checked), None)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        lock = RunLock(path)
        lock.acquire()
        try:
            remove_parts(path)
            database = Database(path / DATABASE_NAME)
        except BaseException:
            lock.release()
            raise
        return cls(path, database, lock)

    @classmethod
    def look_at(cls, path: Path) -> RunFolder | None:
        """The run at `path`, read only; None where none has begun. Nothing is made, locked or changed.

        Raises:
            StoreError: If the folder is foreign or damaged.
        """
        path = Path(path)
        _refuse_foreign(path, create=True)
        database = path / DATABASE_NAME
        return cls.open(path, read_only=True) if database.is_file() and database.stat().st_size else None

    def close(self) -> None:
        """Commit what waits, close the database, free the lock. Safe to call twice; Ctrl-C waits until it is done."""
        with deferred_interrupts():
            try:
                if self._lock is not None:
                    self.calls.flush()
            finally:
                self._database.close()
                if self._lock is not None:
                    self._lock.release()
                    self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except StoreError:
            if error is None:
                raise  # otherwise the error under way tells the user more than its consequence

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All writes of the block or none. Model calls that wait are committed first: what refers to them comes after them."""
        self.calls.flush()
        with self._database.transaction():
            yield

    # ---- manifest

    @property
    def manifest(self) -> dict[str, Any]:
        """What `write_manifest` wrote last, or {}."""
        path = self.path / MANIFEST_NAME
        way_out = f"Move {path} elsewhere; the next run writes a new one."
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read ({error}).", way_out) from error
        if not isinstance(content, dict):
            raise StoreError(f"{path}: not a JSON object.", way_out)
        return {name: value for name, value in cast("dict[str, Any]", content).items() if name != MANIFEST_CHECKSUM}

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write `manifest.json`, whole or not at all, with its own checksum in it: it is never at odds with what says so."""
        content = json.loads(canonical_json(dict(manifest)))
        content[MANIFEST_CHECKSUM] = fingerprint_of(content)
        text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
        write_bytes_atomically(self.path / MANIFEST_NAME, f"{text}\n".encode())

    # ---- items and ledger

    def put_items(
        self,
        items: Iterable[Item],
        *,
        failures: Iterable[FailureRecord] = (),
        replicas: int = 1,
        positions: Callable[[], Iterator[int]] | None = None,
    ) -> bool:
        """Make `items` × `replicas`, and the rows that could not be read, the input of this run.

        The same input again changes nothing. Another input drops the records, outcomes and finished stages of the old
        one; model calls stay, so that what both inputs share costs nothing. No row is kept in memory.

        Args:
            items: In order; gone through twice.
            failures: Likewise.
            replicas: Drafts of each item.
            positions: Gives the place of each item, then of each failure, where this run has a share of a larger input; in
                rising order. Default: 0, 1, 2 …

        Returns:
            Whether the input changed.

        Raises:
            ValueError: If two rows have the same uid.
        """
        self.calls.flush()
        return self._ledger.put_items(items, failures, replicas=replicas, positions=positions)

    def join(self, others: Sequence[Path]) -> None:
        """Make the inputs of these run folders, together, the input of this one, with outcomes, records and model calls.

        No stage is finished afterwards. Each folder is taken whole or not at all; interrupted, it has to be called again.

        Raises:
            StoreError: If two of them have a row in common.
        """
        self.calls.flush()
        clear(self._database)
        for each in others:
            join(self._database, each / DATABASE_NAME)

    def items(self) -> Iterator[Item]:
        """The readable items, in order of input, read page by page."""
        return self._ledger.items()

    def count_items(self) -> int:
        """How many readable items there are."""
        return self._ledger.count_items(readable=True)

    def count_read_failures(self) -> int:
        """How many input rows could not be read."""
        return self._ledger.count_items(readable=False)

    def read_failures(self) -> Iterator[FailureRecord]:
        """The input rows that could not be read."""
        return self._ledger.read_failures()

    def settle(self, entries: Iterable[LedgerEntry]) -> None:
        """Set outcomes, all or none. A later one replaces an earlier one.

        Raises:
            ValueError: If an entry names no item of this run.
        """
        with self.transaction():
            self._ledger.settle(entries)

    def reset_ledger(self) -> None:
        """Every readable item is pending again: for a stage that starts over."""
        with self.transaction():
            self._ledger.reset()

    def ledger(self) -> Iterator[LedgerEntry]:
        """The outcome of every (uid, replica), in order of input."""
        return self._ledger.entries()

    def ledger_counts(self) -> dict[Outcome, int]:
        """How many (uid, replica) ended in each outcome; every outcome is there."""
        return self._ledger.counts()

    def ledger_reasons(self) -> dict[tuple[Outcome, str], int]:
        """How many (uid, replica) ended in each outcome for each reason."""
        return self._ledger.reasons()

    def assert_balanced(self, *, finished: bool = False) -> None:
        """Check that every input row has exactly one outcome and, with `finished`, that none is pending.

        Raises:
            StoreError: With the counts, if not.
        """
        self._ledger.assert_balanced(finished=finished)

    # ---- records, measurements, stages

    def put_records(self, kind: str, records: Iterable[OfItem]) -> int:
        """Make `records` the records of this kind, in place of any before; all or none. Returns how many there are.

        Raises:
            ValueError: If a record names no item of this run.
        """
        with self.transaction():
            self.drop_records(kind)
            return self.add_records(kind, records)

    def add_records(self, kind: str, records: Iterable[OfItem]) -> int:
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

        with self.transaction(), self._database.transaction() as connection:
            try:
                connection.executemany(
                    "INSERT INTO records VALUES (?, ?, ?, (SELECT coalesce(max(sequence), 0) + 1 FROM records "
                    "WHERE kind = ? AND uid = ? AND replica = ?), ?, ?)",
                    rows(),
                )
            except sqlite3.IntegrityError as error:
                raise ValueError(f"{kind}: no item {last[0]!r} (replica {last[1]}) in this run") from error
        return added

    def drop_records(self, kind: str) -> None:
        """Delete the records of a kind: for a stage that makes them anew."""
        self._damaged.pop(kind, None)
        with self.transaction(), self._database.transaction() as connection:
            connection.execute("DELETE FROM records WHERE kind = ?", (kind,))

    def reopen(self, kind: str, *, dropping: Sequence[str]) -> None:
        """Every item with a record of `kind` is pending again, and loses its records of the kinds `dropping`."""
        # Looked up row by row: a list of them all would be held in memory.
        having = (
            "WHERE EXISTS (SELECT 1 FROM records AS made "
            "WHERE made.kind = ? AND made.uid = {table}.uid AND made.replica = {table}.replica)"
        )
        with self.transaction(), self._database.transaction() as connection:
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

    def count_records(self, kind: str) -> int:
        return self._database.query("SELECT count(*) FROM records WHERE kind = ?", (kind,))[0][0]

    def damaged(self, kind: str) -> int:
        """How many of the records and measurements of this kind are not as they were written. They are all looked at once."""
        if kind not in self._damaged:
            bad = sum(row_checksum(*row) != checksum for *row, checksum in self._stored(kind))
            if bad:
                LOG.warning("%s: %d stored rows of kind %r are damaged and are made anew.", self.path, bad, kind)
            self._damaged[kind] = bad
        return self._damaged[kind]

    def put_measurements(self, kind: str, rows: Iterable[BaseModel]) -> None:
        """Make `rows` the measurements of this kind, in place of any before: what belongs to no item (evaluation answers …)."""
        self._damaged.pop(kind, None)
        with self.transaction(), self._database.transaction() as connection:
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

    def put_stage(
        self, name: str, fingerprint: str, summary: Mapping[str, Any] | None = None, *, files: Iterable[Path] = ()
    ) -> None:
        """Note that a stage is finished. Put it in one `transaction` with the records it made.

        Args:
            name: Of the stage.
            fingerprint: Of all its inputs.
            summary: What the report shows of it.
            files: What it wrote in the run folder; their checksums are kept, for `cai doctor`.
        """
        row = (name, fingerprint, canonical_json(dict(summary or {})))
        written = [
            (path.relative_to(self.path).as_posix(), name, path.stat().st_size, file_sha256(path)) for path in sorted(files)
        ]
        with self.transaction(), self._database.transaction() as connection:
            connection.execute("DELETE FROM stages WHERE name = ?", (name,))
            connection.execute("INSERT INTO stages VALUES (?, ?, ?, ?)", (*row, row_checksum(*row)))
            connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", [(*file, row_checksum(*file)) for file in written]
            )

    def stage(self, name: str) -> StageResult | None:
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

    def forget_stage(self, name: str) -> None:
        """The stage counts as unfinished again; its records stay until it puts new ones."""
        with self.transaction(), self._database.transaction() as connection:
            connection.execute("DELETE FROM stages WHERE name = ?", (name,))

    @property
    def schema_version(self) -> int:
        """Of the database when it was opened; a writer has brought it to the newest, a reader sees it as if."""
        return self._database.stored_version

    def broken_rules(self) -> list[str]:
        """What was done to the database's own rules, in words; [] for what this program made."""
        return self._database.broken_rules()

    def contradictions(self) -> dict[str, int]:
        """What ledger and records say against each other, in words, and how often; {} for a sound run."""
        return self._ledger.contradictions()

    def usage(self) -> dict[str, Usage]:
        """What every stage has cost, over all processes that worked on this run."""
        return self.calls.usage()

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
                f"{self.path}: a stored record of kind {kind!r} is damaged.",
                "Run `cai run` again: records are put together anew, and finished model calls are kept.",
            )
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                f"{self.path}: a stored record of kind {kind!r} does not fit this version ({place}: {first['msg']}).",
                "Read it with the version that wrote it, or run again: model calls are kept.",
            ) from error


def _refuse_foreign(path: Path, *, create: bool) -> None:
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path}: a file, not a folder.", "Name a folder for the run.")
    if (path / DATABASE_NAME).is_file():
        return
    if not create:
        raise StoreError(f"{path}: no run in this folder.", "Check the path, or start a run with `cai run`.")
    try:
        names = sorted(p.name for p in path.iterdir()) if path.exists() else []
    except OSError as error:
        raise unwritable(path, error) from error
    others = [n for n in names if n not in OWN_NAMES and not n.endswith(PART_SUFFIX) and not SHARD_FOLDER.fullmatch(n)]
    if others:
        more = " …" if len(others) > 3 else ""
        raise StoreError(
            f"{path}: not a run folder: it holds {', '.join(others[:3])}{more} but no {DATABASE_NAME}.",
            "Choose a new or an empty folder; nothing in this one was touched.",
        )
