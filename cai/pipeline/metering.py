"""Gathers what stages tell and engines count, and passes it on: to whoever listens, and into the run folder for others.

Costs the stages next to nothing: what they tell is written down, and looked at ten times a second.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cai.engines.base import EngineStatistics
from cai.errors import StoreError
from cai.models.memory import memory_use
from cai.pipeline.events import Ended, OnProgress, ProgressEvent, RowsSettled
from cai.pipeline.pace import Pace
from cai.store import Usage
from cai.store.heartbeat import Figures, Heartbeat, StageCalls, StageProgress, State, write_heartbeat

LOOK_EVERY_S = 0.1
BEAT_EVERY_S = 1.0
RECENT_S = 60.0


@dataclass(frozen=True)
class Counted:
    """What the engines of a process have done so far: counters, calls by kind, and failures by `kind: cause`."""

    statistics: EngineStatistics = field(default_factory=EngineStatistics)
    usage: Mapping[str, Usage] = field(default_factory=dict[str, Usage])
    failures: Mapping[str, int] = field(default_factory=dict[str, int])

    def __add__(self, other: Counted) -> Counted:
        return Counted(
            add_statistics(self.statistics, other.statistics),
            {name: self.usage.get(name, Usage()) + other.usage.get(name, Usage()) for name in {**self.usage, **other.usage}},
            {name: self.failures.get(name, 0) + other.failures.get(name, 0) for name in {**self.failures, **other.failures}},
        )

    @property
    def reused(self) -> int:
        return sum(usage.reused for usage in self.usage.values())


def add_statistics(one: EngineStatistics, other: EngineStatistics) -> EngineStatistics:
    """Of two engines together."""
    return EngineStatistics(**{name: getattr(one, name) + getattr(other, name) for name in EngineStatistics.__slots__})


@dataclass(slots=True)
class _Line:
    """One stage: what was told last, and what was made of it."""

    stage: str
    phase: str
    began_s: float
    told_s: float = 0.0
    done: int = 0
    total: int = 0
    note: str = ""
    growing: bool = False
    earlier: int = 0
    """Units of chunks before the one in work: each chunk counts from 0."""
    seen: int = 0
    """Units finished when it was last looked at."""
    computed: float = 0.0
    """Units finished that were not answered from the store."""
    pace: Pace = field(default_factory=Pace)
    changed: bool = True
    ended: bool = False

    @property
    def finished(self) -> int:
        return self.earlier + self.done


class Meter:
    """The progress of one process. Stages `tell` it; use it in a `with` block, which a thread of its own accompanies.

    Args:
        on_progress: Told of everything; None: nobody listens.
        counted: Asks the engines; called from another thread too.
        folder: Of the run, where a heartbeat is left; None: nowhere.
    """

    def __init__(
        self,
        on_progress: OnProgress | None = None,
        counted: Callable[[], Counted] = Counted,
        folder: Path | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._counted = counted
        self._folder = folder
        self._lines: dict[str, _Line] = {}
        self._phase = ""
        self._lock = threading.RLock()
        self._began_s = time.monotonic()
        self._began = time.time()
        self._looked_s = float("-inf")
        self._reused = 0
        self._answered_s: float | None = None
        self._longest_gap_s = 0.0
        self._recent: deque[tuple[float, Counted]] = deque()
        self._phase_began_s = self._began_s
        self._phase_counted = Counted()
        self._figures = Figures()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._accompany, name="progress", daemon=True)

    def __enter__(self) -> Meter:
        self._beat("working")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._ending.set()
        self._thread.join()
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        state: State = "finished" if error is None else "interrupted" if interrupted else "failed"
        problem = str(error) or type(error).__name__ if error is not None and not interrupted else ""
        with self._lock:
            self._end_lines()
            self._beat(state, problem)
            self._pass_on(Ended(state, problem))

    def tell(self, stage: str, done: int, total: int, note: str = "", *, growing: bool = False) -> None:
        """`done` of `total` units of a stage are finished; `growing`: `total` is only what is known so far.

        A stage that counts anew (a further chunk) adds to what it did.
        """
        with self._lock:
            now = time.monotonic()
            line = self._lines.get(stage)
            if line is None or line.ended:
                # Its first unit is finished: it began when the last one before it was, or with its phase.
                line = self._lines[stage] = _Line(stage, self._phase, max(self._phase_began_s, self._answered_s or 0.0))
            if done < line.done:
                line.earlier += line.done
            line.done, line.total, line.note, line.growing = done, line.earlier + total, note, growing
            line.changed, line.told_s = True, now
            if self._answered_s is not None:
                self._longest_gap_s = max(self._longest_gap_s, now - self._answered_s)
            self._answered_s = now
            if now - self._looked_s >= LOOK_EVERY_S:
                self._look(now)

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        """What is told inside belongs to this phase of the run, and has ended with it."""
        with self._lock:
            self._phase, self._phase_began_s, self._phase_counted = name, time.monotonic(), self._counted()
            self._recent.clear()
            self._recent.append((self._phase_began_s, self._phase_counted))
        try:
            yield
        finally:
            with self._lock:
                self._end_lines()
                self._phase = ""

    def settled(self, event: RowsSettled) -> None:
        """Rows have their outcome, so nothing more comes of the stages before."""
        with self._lock:
            self._end_lines()
            self._pass_on(event)

    def _accompany(self) -> None:
        while not self._ending.wait(BEAT_EVERY_S):
            self._beat("working")

    def _look(self, now: float) -> None:
        """Take note of the paces, and tell what has changed."""
        self._looked_s = now
        reused = self._counted().reused
        advanced = [(line, line.finished - line.seen) for line in self._lines.values() if line.changed]
        # Each answer from the store is one unit of some stage: which one only matters where stages run side by side.
        units = sum(more for _, more in advanced)
        computed_share = 1.0 - min(1.0, (reused - self._reused) / units) if units > 0 else 0.0
        self._reused = reused
        for line, more in advanced:
            line.seen = line.finished
            line.computed += more * computed_share
            line.changed = False
            line.pace.note(now, line.computed)
            self._pass_on(self._progress(line, now))

    def _progress(self, line: _Line, now: float) -> StageProgress:
        left = max(0, line.total - line.finished)
        return StageProgress(
            stage=line.stage,
            done=line.finished,
            total=line.total,
            note=line.note,
            growing=line.growing and not line.ended,
            phase=line.phase,
            seconds=(now if (left or line.growing) and not line.ended else line.told_s) - line.began_s,
            per_second=None if line.ended else line.pace.per_second(now),
            eta=None if line.ended or line.growing else line.pace.remaining(left, now),
            ended=line.ended,
        )

    def _end_lines(self) -> None:
        now = time.monotonic()
        self._look(now)
        for line in self._lines.values():
            if not line.ended:
                line.ended = True
                self._pass_on(self._progress(line, now))

    def _beat(self, state: State, problem: str = "") -> None:
        with self._lock:
            now = time.monotonic()
            self._look(now)
            for line in self._lines.values():  # time goes by, also where nothing comes
                if not line.ended and (line.growing or line.finished < line.total):
                    self._pass_on(self._progress(line, now))
            self._figures = self._measured(now)
            self._pass_on(self._figures)
            if self._folder is None:
                return
            written = time.time()
            heartbeat = Heartbeat(
                pid=os.getpid(),
                host=socket.gethostname(),
                began=self._began,
                written=written,
                answered=None if self._answered_s is None else written - (now - self._answered_s),
                longest_gap_s=self._longest_gap_s,
                state=state,
                problem=problem,
                phase=self._phase,
                stages=tuple(self._progress(line, now) for line in self._lines.values()),
                figures=self._figures,
            )
        try:
            write_heartbeat(self._folder, heartbeat)
        except StoreError:
            self._folder = None  # a full disk is told by what cannot do without it

    def _measured(self, now: float) -> Figures:
        counted = self._counted()
        self._recent.append((now, counted))
        while len(self._recent) > 2 and self._recent[1][0] <= now - RECENT_S:
            self._recent.popleft()
        since_s, before = self._recent[0]
        seconds = now - since_s
        told, begun, memory = counted.statistics, self._phase_counted.statistics, memory_use()
        prompt = told.read_tokens - before.statistics.read_tokens
        completion = told.completion_tokens - before.statistics.completion_tokens
        rows = told.row_steps - before.statistics.row_steps
        slots = told.slot_steps - before.statistics.slot_steps
        calls = {name: _calls(usage, before.usage.get(name, Usage()), seconds) for name, usage in counted.usage.items()}
        return Figures(
            elapsed_s=now - self._began_s,
            calls=calls,
            failed_calls=counted.failures,
            prompt_tokens=told.read_tokens,
            reused_tokens=told.spared_tokens,
            completion_tokens=told.completion_tokens,
            prompt_tokens_per_s=prompt / seconds if seconds and told.read_tokens > begun.read_tokens else None,
            completion_tokens_per_s=(
                completion / seconds if seconds and told.completion_tokens > begun.completion_tokens else None
            ),
            occupancy=rows / slots if slots else None,
            waiting=told.waiting,
            running=told.running,
            retries=told.retries,
            smaller_batches=told.smaller_batches,
            rss_bytes=memory.rss_bytes,
            gpu_bytes=memory.gpu_bytes,
            gpu_total_bytes=memory.gpu_total_bytes,
        )

    def _pass_on(self, event: ProgressEvent) -> None:
        if self._on_progress is not None:
            self._on_progress(event)


def _calls(usage: Usage, before: Usage, seconds: float) -> StageCalls:
    found = StageCalls(usage.calls, usage.reused, usage.failures, usage.prompt_tokens, usage.completion_tokens)
    if not seconds or not usage.calls:
        return found
    return replace(
        found,
        prompt_tokens_per_s=(usage.prompt_tokens - before.prompt_tokens) / seconds,
        completion_tokens_per_s=(usage.completion_tokens - before.completion_tokens) / seconds,
    )
