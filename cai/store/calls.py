"""The memo: every finished model call, by the key of exactly what determines its answer.

Finished calls gather in memory and are committed together: by count, by time and before anything else is written.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cai.errors import StoreError
from cai.store.database import Database

COMMIT_SECONDS = 1.0
"""A finished call waits no longer than this for its commit, also while the engine computes the next batch."""

KEYS_PER_QUERY = 500


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
    """Finished calls of one run: those on the disk and those waiting for the next commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, StoredCall] = {}
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._late_problem: StoreError | None = None

    @property
    def waiting(self) -> int:
        """How many finished calls are not committed yet."""
        return len(self._waiting)

    def find(self, keys: Sequence[str]) -> dict[str, StoredCall]:
        """The stored calls among `keys`."""
        with self._lock:
            found = {key: self._waiting[key] for key in keys if key in self._waiting}
        for some in _batches(keys):
            marks = ",".join("?" * len(some))
            rows = self._database.query(
                "SELECT key, kind, stage, result, prompt_tokens, completion_tokens, seconds "  # noqa: S608 (only question marks)
                f"FROM calls WHERE key IN ({marks})",
                some,
            )
            found |= {row[0]: StoredCall(*row) for row in rows}
        return found

    def add(self, *calls: StoredCall) -> None:
        """Keep finished calls, in one commit; on the disk within `COMMIT_SECONDS` or at the next `flush`.

        Raises:
            StoreError: If a commit in the background failed since the last call.
        """
        with self._lock:
            if self._late_problem is not None:
                problem, self._late_problem = self._late_problem, None
                raise problem
            self._waiting |= {call.key: call for call in calls}
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
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO calls (key, kind, stage, result, prompt_tokens, completion_tokens, seconds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(c.key, c.kind, c.stage, c.result, c.prompt_tokens, c.completion_tokens, c.seconds) for c in waiting],
            )
        with self._lock:
            for call in waiting:
                self._waiting.pop(call.key, None)

    def examples(self, stage: str, kind: Literal["generate", "score"], limit: int) -> list[str]:
        """Results of up to `limit` answered calls of one stage, as JSON: drawn by their keys, so always alike."""
        rows = self._database.query(
            "SELECT result FROM calls WHERE stage = ? AND kind = ? AND json_extract(result, '$.cause') IS NULL "
            "ORDER BY key LIMIT ?",
            (stage, kind, limit),
        )
        return [result for (result,) in rows]

    def usage(self) -> dict[str, Usage]:
        """What every stage has cost in this run folder, over all its processes. `reused` is 0: it belongs to a process."""
        self.flush()
        rows = self._database.query(
            "SELECT stage, count(*), sum(json_extract(result, '$.cause') IS NOT NULL), "
            "sum(prompt_tokens), sum(completion_tokens), sum(seconds) FROM calls GROUP BY stage ORDER BY min(rowid)"
        )
        return {
            stage: Usage(calls=calls, failures=failures, prompt_tokens=prompt, completion_tokens=completion, seconds=seconds)
            for stage, calls, failures, prompt, completion, seconds in rows
        }

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


def _batches(keys: Sequence[str]) -> list[list[str]]:
    unique = list(dict.fromkeys(keys))
    return [unique[start : start + KEYS_PER_QUERY] for start in range(0, len(unique), KEYS_PER_QUERY)]
