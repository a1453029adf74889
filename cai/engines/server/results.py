"""Requests handed to the dispatcher, and their answers in the order in which they came."""

from __future__ import annotations

import queue
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar, cast

from cai.engines.base import Generation, GenerationResult, ScoreResult, Scores
from cai.engines.server.dispatching import Dispatcher, Job, Outcome
from cai.engines.server.exchange import Exchange
from cai.errors import EngineError

Result = TypeVar("Result", GenerationResult, ScoreResult)


class Results(Generic[Result]):
    """Of one stream or one call; each request is answered once, unless the results are closed."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._ready: queue.SimpleQueue[tuple[int, Outcome | BaseException]] = queue.SimpleQueue()
        self._unanswered: dict[int, Job] = {}
        self._submitted = 0
        self._closed = False

    def submit(self, work: Callable[[Exchange], Awaitable[Generation | Scores]]) -> int:
        if self._closed:
            raise EngineError("the stream is closed", "Open another one.")
        ticket = self._submitted
        self._submitted += 1
        ready = self._ready  # a closure over self would keep the stream, and with it the engine, alive
        job = Job(work, lambda outcome: ready.put((ticket, outcome)))
        self._unanswered[ticket] = job
        self._dispatcher.submit(job)
        return ticket

    def until_answered(self, patience_s: float | None = None) -> Iterator[tuple[int, Result]]:
        while self._unanswered:
            try:
                ticket, outcome = self._ready.get(timeout=patience_s)
            except queue.Empty:
                return
            if self._unanswered.pop(ticket, None) is None:
                continue
            if isinstance(outcome, BaseException):
                self.close()
                raise outcome
            yield ticket, cast("Result", outcome)

    def close(self) -> None:
        self._closed = True
        jobs = list(self._unanswered.values())
        self._unanswered.clear()
        if jobs:
            self._dispatcher.forget(jobs)
