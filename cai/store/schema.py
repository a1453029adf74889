"""The tables of a run's database, as this version makes them, and the way there from earlier versions.

Knows SQL and checksums; opens no file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from cai.store.checksums import row_checksum

APPLICATION_ID = 0x43414931  # "CAI1": tells our file from any other SQLite file
SCHEMA_VERSION = 2
"""1: no checksums, and rules of the ledger that held only with foreign keys on. 2: `schema.sql` as it stands."""


def create_schema(connection: sqlite3.Connection) -> None:
    """Make all tables, indices and triggers; the caller holds the transaction."""
    for statement in _statements():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a database of an earlier schema to this one; the caller holds the transaction, foreign keys are off.

    Raises:
        sqlite3.IntegrityError: If its ledger breaks a rule of this version.
    """
    assert version == 1, "the only earlier version"
    for kind, name in connection.execute(
        "SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'table'"
    ).fetchall():
        connection.execute(f'DROP {kind} "{name}"')
    tables = ("calls", "items", "ledger", "records", "measurements", "stages")
    for table in tables:
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
    create_schema(connection)
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


def missing_rules(connection: sqlite3.Connection) -> list[str]:
    """Tables, indices and triggers of this version that are not as they were made, and triggers of somebody else's."""
    found = _objects(connection)
    wanted = _wanted_objects()
    changed = [name for name, definition in wanted.items() if found.get(name) != definition]
    foreign = [name for name, (kind, _) in found.items() if kind == "trigger" and name not in wanted]
    return sorted(changed + foreign)


def _copy(connection: sqlite3.Connection, select: str, table: str) -> None:
    """All rows of a SELECT into `table`, each with its checksum as the last column."""
    rows = connection.execute(select)
    marks = ", ".join("?" * (len(rows.description) + 1))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", ((*row, row_checksum(*row)) for row in rows))  # noqa: S608


def _statements() -> Iterator[str]:
    statement = ""
    for line in resources.files("cai.store").joinpath("schema.sql").read_text(encoding="utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _objects(connection: sqlite3.Connection) -> dict[str, tuple[str, Any]]:
    rows = connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master").fetchall()
    return {name: (kind, (table, sql)) for name, kind, table, sql in rows}


@cache
def _wanted_objects() -> dict[str, tuple[str, Any]]:
    connection = sqlite3.connect(":memory:")
    try:
        create_schema(connection)
        return _objects(connection)
    finally:
        connection.close()
