"""Run folders into one: what the shards of a run made, put together in the database of another folder.

Rows are copied by SQLite, from file to file: nothing is parsed, and memory does not grow with them.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cai.errors import StoreError
from cai.store.database import Database


def clear(database: Database) -> None:
    """Take out input rows with their outcomes and records, and the finished stages. Model calls stay."""
    with database.transaction() as connection:
        for table in ("stages", "measurements", "records", "items"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 (names from the line above)


def join(database: Database, other: Path) -> None:
    """Add the input rows of the database `other`, their outcomes and records, and its model calls; all or none.

    Raises:
        StoreError: If a row is there already, or the files do not fit together.
    """
    with database.attached(other) as connection, database.transaction():
        try:
            connection.execute("INSERT INTO items SELECT * FROM other.items")
        except sqlite3.IntegrityError as error:
            raise StoreError(
                f"{other}: an input row of it stands in another shard too.", "Each input row belongs to one shard."
            ) from error
        connection.execute(
            "UPDATE ledger SET outcome = theirs.outcome, reason = theirs.reason FROM other.ledger AS theirs "
            "WHERE ledger.uid = theirs.uid AND ledger.replica = theirs.replica"
        )
        connection.execute("INSERT INTO records SELECT * FROM other.records")
        connection.execute("INSERT OR IGNORE INTO calls SELECT * FROM other.calls")
