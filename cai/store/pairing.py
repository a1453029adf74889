"""Two runs side by side: which rows they share, and how far these are the same. SQLite joins the files; no row is parsed here.

Reads only. Rows belong together by uid and replica, which are the same wherever the same input row was read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.records import RecordKind
from cai.store.database import Database
from cai.store.run_folder import DATABASE_NAME

# A byte that was flipped may have left what is no JSON: such a body has no field, and differs from any other.
_FIELD = "iif(json_valid({body}), json_extract({body}, '$.{name}'), {body})"

_WANTED = " AND EXISTS (SELECT 1 FROM other.items AS wanted WHERE wanted.uid = own.uid AND wanted.replica = own.replica)"


@dataclass(frozen=True, slots=True)
class Common:
    """Rows of one kind in two runs. `common` of them are in both, `different` of these are not the same."""

    common: int
    different: int
    only_first: int
    only_second: int

    @property
    def alike(self) -> bool:
        return not (self.different or self.only_first or self.only_second)


@dataclass(frozen=True, slots=True)
class Labels:
    """Pairs of the same two answers that both runs judged.

    Args:
        judged: So many.
        decided: Labelled in both.
        flips: Of the decided, those whose better answer is the other one.
        undecided_once: Labelled in one run only.
        mean_change: Of the probability that the first run's chosen answer is the better one, over the decided; its size.
    """

    judged: int
    decided: int
    flips: int
    undecided_once: int
    mean_change: float | None


class PairedRuns:
    """The databases of two runs, open together.

    Args:
        connection: On the first run's database; the second one is attached as `other`.
        of_second: Rows of the first run that are no input of the second do not count.
    """

    def __init__(self, connection: sqlite3.Connection, *, of_second: bool = False) -> None:
        self._connection = connection
        self._wanted = _WANTED if of_second else ""

    def items(self) -> Common:
        """Input rows: what was asked, with its tags and facts. Where a row was read from does not matter."""
        one, other = _without_source("items"), _without_source("theirs")
        return self._common("items", f"({one}) IS NOT ({other})", "replica = 0")

    def records(self, kind: RecordKind) -> Common:
        """Records of a kind, whole ones: same row, same place among those of its row."""
        condition = "kind = :kind"
        join = "items.kind = theirs.kind AND items.sequence = theirs.sequence"
        # The sequence counts from 1 for each row; equal checksums of equal names are equal texts.
        return self._common("records", "items.body IS NOT theirs.body", condition, join, {"kind": kind.value})

    def texts(self, field: str) -> Common:
        """One field of the records of the loop (`draft`), compared among rows that both runs have finished."""
        one, other = _FIELD.format(body="items.body", name=field), _FIELD.format(body="theirs.body", name=field)
        different = f"items.body IS NOT theirs.body AND ({one}) IS NOT ({other})"
        return self._common(
            "records", different, "kind = :kind", "items.kind = theirs.kind", {"kind": RecordKind.REVISION.value}
        )

    def outcomes(self) -> list[tuple[str, str, int]]:
        """(outcome in the first run, outcome in the second, rows): of the rows in both."""
        return self._connection.execute(
            "SELECT mine.outcome, theirs.outcome, count(*) FROM main.ledger AS mine JOIN other.ledger AS theirs "
            "USING (uid, replica) GROUP BY 1, 2 ORDER BY 1, 2"
        ).fetchall()

    def changed_rows(self, limit: int) -> list[tuple[str, int]]:
        """The first rows, in order of input, whose records of the loop are not the same."""
        return self._connection.execute(
            "SELECT mine.uid, mine.replica FROM main.records AS mine JOIN other.records AS theirs "
            "ON theirs.kind = mine.kind AND theirs.uid = mine.uid AND theirs.replica = mine.replica "
            "JOIN main.items AS own ON own.uid = mine.uid AND own.replica = mine.replica "
            "WHERE mine.kind = ? AND mine.body IS NOT theirs.body ORDER BY own.position, own.replica LIMIT ?",
            (RecordKind.REVISION.value, limit),
        ).fetchall()

    def labels(self) -> Labels:
        """How two runs labelled pairs of the same two answers."""
        judged = decided = flips = once = 0
        change = 0.0
        for kind, body, other_kind, other_body in self._pairs():
            if body is None:  # one record, word for word
                judged += 1
                decided += kind == RecordKind.PREFERENCE
                continue
            mine, theirs = _judged(kind, body), _judged(other_kind, other_body)
            if {mine["first"], mine["second"]} != {theirs["first"], theirs["second"]}:
                continue
            judged += 1
            p, q = mine["p"], theirs["p"]
            if p is None or q is None:
                once += (p is None) != (q is None)
                continue
            decided += 1
            same = mine["first"] == theirs["first"]
            flips += not same
            change += abs(p - (q if same else 1 - q))
        return Labels(judged, decided, flips, once, change / decided if decided else None)

    def _pairs(self) -> Iterator[tuple[str, str | None, str, str]]:
        """Kind and body of every judged pair, in the first run and in the second; no bodies where they are the same."""
        kinds = f"('{RecordKind.PREFERENCE.value}', '{RecordKind.UNDECIDED.value}')"
        same = "mine.kind = theirs.kind AND mine.body = theirs.body"
        number = "coalesce(json_extract({}.body, '$.number'), 0)"
        yield from self._connection.execute(
            f"SELECT mine.kind, iif({same}, NULL, mine.body), theirs.kind, iif({same}, NULL, theirs.body) "  # noqa: S608
            "FROM main.records AS mine JOIN other.records AS theirs "
            "ON mine.uid = theirs.uid AND mine.replica = theirs.replica "
            f"WHERE mine.kind IN {kinds} AND theirs.kind IN {kinds} "
            f"AND ({same} OR {number.format('mine')} = {number.format('theirs')})"
        )

    def _common(
        self, table: str, different: str, condition: str, join: str = "TRUE", names: dict[str, str] | None = None
    ) -> Common:
        names = names or {}
        common, changed = self._connection.execute(
            f"SELECT count(*), coalesce(sum({different}), 0) FROM main.{table} AS items JOIN other.{table} AS theirs "  # noqa: S608
            f"ON items.uid = theirs.uid AND items.replica = theirs.replica AND {join} WHERE items.{condition}",
            names,
        ).fetchone()
        first, second = (
            self._connection.execute(f"SELECT count(*) FROM {where}.{table} AS own WHERE own.{which}", names).fetchone()[0]  # noqa: S608
            for where, which in (("main", condition + self._wanted), ("other", condition))
        )
        return Common(common, changed, first - common, second - common)


@contextmanager
def paired(first: Path, second: Path, *, of_second: bool = False) -> Generator[PairedRuns]:
    """Two run folders, open for reading together; `of_second` as in `PairedRuns`.

    Raises:
        StoreError: If one of them holds no run, or is damaged.
    """
    database = Database(first / DATABASE_NAME, read_only=True, checked=False)
    try:
        with database.attached(second / DATABASE_NAME) as connection:
            yield PairedRuns(connection, of_second=of_second)
    finally:
        database.close()


def _without_source(table: str) -> str:
    return f"iif(json_valid({table}.body), json_remove({table}.body, '$.source'), {table}.body)"


def _judged(kind: str, body: str) -> dict[str, Any]:
    """The two answers of a pair, the better one first where there is a label, with its probability."""
    record = json.loads(body)
    if kind == RecordKind.PREFERENCE.value:
        return {"first": record["chosen"], "second": record["rejected"], "p": record["p_chosen"]}
    return {"first": record["first"], "second": record["second"], "p": None}
