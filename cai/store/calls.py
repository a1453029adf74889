"""The memo: every finished model call, by the key of exactly what determines its answer.

Finished calls gather in memory and are committed together: by count, by time and before anything else is written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cai.errors import StoreError
from cai.store.checksums import row_checksum
from cai.store.database import Database

COMMIT_SECONDS = 0.5
"""A finished call waits no longer than this for its commit, also while the engine computes the next batch."""

KEYS_PER_QUERY = 500

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredCall:
    """One finished call. `result` is its JSON text; `seconds` is the time it took of the engine's (shared out in a batch)."""

    key: str
    kind: Literal["generate", "score"]
    stage: str
    result: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    failed: bool = False
    """`result` is a failure that another try would not spare."""

    @property
    def row(self) -> tuple[str | float, ...]:
        """As it stands in the database, without its checksum."""
        figures = (self.prompt_tokens, self.completion_tokens, float(self.seconds), int(self.failed))
        return (self.key, self.kind, self.stage, self.result, *figures)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one stage asked of the model: `calls` were computed, `reused` were answered from the memo."""

    calls: int = 0
    reused: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            calls=self.calls + other.calls,
            reused=self.reused + other.reused,
            failures=self.failures + other.failures,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            seconds=self.seconds + other.seconds,
        )


class CallTable:
    """Finished calls of one run: those on the disk and those waiting for the next commit.

    A stored call whose checksum is not that of its row counts as not there: it is told, and computed again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, StoredCall] = {}
        self._damaged: set[str] = set()
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._late_problem: StoreError | None = None

    @property
    def waiting(self) -> int:
        """How many finished calls are not committed yet."""
        return len(self._waiting)

    @property
    def damaged(self) -> int:
        """How many stored calls this process asked for, found damaged, and has not put another in place of yet."""
        return len(self._damaged)

    def find(self, keys: Sequence[str]) -> dict[str, StoredCall]:
        """The stored calls among `keys`."""
        with self._lock:
            found = {key: self._waiting[key] for key in keys if key in self._waiting}
        damaged: set[str] = set()
        for some in _batches(keys):
            marks = ",".join("?" * len(some))
            for *row, checksum in self._database.query(f"SELECT * FROM calls WHERE key IN ({marks})", some):  # noqa: S608 (only question marks)
                if call := _sound(row, checksum):
                    found[call.key] = call
                elif row[0] not in found:
                    damaged.add(row[0])
        self._note_damaged(damaged)
        return found

    def stored(self) -> Iterator[StoredCall | None]:
        """Every call on the disk, read page by page; None for one that is damaged."""
        after = -1
        while page := self._database.query(
            "SELECT rowid, * FROM calls WHERE rowid > ? ORDER BY rowid LIMIT ?", (after, KEYS_PER_QUERY)
        ):
            for _, *row, checksum in page:
                yield _sound(row, checksum)
            after = page[-1][0]

    def add(self, *calls: StoredCall) -> None:
        """Keep finished calls, in one commit; on the disk within `COMMIT_SECONDS` or at the next `flush`.

        Raises:
            StoreError: If a commit in the background failed since the last call.
        """
        with self._lock:
            self._waiting |= {call.key: call for call in calls}
            if self._late_problem is not None:
                problem, self._late_problem = self._late_problem, None
                raise problem
            if self._waiting and self._timer is None:
                self._timer = threading.Timer(COMMIT_SECONDS, self._flush_late)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Commit what waits. Inside a transaction of someone else's nothing happens: theirs may yet be undone."""
        # Always the database first, then the buffer: `find` and the timer come from different threads.
        with self._lock:
            waiting = list(self._waiting.values())
        if not waiting or self._database.in_transaction:
            return
        with self._lock:
            mended = [call.key for call in waiting if call.key in self._damaged]
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM calls WHERE key = ?", [(key,) for key in mended])
            connection.executemany(
                "INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(*call.row, row_checksum(*call.row)) for call in waiting],
            )
        with self._lock:
            self._damaged.difference_update(mended)
            for call in waiting:
                self._waiting.pop(call.key, None)

    def examples(self, stage: str, kind: Literal["generate", "score"], limit: int) -> list[str]:
        """Results of up to `limit` answered calls of one stage, as JSON: drawn by their keys, so always alike."""
        rows = self._database.query(
            "SELECT * FROM calls WHERE stage = ? AND kind = ? AND NOT failed ORDER BY key LIMIT ?",
            (stage, kind, limit),
        )
        return [call.result for *row, checksum in rows if (call := _sound(row, checksum))]

    def usage(self) -> dict[str, Usage]:
        """What every stage has cost in this run folder, over all its processes. `reused` is 0: it belongs to a process."""
        self.flush()
        rows = self._database.query(
            "SELECT stage, count(*), sum(failed), sum(prompt_tokens), sum(completion_tokens), sum(seconds) "
            "FROM calls GROUP BY stage ORDER BY min(rowid)"
        )
        return {
            stage: Usage(calls=calls, failures=failures, prompt_tokens=prompt, completion_tokens=completion, seconds=seconds)
            for stage, calls, failures, prompt, completion, seconds in rows
        }

    def _note_damaged(self, keys: set[str]) -> None:
        with self._lock:
            fresh = keys - self._damaged
            self._damaged |= keys
        if fresh:
            some = "a stored model call is" if len(fresh) == 1 else f"{len(fresh)} stored model calls are"
            LOG.warning("%s: %s damaged and will be computed again; `cai doctor` says more.", self._database.path, some)

    def _flush_late(self) -> None:
        # One thread a second, however many commits there were meanwhile: what came after the timer began waits no longer.
        with self._lock:
            self._timer = None
        try:
            self.flush()
        except StoreError as problem:
            # A thread has nobody to tell: the next `add` of the main thread raises it, and the calls go on waiting.
            with self._lock:
                self._late_problem = problem


def _sound(row: Sequence[Any], checksum: bytes) -> StoredCall | None:
    """The call of a row as the database gives it; None if it is not what was written."""
    return StoredCall(*row[:7], failed=bool(row[7])) if row_checksum(*row) == checksum else None


def _batches(keys: Sequence[str]) -> list[list[str]]:
    unique = list(dict.fromkeys(keys))
    return [unique[start : start + KEYS_PER_QUERY] for start in range(0, len(unique), KEYS_PER_QUERY)]
