"""Items and how each of them ended. The ledger balances: every input row has exactly one outcome, by constraint."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import count, islice, zip_longest
from typing import Any

from cai.errors import StoreError
from cai.records import FailureRecord, Item, LedgerEntry, Outcome, RecordKind, Stage
from cai.store.checksums import row_checksum
from cai.store.database import Database

ROWS_PER_PAGE = 250
COLUMNS = "uid, replica, position, readable, body, checksum"

# One statement, so that it sees one moment of a run that goes on.
CONTRADICTIONS = """
    SELECT 'input rows without an outcome', count(*) FROM items LEFT JOIN ledger USING (uid, replica) WHERE outcome IS NULL
    UNION ALL
    SELECT 'outcomes without an input row', count(*) FROM ledger LEFT JOIN items USING (uid, replica) WHERE position IS NULL
    UNION ALL
    SELECT 'outcomes "pair" without a labelled pair', count(*) FROM ledger WHERE outcome = 'pair'
        AND NOT EXISTS (SELECT 1 FROM records AS r WHERE r.kind = :pair AND r.uid = ledger.uid AND r.replica = ledger.replica)
    UNION ALL
    SELECT 'labelled pairs whose outcome is not "pair"', count(*) FROM records JOIN ledger USING (uid, replica)
        WHERE kind = :pair AND outcome <> 'pair'
    UNION ALL
    SELECT 'failed rows without a record of the failure', count(*) FROM ledger JOIN items USING (uid, replica)
        WHERE outcome = 'failed' AND readable
        AND NOT EXISTS (
            SELECT 1 FROM records AS r WHERE r.kind = :failure AND r.uid = ledger.uid AND r.replica = ledger.replica
        )
    UNION ALL
    SELECT 'rows with a record of a failure that have another outcome', count(*) FROM records JOIN ledger USING (uid, replica)
        WHERE kind = :failure AND outcome <> 'failed'
    UNION ALL
    SELECT 'input rows still pending after the labels', count(*) FROM ledger WHERE outcome = 'pending'
        AND EXISTS (SELECT 1 FROM stages WHERE name = :label)
"""


class Ledger:
    """The items of one run, in order, and the outcome of each (uid, replica)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_items(
        self,
        items: Iterable[Item],
        failures: Iterable[FailureRecord],
        *,
        replicas: int,
        positions: Callable[[], Iterator[int]] | None,
    ) -> bool:
        """Make these the input of the run (see `RunFolder.put_items`)."""

        def rows() -> Iterator[tuple[Any, ...]]:
            places = count() if positions is None else positions()
            for item in items:
                place, body = next(places), item.model_dump_json()
                for replica in range(replicas):
                    yield _row(item.uid, replica, place, 1, body)
            for failure in failures:
                yield _row(failure.uid, 0, next(places), 0, failure.model_dump_json())

        with self._database.transaction() as connection:
            if all(old == new for old, new in zip_longest(self._pages(COLUMNS, "items"), rows())):
                return False
            for table in ("stages", "records", "items"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 (names from the line above)
            try:
                connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", rows())
            except sqlite3.IntegrityError as error:
                raise ValueError("two input rows have one uid") from error
        return True

    def items(self) -> Iterator[Item]:
        for body in self._bodies("readable AND replica = 0"):
            yield Item.model_validate_json(body)

    def count_items(self, *, readable: bool) -> int:
        return self._database.query("SELECT count(*) FROM items WHERE readable = ? AND replica = 0", (readable,))[0][0]

    def uids_tagged(self, tags: Collection[str]) -> set[str]:
        marks = ",".join("?" * len(tags))
        rows = self._database.query(
            "SELECT DISTINCT uid FROM items, json_each(items.body, '$.tags') AS tag "  # noqa: S608 - question marks
            f"WHERE readable AND replica = 0 AND tag.value IN ({marks})",
            tuple(tags),
        )
        return {uid for (uid,) in rows}

    def settled_as(self, outcomes: Collection[Outcome]) -> Iterator[tuple[str, int]]:
        marks = ",".join("?" * len(outcomes))
        rows = self._database.query(
            f"SELECT uid, replica FROM ledger WHERE outcome IN ({marks})",  # noqa: S608 - question marks
            tuple(each.value for each in outcomes),
        )
        return ((uid, replica) for uid, replica in rows)

    def read_failures(self) -> Iterator[FailureRecord]:
        for body in self._bodies("NOT readable"):
            yield FailureRecord.model_validate_json(body)

    def _pages(self, columns: str, tables: str, condition: str = "TRUE") -> Iterator[tuple[Any, ...]]:
        """Rows in order of input, page by page; `columns` have `position` and `replica`."""
        names = [name.strip() for name in columns.split(",")]
        position, replica = names.index("position"), names.index("replica")
        sql = (
            f"SELECT {columns} FROM {tables} WHERE (position, replica) > (?, ?) AND {condition} "  # noqa: S608 (names of ours)
            f"ORDER BY position, replica LIMIT {ROWS_PER_PAGE}"
        )
        after = (-1, -1)
        while page := self._database.query(sql, after):
            yield from page
            after = (page[-1][position], page[-1][replica])

    def settle(self, entries: Iterable[LedgerEntry]) -> None:
        entries_left = iter(entries)
        with self._database.transaction() as connection:
            while some := list(islice(entries_left, ROWS_PER_PAGE)):
                rows = [(entry.outcome.value, entry.reason, entry.uid, entry.replica) for entry in some]
                changed = connection.executemany(
                    "UPDATE ledger SET outcome = ?, reason = ? WHERE uid = ? AND replica = ?", rows
                ).rowcount
                if changed != len(rows):
                    known = "SELECT 1 FROM items WHERE uid = ? AND replica = ?"
                    uid, replica = next(row[2:] for row in rows if not connection.execute(known, row[2:]).fetchall())
                    raise ValueError(f"no item {uid!r} (replica {replica}) in this run")

    def reset(self) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE ledger SET outcome = 'pending', reason = '' WHERE outcome <> 'pending' "
                "AND (SELECT readable FROM items WHERE items.uid = ledger.uid AND items.replica = ledger.replica)"
            )

    def entries(self) -> Iterator[LedgerEntry]:
        joined = "items CROSS JOIN ledger USING (uid, replica)"
        for _, replica, uid, outcome, reason in self._pages("position, replica, uid, outcome, reason", joined):
            yield LedgerEntry(uid=uid, replica=replica, outcome=Outcome(outcome), reason=reason)

    def counts(self) -> dict[Outcome, int]:
        found = dict(self._database.query("SELECT outcome, count(*) FROM ledger GROUP BY outcome"))
        return {outcome: found.get(outcome.value, 0) for outcome in Outcome}

    def reasons(self) -> dict[tuple[Outcome, str], int]:
        rows = self._database.query(
            "SELECT outcome, reason, count(*) FROM ledger GROUP BY outcome, reason ORDER BY outcome, reason"
        )
        return {(Outcome(outcome), reason): count for outcome, reason, count in rows}

    def assert_balanced(self, *, finished: bool) -> None:
        total = self._database.query("SELECT count(*) FROM items")[0][0]
        counts = self.counts()
        lines = ", ".join(f"{outcome.value} {count}" for outcome, count in counts.items())
        if sum(counts.values()) != total:
            raise StoreError(
                f"{self._database.path}: the ledger does not balance: {total} input rows, but {lines}.",
                "Someone changed the file by hand; begin anew in another run folder (model calls are kept here).",
            )
        if finished and counts[Outcome.PENDING]:
            some = self._database.query("SELECT uid, replica FROM ledger WHERE outcome = 'pending' LIMIT 3")
            names = ", ".join(f"{uid} (replica {replica})" for uid, replica in some)
            raise StoreError(
                f"{self._database.path}: {counts[Outcome.PENDING]} of {total} input rows have no outcome yet: {names} …",
                "Run the same command again: it goes on where it stopped.",
            )

    def contradictions(self) -> dict[str, int]:
        """What the ledger and the records say against each other, and how often; {} for a sound run."""
        names = {"pair": RecordKind.PREFERENCE, "failure": RecordKind.FAILURE, "label": Stage.LABEL}
        counted = self._database.query(CONTRADICTIONS, names)
        return {what: count for what, count in counted if count}

    def _bodies(self, which: str) -> Iterator[str]:
        for *row, checksum in self._pages(COLUMNS, "items", which):
            if row_checksum(*row) != checksum:
                raise StoreError(
                    f"{self._database.path}: the stored input row {row[0]!r} is damaged.",
                    "Run `cai run` again: input rows are read anew, and finished model calls are kept.",
                )
            yield row[4]


def _row(uid: str, replica: int, position: int, readable: int, body: str) -> tuple[str | int | bytes, ...]:
    return uid, replica, position, readable, body, row_checksum(uid, replica, position, readable, body)
