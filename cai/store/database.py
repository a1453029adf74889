"""A SQLite file of a run folder: schema, durable transactions, and errors a user can act on.

Knows SQLite; knows no records. WAL with `synchronous=FULL`: what a commit has returned from survives a kill and a power cut.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cai.errors import StoreError
from cai.store.files import PART_SUFFIX, RESUME_HINT
from cai.store.schema import RUN_SCHEMA, Schema

READS_BESIDE_A_WRITER = 20
LOCK_PATIENCE_S = 30.0
LOCK_POLL_S = 0.01

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class _FileState:
    """Of the database and of its write-ahead log: inode, size in bytes and time of change of each; None for no file."""

    database: tuple[int, int, int] | None
    log: tuple[int, int, int] | None

    @classmethod
    def of(cls, path: Path) -> _FileState:
        return cls(_state(path), _state(path.with_name(f"{path.name}-wal")))


class Database:
    """One connection, usable from several threads, one transaction at a time.

    Args:
        path: The file; made, with the schema, when it is missing or empty.
        read_only: Open without writing anything, also while another process writes. The file must exist.
        checked: Look through the whole file first (3 s for half a GB). Without, damage is found where it is read, if at all.
        schema: Its tables; those of `run.sqlite`.

    Raises:
        StoreError: If the file is corrupt, another program's, or of a newer version.
    """

    def __init__(self, path: Path, *, read_only: bool = False, checked: bool = True, schema: Schema = RUN_SCHEMA) -> None:
        self.path = path
        self._schema = schema
        self._lock = threading.RLock()
        self._depth = 0
        self._owner = 0
        self.stored_version = 0
        """Of the schema, when the file was opened; 0 for a file that was made now."""
        with self._errors():
            self._connection, self._seen = _connect_read_only(path) if read_only else (_connect(path), None)
            try:
                self._settled(lambda: self._prepare(read_only=read_only, checked=checked))
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
        """The database of another run beside this one, as `other`, for reading. Not inside a transaction.

        One of an earlier schema is read as a copy that was brought to this one; the file stays as it is.

        Raises:
            StoreError: If it is damaged, another program's or of a newer version.
        """
        with self._lock, self._errors(), _as_of_now(path, self._schema) as address:
            self._connection.execute("ATTACH DATABASE ? AS other", (address,))
            try:
                yield self._connection
            finally:
                self._connection.execute("DETACH DATABASE other")

    def copy_to(self, path: Path) -> None:
        """The whole database as it is open, in another file."""
        with self._lock, self._errors():
            copy = _opened(path.resolve().as_uri())
            try:
                self._connection.backup(copy)
            finally:
                copy.close()

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with self._lock, self._errors():
            return self._settled(lambda: self._connection.execute(sql, parameters).fetchall())

    def broken_rules(self) -> list[str]:
        """Tables, indices and triggers that are not as this version makes them, and rows that belong to nothing."""
        orphans = self.query('SELECT "table", count(*) FROM pragma_foreign_key_check GROUP BY "table"')
        with self._lock, self._errors():
            changed = self._settled(lambda: self._schema.missing_rules(self._connection))
        return [f"the definition of {name} was changed by hand" for name in changed] + [
            f"{count} rows of {table} belong to nothing" for table, count in orphans
        ]

    def close(self) -> None:
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def _settled(self, read: Callable[[], Read]) -> Read:
        """What `read` gives: done again, with the file opened anew, if a writer came while it was read as a plain file."""
        for _ in range(READS_BESIDE_A_WRITER):
            try:
                found = read()
            except (sqlite3.Error, StoreError):
                if not self._changed():
                    raise
            else:
                if not self._changed():
                    return found
            self._connection.close()
            self._connection, self._seen = _connect_read_only(self.path)
        raise StoreError(f"{self.path}: another process changes it faster than it can be read.", "Try again in a moment.")

    def _changed(self) -> bool:
        return self._seen is not None and self._seen != _FileState.of(self.path)

    def _prepare(self, *, read_only: bool, checked: bool) -> None:
        version = self.stored_version = self._version()
        if version == 0 and read_only:
            raise StoreError(f"{self.path}: the run has not begun; there is nothing to read.", "Start it with `cai run`.")
        if not read_only:
            self._log_ahead()
            self._connection.execute("PRAGMA synchronous = FULL")
        if version and checked:
            self._check()
        if version < self._schema.version:
            if read_only:
                self._connection, self._seen = _copy_in_memory(self._connection), None
            elif version:
                self._keep_copy(version)
            self._upgrade()
        if not read_only:
            if rules := self._schema.missing_rules(self._connection):
                raise self._corrupt(f"somebody changed the definition of {', '.join(rules[:3])}")
            self._connection.execute("PRAGMA foreign_keys = ON")

    def _log_ahead(self) -> None:
        """Turn the write-ahead log on. SQLite does not wait here for others who do the same to a new file: so we do."""
        give_up = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(LOCK_POLL_S)
            else:
                return

    def _version(self) -> int:
        """Of the schema; 0 for a file with nothing in it yet."""
        application, version, tables = self._header()
        # A process killed while it made the file leaves an empty one: it is made anew, nothing is lost.
        if application == 0 and version == 0 and tables == 0:
            return 0
        if application != self._schema.application_id:
            raise StoreError(f"{self.path}: a database, but not one of this program.", "Choose another run folder.")
        if version > self._schema.version:
            raise StoreError(
                f"{self.path}: written by a newer version of this program "
                f"(schema {version}; this one knows {self._schema.version}).",
                "Upgrade with `pip install -U constitution-cai`, or choose another run folder.",
            )
        if version < 1:
            raise self._corrupt(f"it says that its schema is {version}")
        return version

    def _header(self) -> tuple[int, int, int]:
        """Application, version of the schema, number of tables, all of one moment: another process may be making the file."""
        inside = self._connection.in_transaction
        if not inside:
            self._connection.execute("BEGIN")
        try:
            application = self._connection.execute("PRAGMA application_id").fetchone()[0]
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        finally:
            if not inside:
                self._connection.execute("ROLLBACK")
        return application, version, tables

    def _check(self) -> None:
        # Not the quick check: whether indices agree with their tables is what finds a byte flipped in a key or in the ledger.
        problem = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise self._corrupt(str(problem))

    def _keep_copy(self, version: int) -> None:
        """The file as it is, beside it: whoever goes back to the version that wrote it finds it there."""
        kept = self.path.with_name(f"{self.path.stem}-schema-{version}{self.path.suffix}")
        part = kept.with_name(f".{kept.name}{PART_SUFFIX}")
        part.unlink(missing_ok=True)
        self.copy_to(part)
        part.replace(kept)

    def _upgrade(self) -> None:
        """Make the schema, or bring that of an earlier version here: all of it or nothing."""
        version = 0
        try:
            with self.transaction() as connection:
                version = self._version()  # once more: another process may have done it meanwhile
                if version == 0:
                    self._schema.create(connection)
                elif version < self._schema.version:
                    assert self._schema.migrate is not None, "there is no earlier version of this schema"
                    self._schema.migrate(connection, version)
        except sqlite3.IntegrityError as error:
            raise self._corrupt(f"schema {version}, and its ledger does not balance: {error}") from error

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # a broken invariant of ours, told by who made the call
        except sqlite3.Error as error:
            raise self._explained(error) from error
        except UnicodeDecodeError as error:  # SQLite quotes the damaged bytes in its message
            raise self._corrupt("its schema is no text") from error

    def _explained(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "unknown function" in str(error):
            return self._corrupt(str(error))  # the schema calls no function that SQLite lacks, unless its text was damaged
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
            f"To save {self._schema.holds}: `sqlite3 {self.path} .recover | sqlite3 {aside}`. "
            f"To begin anew: move {self.path} and {self.path}-wal elsewhere, then run the same command.",
        )


@contextmanager
def _as_of_now(path: Path, schema: Schema) -> Generator[str]:
    """The address of a database for reading; of an earlier schema: that of a copy on the disk, for as long as the block."""
    opened = Database(path, read_only=True, checked=False, schema=schema)
    try:
        if opened.stored_version == schema.version:
            yield _read_only_address(path)
            return
        with tempfile.TemporaryDirectory(prefix="cai-earlier-schema-") as folder:
            copy = Path(folder) / path.name
            opened.copy_to(copy)
            yield _read_only_address(copy)
    finally:
        opened.close()


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _opened(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=LOCK_PATIENCE_S, isolation_level=None, check_same_thread=False)
    # A flipped byte may leave what is no UTF-8: the row's checksum finds it, not an error that takes all rows with it.
    connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    return _opened(path.resolve().as_uri())  # an address, so that what is attached to it may be one


def _copy_in_memory(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The whole database without its file: where an earlier schema is brought here and the file may not be written."""
    copy = _opened("file::memory:")
    connection.backup(copy)
    connection.close()
    return copy


def _read_only_address(path: Path, *, plain: bool | None = None) -> str:
    """For reading; `plain`: as the file stands, without its log. By default so where there is none.

    Then nobody has it open or has had it when it was killed, and no index of the log is left behind.
    """
    if plain is None:
        plain = _FileState.of(path).log is None
    return f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if plain else ''}"


def _connect_read_only(path: Path) -> tuple[sqlite3.Connection, _FileState | None]:
    """A connection that writes nothing, and, where it takes the file as it stands, what the file was when it was opened."""
    seen = _FileState.of(path)
    if seen.log is not None:
        connection = _opened(_read_only_address(path, plain=False))
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError:
            connection.close()  # in a folder that nobody can write, the index of the log has no place
        else:
            return connection, None
    return _opened(_read_only_address(path, plain=True)), seen
