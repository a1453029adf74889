"""Live progress on stderr: one bar with ETA on a terminal, a line every few seconds elsewhere. Nothing goes to stdout."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cai.pipeline.events import StageProgress

LINE_EVERY_S = 10.0
_MODELS = logging.getLogger("cai.models")
"""Tells when loading a model takes long."""


class ProgressDisplay:
    """Shows `StageProgress` events. Use as a context manager, and pass `show` to the pipeline."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._live = self.console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._last_line: dict[str, float] = {}
        self._handler = _Line(self.console)
        self._bars = Progress(
            TextColumn("[bold]{task.description:<26}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
        )

    def __enter__(self) -> ProgressDisplay:
        _MODELS.addHandler(self._handler)
        _MODELS.setLevel(logging.INFO)
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _MODELS.removeHandler(self._handler)
        if self._live:
            self._bars.stop()

    def show(self, event: StageProgress) -> None:
        now = time.monotonic()
        started = self._started.setdefault(event.stage, now)
        if self._live:
            if event.stage not in self._tasks:
                self._tasks[event.stage] = self._bars.add_task(event.stage, total=event.total, note="")
            self._bars.update(self._tasks[event.stage], completed=event.done, total=event.total, note=event.note)
            return
        finished = event.done >= event.total
        if not finished and now - self._last_line.get(event.stage, -LINE_EVERY_S) < LINE_EVERY_S:
            return
        self._last_line[event.stage] = now
        elapsed_s = now - started
        eta = f", eta {elapsed_s / event.done * (event.total - event.done):.0f} s" if 0 < event.done < event.total else ""
        note = f"  {event.note}" if event.note else ""
        print(f"{event.stage:<26} {event.done}/{event.total}  {elapsed_s:.0f} s{eta}{note}", file=sys.stderr, flush=True)


class _Line(logging.Handler):
    """Prints each message as a line above the bars."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(record.getMessage(), markup=False, highlight=False)
