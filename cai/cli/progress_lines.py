"""Progress where there is no terminal: a line every few seconds for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cai.cli.quantities import between, calls_and_reuse, duration, failures, speed_and_memory
from cai.cli.stage_table import counted
from cai.cli.terminal import visible
from cai.pipeline.events import Ended, Figures, ProgressEvent, RowsSettled, StageProgress

LINE_EVERY_S = 10.0
EVENT_EVERY_S = 5.0


class PlainLines:
    """A line for each stage when it begins, every ten seconds, and when it ends."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last: dict[str, float] = {}
        self._figures = Figures()

    def show(self, event: ProgressEvent) -> None:
        match event:
            case StageProgress():
                self._stage(event)
            case Figures():
                self._figures = event
            case RowsSettled():
                self._write(
                    f"{event.phase}: rows {', '.join(f'{count:,} {name}' for name, count in event.rows.items() if count)}"
                )
            case Ended(state="failed") if not self._last:
                pass  # refused before anything was begun: the error says it all
            case Ended():
                parts = [*speed_and_memory(self._figures)[-1:], *calls_and_reuse(self._figures), *self._failed()]
                self._write(visible(f"{event.state}: {', '.join(parts)}"))

    def message(self, text: str) -> None:
        """Something besides: on a line of its own."""
        self._write(visible(text))

    def _stage(self, event: StageProgress) -> None:
        now = time.monotonic()
        if not event.ended and now - self._last.get(event.stage, -LINE_EVERY_S) < LINE_EVERY_S:
            return
        self._last[event.stage] = now
        parts = [f"{event.stage:<20} {counted(event)}", duration(event.seconds)]
        parts += [f"{between(event.eta)} left"] if event.eta else []
        parts += [event.note] if event.note else []
        parts += [] if event.ended else speed_and_memory(self._figures)
        self._write(visible("  ".join([*parts, *self._failed()])))

    def _failed(self) -> list[str]:
        causes = failures(self._figures)
        return [f"failed: {', '.join(causes)}"] if causes else []


class JsonLines:
    """One JSON object a line, with the name of its kind in `event`: `stage`, `figures`, `rows`, `message`, `end`.

    A stage and the figures are told at most every five seconds, and always as they were at the end.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last: dict[str, float] = {}
        self._held: Figures | None = None

    def show(self, event: ProgressEvent) -> None:
        match event:
            case StageProgress():
                if event.ended or self._is_time(f"stage {event.stage}"):
                    self._put("stage", asdict(event))
            case Figures():
                self._held = event
                if self._is_time("figures"):
                    self._release()
            case RowsSettled():
                reasons = [
                    {"outcome": outcome, "reason": reason, "rows": rows} for (outcome, reason), rows in event.reasons.items()
                ]
                self._put("rows", {"phase": event.phase, "rows": dict(event.rows), "reasons": reasons})
            case Ended():
                self._release()
                self._put("end", asdict(event))

    def message(self, text: str) -> None:
        """Something besides: an event of its own."""
        self._put("message", {"text": text})

    def _release(self) -> None:
        if self._held is not None:
            self._put("figures", asdict(self._held))
            self._held = None

    def _is_time(self, name: str) -> bool:
        now = time.monotonic()
        due = now - self._last.get(name, -EVENT_EVERY_S) >= EVENT_EVERY_S
        if due:
            self._last[name] = now
        return due

    def _put(self, kind: str, content: dict[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._write(json.dumps({"event": kind, "time": at, **content}))  # ASCII: no text can steer a terminal
