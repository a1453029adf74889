"""The tables of a run folder's databases, as this version makes them, and the way there from earlier versions.

Knows SQL and checksums; opens no file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from cai.store.checksums import row_checksum


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database of ours looks like.

    Args:
        file: Of SQL, beside this module: all tables, indices and triggers.
        application_id: Tells our file from any other SQLite file.
        version: Of the tables as they stand in `file`.
        migrate: Brings a database of an earlier version to this one; None where there is no earlier one. The caller holds the
            transaction, foreign keys are off. Raises `sqlite3.IntegrityError` for one that breaks a rule of this version.
        holds: What is lost with such a file, in words.
    """

    file: str
    application_id: int
    version: int
    migrate: Callable[[sqlite3.Connection, int], None] | None
    holds: str

    def create(self, connection: sqlite3.Connection) -> None:
        """Make all tables, indices and triggers; the caller holds the transaction."""
        for statement in self._statements():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {self.application_id}")
        connection.execute(f"PRAGMA user_version = {self.version}")

    def missing_rules(self, connection: sqlite3.Connection) -> list[str]:
        """Tables, indices and triggers of this version that are not as they were made, and triggers of somebody else's."""
        found = _objects(connection)
        wanted = _wanted_objects(self)
        changed = [name for name, definition in wanted.items() if found.get(name) != definition]
        foreign = [name for name, (kind, _) in found.items() if kind == "trigger" and name not in wanted]
        return sorted(changed + foreign)

    def _statements(self) -> Iterator[str]:
        statement = ""
        for line in resources.files("cai.store").joinpath(self.file).read_text(encoding="utf-8").splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""


def _migrate_run(connection: sqlite3.Connection, version: int) -> None:
    assert version == 1, "the only earlier version"
    for kind, name in connection.execute(
        "SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'table'"
    ).fetchall():
        connection.execute(f'DROP {kind} "{name}"')
    tables = ("calls", "items", "ledger", "records", "measurements", "stages")
    for table in tables:
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
    RUN_SCHEMA.create(connection)
    _copy(
        connection,
        "SELECT key, kind, stage, result, prompt_tokens, completion_tokens, seconds, "
        "json_extract(result, '$.cause') IS NOT NULL FROM calls_1 ORDER BY rowid",
        "calls",
    )
    _copy(connection, "SELECT uid, replica, position, readable, body FROM items_1 ORDER BY position, replica", "items")
    records = connection.execute("SELECT kind, uid, replica, sequence, body FROM records_1 ORDER BY rowid")
    connection.executemany(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
        ((*row, row_checksum(*row[:3], row[4])) for row in records),
    )
    _copy(connection, "SELECT kind, sequence, body FROM measurements_1", "measurements")
    _copy(connection, "SELECT name, fingerprint, summary FROM stages_1", "stages")
    connection.execute(
        "UPDATE ledger SET outcome = old.outcome, reason = old.reason FROM ledger_1 AS old "
        "WHERE ledger.uid = old.uid AND ledger.replica = old.replica"
    )
    for table in reversed(tables):
        connection.execute(f"DROP TABLE {table}_1")


def _copy(connection: sqlite3.Connection, select: str, table: str) -> None:
    """All rows of a SELECT into `table`, each with its checksum as the last column."""
    rows = connection.execute(select)
    marks = ", ".join("?" * (len(rows.description) + 1))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", ((*row, row_checksum(*row)) for row in rows))  # noqa: S608


def _objects(connection: sqlite3.Connection) -> dict[str, tuple[str, Any]]:
    rows = connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master").fetchall()
    return {name: (kind, (table, sql)) for name, kind, table, sql in rows}


@cache
def _wanted_objects(schema: Schema) -> dict[str, tuple[str, Any]]:
    connection = sqlite3.connect(":memory:")
    try:
        schema.create(connection)
        return _objects(connection)
    finally:
        connection.close()


RUN_SCHEMA = Schema("schema.sql", 0x43414931, 2, _migrate_run, "finished model calls")  # "CAI1"
"""1: no checksums, and rules of the ledger that held only with foreign keys on. 2: `schema.sql` as it stands."""
REVIEW_SCHEMA = Schema("review.sql", 0x43414952, 1, None, "people's verdicts")  # "CAIR"
