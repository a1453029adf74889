"""Every input row of a run, checked, on the disk: memory does not grow with the rows.

The rows lie in a temporary SQLite database of the process, which is gone when it ends; few rows never reach the disk. SQLite
also does what would need a table of all rows: telling names apart, drawing an order, finding equal conversations.
"""

from __future__ import annotations

import hashlib
import sqlite3
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Generic, TypeVar, overload

from cai.errors import DataError
from cai.records import FailureRecord, Item
from cai.store.canonical import fingerprint

CACHE_KIB = 2048
ROWS_PER_PAGE = 250

_ITEMS = """
CREATE TABLE items (
    place INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    held_out INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL
);
"""
_SCHEMA = f"""
{_ITEMS}
CREATE TABLE failures (place INTEGER PRIMARY KEY, uid TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE names (uid TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE conversations (digest BLOB NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (digest, place)) WITHOUT ROWID;
"""

Row = TypeVar("Row", Item, FailureRecord)


class StoredRows(Sequence[Row], Generic[Row]):
    """Rows of a corpus as a sequence: read page by page when it is gone through, again each time."""

    def __init__(self, corpus: Corpus, model: type[Row], table: str, condition: str = "TRUE") -> None:
        self._corpus = corpus
        self._model = model
        self._table = table
        self._condition = condition

    def __len__(self) -> int:
        return self._corpus.query(f"SELECT count(*) FROM {self._table} WHERE {self._condition}")[0][0]  # noqa: S608

    def __iter__(self) -> Iterator[Row]:
        for _, row in self.placed():
            yield row

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        start, stop, step = (index if isinstance(index, slice) else slice(index, index + 1 or None)).indices(len(self))
        found = tuple(islice(self, start, stop, step))
        if isinstance(index, slice):
            return found
        if not found:
            raise IndexError(index)
        return found[0]

    def placed(self) -> Iterator[tuple[int, Row]]:
        """Each row with its place among the rows of its table, before any were left out."""
        for place, body in self._corpus.pages(self._table, "body", self._condition):
            yield place, self._model.model_validate_json(body)


class Corpus:
    """The input rows of a run, in order: items, and rows that could not be read."""

    def __init__(self) -> None:
        # The empty name is SQLite's for a file of its own making that nobody else sees.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._close = weakref.finalize(self, self._connection.close)
        with _explained():
            self._connection.executescript(f"PRAGMA cache_size = -{CACHE_KIB}; PRAGMA journal_mode = OFF; {_SCHEMA} BEGIN;")
        self._whole: int | None = None

    @classmethod
    def of(cls, items: Iterable[Item]) -> Corpus:
        """These items, whose uids differ."""
        corpus = cls()
        for item in items:
            corpus.add(item)
        return corpus

    @property
    def items(self) -> StoredRows[Item]:
        return StoredRows(self, Item, "items")

    @property
    def training_items(self) -> StoredRows[Item]:
        """The items that go through the loop."""
        return StoredRows(self, Item, "items", "NOT held_out")

    @property
    def held_out_items(self) -> StoredRows[Item]:
        """The items kept for before and after: no model is trained on them."""
        return StoredRows(self, Item, "items", "held_out")

    @property
    def failures(self) -> StoredRows[FailureRecord]:
        """The rows that could not be read."""
        return StoredRows(self, FailureRecord, "failures")

    def positions(self) -> Iterator[int]:
        """The place of each item, then of each failure, in the whole input: 0, 1, 2 … unless rows were left out."""
        whole = self._last_item() if self._whole is None else self._whole
        items = (place - 1 for (place,) in self.pages("items"))
        return chain(items, (whole + place - 1 for (place,) in self.pages("failures")))

    # ---- filling it

    def unique(self, uid: str) -> str:
        """`uid`, or `uid#2`, `uid#3` … when it was given before."""
        with _explained():
            (times,) = self._connection.execute(
                "INSERT INTO names VALUES (?, 1) ON CONFLICT (uid) DO UPDATE SET times = times + 1 RETURNING times", (uid,)
            ).fetchone()
        return uid if times == 1 else self.unique(f"{uid}#{times}")

    def add(self, row: Item | FailureRecord) -> None:
        """Put a row at the end."""
        table = "items" if isinstance(row, Item) else "failures"
        with _explained():
            self._connection.execute(
                f"INSERT INTO {table} (uid, body) VALUES (?, ?)",  # noqa: S608 (one of two names)
                (row.uid, row.model_dump_json()),
            )

    def shuffle(self, seed: int, limit: int | None = None) -> None:
        """Draw the items' order, and keep the first `limit`.

        Each item's place depends on the seed and its uid alone: rows added elsewhere move nobody relative to another.
        """

        def drawn(uid: str) -> bytes:
            return hashlib.sha256(f"{seed}/{uid}".encode()).digest()

        with _explained():
            self._connection.create_function("drawn", 1, drawn, deterministic=True)
            self._connection.execute("ALTER TABLE items RENAME TO unordered")
            self._connection.execute(_ITEMS)
            self._connection.execute(
                "INSERT INTO items (place, uid, body) "
                "SELECT row_number() OVER (ORDER BY drawn(uid), uid), uid, body FROM unordered ORDER BY 1 LIMIT ?",
                (-1 if limit is None else limit,),
            )
            self._connection.execute("DROP TABLE unordered")

    def hold_out(self, share: float, seed: int) -> None:
        """Hold out whole groups of equal conversations, until they are about `share` of the items.

        A prompt that stands in the input twice is either trained on or held out, never both. Which, depends on the seed and
        the conversation alone, so the order of the rows does not matter. Something is always left to train on.
        """
        most = round(len(self.items) * share)
        if not most:
            return
        digests = (
            (bytes.fromhex(fingerprint([seed, "held out", item.messages])), place) for place, item in self.items.placed()
        )
        with _explained():
            self._connection.executemany("INSERT INTO conversations VALUES (?, ?)", digests)
            (last,) = self._connection.execute("SELECT max(digest) FROM conversations").fetchone()
            groups = self._connection.execute(
                "SELECT digest, count(*) FROM conversations WHERE digest < ? GROUP BY digest ORDER BY digest", (last,)
            )
            held = 0
            for digest, size in groups:
                if held + size <= most:
                    held += size
                    self._connection.execute(
                        "UPDATE items SET held_out = 1 WHERE place IN (SELECT place FROM conversations WHERE digest = ?)",
                        (digest,),
                    )
                if held == most:
                    break
            groups.close()

    def keep(self, takes: Callable[[str], bool]) -> None:
        """Leave out every row whose uid is not taken; the others keep their places in the whole."""
        self._whole = self._last_item()
        with _explained():
            self._connection.create_function("takes", 1, takes, deterministic=True)
            for table in ("items", "failures"):
                self._connection.execute(f"DELETE FROM {table} WHERE NOT takes(uid)")  # noqa: S608

    # ---- reading it

    def fingerprint(self) -> str:
        """Of all rows in order: which there are, which are held out, which could not be read."""
        held_out = (bool(held) for _, held in self.pages("items", "held_out"))
        return input_fingerprint(zip(held_out, self.items, strict=True), self.failures)

    def pages(self, table: str, columns: str = "", condition: str = "TRUE") -> Iterator[tuple[Any, ...]]:
        """The rows of a table in order, as tuples of the place and the columns."""
        wanted = f"place, {columns}" if columns else "place"
        sql = f"SELECT {wanted} FROM {table} WHERE place > ? AND {condition} ORDER BY place LIMIT {ROWS_PER_PAGE}"  # noqa: S608
        after = 0
        while page := self.query(sql, (after,)):
            yield from page
            after = page[-1][0]

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with _explained():
            return self._connection.execute(sql, parameters).fetchall()

    def _last_item(self) -> int:
        return self.query("SELECT coalesce(max(place), 0) FROM items")[0][0]


def input_fingerprint(items: Iterable[tuple[bool, Item]], failures: Iterable[FailureRecord]) -> str:
    """SHA-256, as hex digits, over an input in order: (whether it is held out, item), then the rows that could not be read."""
    total = hashlib.sha256()
    for held_out, item in items:
        total.update(f"{'held out' if held_out else 'item'}\n{item.model_dump_json()}\n".encode())
    for failure in failures:
        total.update(f"unreadable\n{failure.model_dump_json()}\n".encode())
    return total.hexdigest()


@contextmanager
def _explained() -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DataError(
            f"The prompts cannot be kept in a temporary file ({error}).",
            "Free space in the folder for temporary files, or name another: SQLITE_TMPDIR=/path/to/folder.",
        ) from error
