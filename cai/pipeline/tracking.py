"""What trackers are told of a run: progress, calls, ledger, labels, training, evaluation. They never slow it down, nor end it.

Figures are handed to a thread of their own. A tracker that raises is counted and told once; the run goes on.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, cast

from cai.config.settings import RunConfig
from cai.pipeline.events import Figures, OnProgress, ProgressEvent, RowsSettled, StageProgress
from cai.pipeline.trackers import OPENERS, Tracker

EVERY_S = 10.0
"""So often trackers get what changes all the time; what a stage came to they get at once."""
CLOSING_S = 60.0
"""So long the end of a run waits for trackers to take what is left."""
_OF_TRACKERS = ("MLFLOW_RUN_ID", "TRACKIO_DIR", "TRACKIO_SPACE_ID", "WANDB_PROJECT", "WANDB_NAME")

LOG = logging.getLogger(__name__)


class _Guarded:
    """A tracker's name, and how often it failed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self) -> Generator[None]:
        """Whatever its library raises inside is counted, and the first told."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a library's own errors are of any kind; none of them is the run's
            with self._lock:
                self.failures += 1
                first = self.failures == 1
            if first:
                LOG.warning("tracker %s: %s: %s. The run goes on without it.", self.name, type(error).__name__, error)


class Tracking:
    """The trackers of one process; none of them: nothing happens.

    Args:
        trackers: Name → the run in it.
    """

    def __init__(self, trackers: Mapping[str, Tracker] | None = None) -> None:
        self._trackers = dict(trackers or {})
        self._guards = {name: _Guarded(name) for name in self._trackers}
        self._began_s = time.monotonic()
        self._sent_s = self._began_s - EVERY_S
        self._waiting: dict[str, float] = {}
        self._lock = threading.RLock()
        self._queue: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        if self._trackers:
            self._thread.start()

    @property
    def failures(self) -> dict[str, int]:
        """Tracker → how often it failed."""
        return {name: guard.failures for name, guard in self._guards.items()}

    def listening(self, other: OnProgress | None) -> OnProgress | None:
        """Tells `other`, and the trackers, of progress."""
        if not self._trackers:
            return other

        def tell(event: ProgressEvent) -> None:
            if other is not None:
                other(event)
            self._note(event)

        return tell

    def note(self, group: str, content: Any) -> None:
        """Every number in what a stage came to, under `group/…`, at once."""
        if self._trackers:
            self._send({f"{group}/{name}": value for name, value in numbers(content)})

    def note_step(self, stage: str, row: Mapping[str, float]) -> None:
        """The metrics of one step of a training that is none of the Trainer's; `step` is among them."""
        if self._trackers:
            step = int(row["step"])
            figures = {name: float(value) for name, value in row.items() if name != "step"}
            self._queue.put(lambda tracker: tracker.log_step(stage, figures, step))

    def callbacks(self, stage: str) -> list[Any]:
        """One callback for transformers' Trainer, which notes a stage in all trackers and cannot end it; none without any."""
        inner: list[tuple[Any, _Guarded]] = []
        for name, tracker in self._trackers.items():
            with self._guards[name]():
                inner.append((tracker.callback(stage), self._guards[name]))
        return [_guarded_callback(inner)] if inner else []

    def close(self) -> None:
        """Hand over what waits, and end the runs; say of trackers that failed how often."""
        if not self._trackers:
            return
        if self._waiting:
            self._send({})
        self._queue.put(None)
        self._thread.join(CLOSING_S)
        for name, tracker in self._trackers.items():
            with self._guards[name]():
                if self._thread.is_alive():
                    raise TimeoutError(f"did not take all figures within {CLOSING_S:.0f} s")
                tracker.close()
        for name, failures in self.failures.items():
            if failures > 1:
                LOG.warning("tracker %s: failed %d times; what it holds of this run is not whole.", name, failures)

    def _note(self, event: ProgressEvent) -> None:
        """Called by any thread, under the meter's lock: only puts things down."""
        if isinstance(event, RowsSettled):
            self._send({f"ledger/{outcome.value}": float(rows) for outcome, rows in event.rows.items()})
            return
        with self._lock:
            if isinstance(event, StageProgress):
                self._waiting |= _of_progress(event)
            elif isinstance(event, Figures):
                self._waiting |= _of_figures(event)
            if time.monotonic() - self._sent_s >= EVERY_S:
                self._send({})

    def _send(self, figures: Mapping[str, float]) -> None:
        with self._lock:
            now = time.monotonic()
            waiting, self._waiting, self._sent_s = self._waiting, {}, now
            all_, seconds = {**waiting, **figures}, round(now - self._began_s)
            self._queue.put(lambda tracker: tracker.log(all_, seconds))

    def _work(self) -> None:
        while (tell := self._queue.get()) is not None:
            for name, tracker in self._trackers.items():
                with self._guards[name]():
                    tell(tracker)


@contextmanager
def tracking(config: RunConfig) -> Generator[Tracking]:
    """Open the trackers of a run; what they set in the environment is undone afterwards.

    One that cannot be opened is told, and left out. Missing packages were refused before (see `preflight`).
    """
    settings = config.tracking
    if not settings.to:
        yield Tracking()
        return
    name, place = settings.name or config.run.resolve().name, settings.dir or config.run / "tracking"
    before = {key: os.environ.get(key) for key in _OF_TRACKERS}
    trackers: dict[str, Tracker] = {}
    for each in dict.fromkeys(settings.to):
        with _Guarded(each)():
            place.mkdir(parents=True, exist_ok=True)
            trackers[each] = OPENERS[each](settings, name, place)
    found = Tracking(trackers)
    try:
        yield found
    finally:
        found.close()
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def numbers(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a tree of values, by its keys joined with `/`; truth values and rows of a list are left out."""
    if isinstance(content, dict):
        for key, below in cast("dict[str, Any]", content).items():
            yield from numbers(below, f"{name}/{key}" if name else str(key))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield name, float(content)


def _of_progress(event: StageProgress) -> dict[str, float]:
    figures = {f"progress/{event.stage}/done": float(event.done)}
    if event.per_second is not None:
        figures[f"progress/{event.stage}/per_second"] = event.per_second
    return figures


def _of_figures(event: Figures) -> dict[str, float]:
    named = {
        "tokens/prompt": event.prompt_tokens,
        "tokens/prompt_reused": event.reused_tokens,
        "tokens/completion": event.completion_tokens,
        "tokens/prompt_per_s": event.prompt_tokens_per_s,
        "tokens/completion_per_s": event.completion_tokens_per_s,
        "engine/occupancy": event.occupancy,
        "engine/waiting": event.waiting,
        "engine/running": event.running,
        "engine/retries": event.retries,
        "memory/rss_gb": event.rss_bytes / 1e9,
        "memory/gpu_gb": None if event.gpu_bytes is None else event.gpu_bytes / 1e9,
    }
    for kind, calls in event.calls.items():
        named |= {
            f"calls/{kind}/made": calls.calls,
            f"calls/{kind}/reused": calls.reused,
            f"calls/{kind}/failed": calls.failures,
        }
    return {name: float(value) for name, value in named.items() if value is not None}


def _guarded_callback(inner: Sequence[tuple[Any, Callable[[], AbstractContextManager[None]]]]) -> Any:
    """A callback of transformers that does what all of `inner` do, each in its guard, and raises nothing."""
    from transformers import TrainerCallback

    def tell(event: str, *arguments: Any, **named: Any) -> None:
        for callback, guard in inner:
            with guard():
                getattr(callback, event)(*arguments, **named)

    outer = type("TrackersCallback", (TrainerCallback,), {})()
    for event in dir(TrainerCallback):
        if event.startswith("on_"):
            setattr(outer, event, partial(tell, event))
    return outer
