"""The SQLite file of a run: schema, durable transactions, and errors a user can act on.

Knows SQLite; knows no records. WAL with `synchronous=FULL`: what a commit has returned from survives a kill and a power cut.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

from cai.errors import StoreError
from cai.store.files import RESUME_HINT

APPLICATION_ID = 0x43414931  # "CAI1": tells our file from any other SQLite file
SCHEMA_VERSION = 1


class Database:
    """One connection, usable from several threads, one transaction at a time.

    Args:
        path: The file; made, with the schema, when it is missing or empty.
        read_only: Open without writing anything, also while another process writes. The file must exist.

    Raises:
        StoreError: If the file is corrupt, another program's, or of a newer version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._owner = 0
        with self._errors():
            self._connection = _connect_read_only(path) if read_only else _connect(path)
            try:
                self._prepare(read_only=read_only)
            except BaseException:
                self._connection.close()
                raise

    @property
    def in_transaction(self) -> bool:
        """Whether the calling thread is inside a transaction."""
        return self._depth > 0 and self._owner == threading.get_ident()

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """All of the block or nothing of it, on the disk when the block is left. Blocks may be nested: the outermost counts."""
        with self._lock, self._errors():
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            self._owner = threading.get_ident()
            try:
                yield self._connection
                if self._depth == 1:
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._depth == 1 and self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def attached(self, path: Path) -> Generator[sqlite3.Connection]:
        """The database of another run beside this one, as `other`, for reading. Not inside a transaction."""
        with self._lock, self._errors():
            self._connection.execute("ATTACH DATABASE ? AS other", (_read_only_address(path),))
            try:
                yield self._connection
            finally:
                self._connection.execute("DETACH DATABASE other")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with self._lock, self._errors():
            return self._connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def _prepare(self, *, read_only: bool) -> None:
        connection = self._connection
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        # A process killed while it made the file leaves an empty one: it is made anew, nothing is lost.
        fresh = application == 0 and version == 0 and tables == 0
        if not fresh and application != APPLICATION_ID:
            raise StoreError(f"{self.path}: a database, but not one of this program.", "Choose another run folder.")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: written by a newer version of this program (schema {version}; this one knows {SCHEMA_VERSION}).",
                "Upgrade with `pip install -U constitution-cai`, or choose another run folder.",
            )
        if fresh and read_only:
            raise StoreError(f"{self.path}: the run has not begun; there is nothing to read.", "Start it with `cai run`.")
        if fresh:
            connection.execute("PRAGMA journal_mode = WAL")
        if not read_only:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        if fresh:
            schema = resources.files("cai.store").joinpath("schema.sql").read_text(encoding="utf-8")
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            connection.executescript(f"BEGIN IMMEDIATE; {marks} {schema}; COMMIT;")
            return
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise self._corrupt(str(problem))

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # a broken invariant of ours, told by who made the call
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return self._corrupt(str(error))
        safe = "Everything committed before is safe."
        if name.startswith("SQLITE_FULL"):
            return StoreError(f"{self.path}: the disk is full. {safe}", f"Free some space, then {RESUME_HINT}")
        if name.startswith("SQLITE_IOERR"):
            return StoreError(
                f"{self.path}: the disk refused to read or write ({error}). {safe}",
                f"Check free space, quota and the disk itself, then {RESUME_HINT}",
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return StoreError(
                f"{self.path}: cannot be opened for writing ({error}). {safe}",
                "Make the run folder writable, or choose another one.",
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreError(
                f"{self.path}: another program keeps the database locked. {safe}", f"Close it, then {RESUME_HINT}"
            )
        return StoreError(f"{self.path}: {error}. {safe}", f"Please report this; meanwhile {RESUME_HINT}")

    def _corrupt(self, problem: str) -> StoreError:
        aside = self.path.with_name(f"{self.path.stem}-broken{self.path.suffix}")
        return StoreError(
            f"{self.path}: the database is damaged ({problem.splitlines()[0]}). Nothing was changed or deleted.",
            f"To save finished model calls: `sqlite3 {self.path} .recover | sqlite3 {aside}`. "
            f"To begin anew: move {self.path} and {self.path}-wal elsewhere, then run the same command.",
        )


def _connect(path: Path) -> sqlite3.Connection:
    # A URI, so that what is attached to it may be one.
    return sqlite3.connect(path.resolve().as_uri(), uri=True, timeout=30, isolation_level=None, check_same_thread=False)


def _read_only_address(path: Path) -> str:
    address = f"{path.resolve().as_uri()}?mode=ro"
    # Nobody has it open, or has had it when it was killed: as a plain file, a reader leaves no index of the log behind.
    return address if path.with_name(f"{path.name}-wal").exists() else f"{address}&immutable=1"


def _connect_read_only(path: Path) -> sqlite3.Connection:
    address = _read_only_address(path)
    connection = sqlite3.connect(address, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        # A WAL database in a folder nobody can write has no place for its index: read the file as it stands.
        connection.close()
        address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    return connection
