"""One run folder: `run.sqlite` (model calls, items, records, ledger, stages) and `manifest.json`, under an exclusive lock.

Everything durable goes through here. User data is never deleted: what cannot be read is refused, with a way out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel

from cai.errors import StoreError
from cai.records import FailureRecord, Item, LedgerEntry, Outcome
from cai.store.calls import CallTable, Usage
from cai.store.database import Database
from cai.store.files import PART_SUFFIX, unwritable
from cai.store.heartbeat import PROGRESS_NAME
from cai.store.interrupts import deferred_interrupts
from cai.store.joining import clear, join
from cai.store.ledger import Ledger
from cai.store.leftovers import remove_parts
from cai.store.lock import HOLDER_NAME, LOCK_NAME, RunLock
from cai.store.manifest import MANIFEST_NAME, PRIVATE_NAME, read_manifest, read_whole_manifest, write_manifest
from cai.store.record_table import Model, OfItem, RecordKey, RecordTable
from cai.store.stage_table import StageResult, StageTable, WrittenFile

DATABASE_NAME = "run.sqlite"
PROGRAM = "constitution-cai"
SHARD_FOLDER = re.compile(r"shard-\d+-of-\d+")
"""Folders of shards may lie in that of the whole, before there is a whole."""
OWN_NAMES = {LOCK_NAME, HOLDER_NAME, MANIFEST_NAME, PRIVATE_NAME, PROGRESS_NAME}


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
        self._records = RecordTable(database, path)
        self._stages = StageTable(database, path)

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
        """What `write_manifest` wrote last, without paths and addresses, or {}: anybody may see it.

        Raises:
            StoreError: If it is no JSON object, or cannot be read.
        """
        return read_manifest(self.path)

    @property
    def whole_manifest(self) -> dict[str, Any]:
        """The same with paths and addresses, for work with the run; nothing that is shown is made of it.

        Raises:
            StoreError: If it is no JSON object, or cannot be read.
        """
        return read_whole_manifest(self.path)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write `manifest.json`, whole or not at all, and what of it is private beside it."""
        write_manifest(self.path, manifest)

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

    def uids_tagged(self, tags: Collection[str]) -> set[str]:
        """Readable items with one of these tags."""
        return self._ledger.uids_tagged(tags)

    def settled_as(self, outcomes: Collection[Outcome]) -> Iterator[tuple[str, int]]:
        """(uid, replica) of what ended so."""
        return self._ledger.settled_as(outcomes)

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
            self._records.drop(kind)
            return self._records.add(kind, records)

    def add_records(self, kind: str, records: Iterable[OfItem]) -> int:
        """Put `records` after those of this kind that are there; all or none. Returns how many were added.

        Raises:
            ValueError: If a record names no item of this run.
        """
        with self.transaction():
            return self._records.add(kind, records)

    def drop_records(self, kind: str) -> None:
        """Delete the records of a kind: for a stage that makes them anew."""
        with self.transaction():
            self._records.drop(kind)

    def reopen(self, kind: str, *, dropping: Sequence[str]) -> None:
        """Every item with a record of `kind` is pending again, and loses its records of the kinds `dropping`."""
        with self.transaction():
            self._records.reopen(kind, dropping=dropping)

    def records(self, kind: str, model: type[Model], *, outcomes: Collection[Outcome] = ()) -> Iterator[Model]:
        """The records of this kind in order of their items (then replica, then as they were put), read page by page.

        Args:
            kind: Of record.
            model: Its type.
            outcomes: Only those of items that ended so; none named: all.
        """
        return self._records.records(kind, model, outcomes=outcomes)

    def record_keys(self, kind: str) -> Iterator[RecordKey]:
        """Where the records of this kind are, by uid, replica and sequence; no record is read for it."""
        return self._records.keys(kind)

    def records_of(self, kind: str, model: type[Model], uid: str, replica: int | None = None) -> list[tuple[int, Model]]:
        """The records of this kind of one item, or of one of its samples, each with its sequence."""
        return self._records.of_item(kind, model, uid, replica)

    def uids_with(self, kind: str, field: str, values: Collection[str]) -> set[str]:
        """Items with a record of this kind whose `field` is one of `values`."""
        return self._records.uids_with(kind, field, values)

    def count_records(self, kind: str) -> int:
        return self._records.count(kind)

    def damaged(self, kind: str) -> int:
        """How many of the records and measurements of this kind are not as they were written. They are all looked at once."""
        return self._records.damaged(kind)

    def put_measurements(self, kind: str, rows: Iterable[BaseModel]) -> None:
        """Make `rows` the measurements of this kind, in place of any before: what belongs to no item (evaluation answers …)."""
        with self.transaction():
            self._records.put_measurements(kind, rows)

    def measurements(self, kind: str, model: type[Model]) -> Iterator[Model]:
        """The measurements of this kind, as they were put."""
        return self._records.measurements(kind, model)

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
        self.calls.flush()  # and no transaction around it, which would be open while the files are read
        self._stages.put(name, fingerprint, summary, files=files)

    def stage(self, name: str) -> StageResult | None:
        """A finished stage, or None (also if the note of it is damaged: it is then done again, from stored calls).

        It is current when its fingerprint is that of today's inputs.
        """
        return self._stages.get(name)

    def files(self) -> list[WrittenFile]:
        """The files of all finished stages."""
        return self._stages.files()

    def forget_stage(self, name: str) -> None:
        """The stage counts as unfinished again; its records stay until it puts new ones."""
        with self.transaction():
            self._stages.forget(name)

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
