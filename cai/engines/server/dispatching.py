"""Many requests to one server, from a thread of their own: paced, tried again where that is safe, stopped when it is gone.

Knows when to send and when to give up; what is sent is a coroutine function. Generating and scoring change nothing at the
server, so any request may be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cai.engines.base import Generation, RequestFailure, Scores
from cai.engines.server.exchange import Exchange, PassingFailure, Refusal
from cai.engines.server.pacing import Pacing
from cai.errors import CaiError, EngineError

T = TypeVar("T")
Outcome = Generation | Scores | RequestFailure

_SUSPICIOUS_FAILURES = 25
"""So many failures in a row, without one answer, and the server is asked whether it is there at all."""


@dataclass(frozen=True, slots=True)
class Retries:
    """When a request is sent again.

    Args:
        attempts: How often it is sent at most.
        time_outs: How often at most when it was never answered in time.
        first_wait_s: Wait before the second time; doubled each time, and shortened by up to half, at random, lest all come back
            at once.
        longest_wait_s: It is never longer.
    """

    attempts: int = 10
    time_outs: int = 2
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def wait_s(self, failed: int) -> float:
        """Wait after the `failed`-th failure (1, 2 …)."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (failed - 1))
        return longest * (0.5 + secrets.randbelow(1000) / 2000)


@dataclass(eq=False)
class Job:
    """One request on its way.

    Args:
        work: Sends it and reads the answer; raises `PassingFailure` or `Refusal`.
        deliver: Told of the outcome, or of the error that stops everything, in the background thread; must not block.
        failed: How often it has failed.
        answered_before: How many requests were answered before it was last begun, or failed.
    """

    work: Callable[[Exchange], Awaitable[Generation | Scores]]
    deliver: Callable[[Outcome | BaseException], None]
    failed: int = 0
    answered_before: int | None = None
    task: asyncio.Task[None] | None = None
    given_up: bool = False


@dataclass
class Counts:
    """What was done so far. `answered` counts answers, and signs of life that were asked for."""

    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    row_steps: int = 0
    slot_steps: int = 0


@dataclass(eq=False)
class _Work:
    """What belongs to the background thread: touched nowhere else, but for reading numbers."""

    make_exchange: Callable[[], Exchange]
    is_there: Callable[[Exchange], Awaitable[None]]
    retries: Retries
    pacing: Pacing
    counts: Counts = field(default_factory=Counts)
    waiting: deque[Job] = field(default_factory=deque[Job])
    """Not begun, in their order; those to be sent again come first when their time has come."""
    sleeping: set[Job] = field(default_factory=set[Job])
    running: set[Job] = field(default_factory=set[Job])
    failures_in_a_row: int = 0
    exchange: Exchange | None = None
    alarm: asyncio.TimerHandle | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def opened(self) -> Exchange:
        if self.exchange is None:
            self.exchange = self.make_exchange()
        return self.exchange

    def add(self, job: Job) -> None:
        self.waiting.append(job)
        self.pump()

    def forget(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.given_up = True
            if job.task is not None:
                job.task.cancel()
            # Here, not when the task ends: one that is cancelled before its first step never runs.
            self.running.discard(job)
            self.sleeping.discard(job)
        self.waiting = deque(job for job in self.waiting if not job.given_up)
        self.pump()

    def pump(self) -> None:
        """Begin what may begin now; come back when the server has had its rest."""
        now = time.monotonic()
        while self.waiting and self.pacing.may_begin(len(self.running), now):
            job = self.waiting.popleft()
            self.running.add(job)
            job.task = asyncio.get_running_loop().create_task(self.attempt(job))
        if self.waiting and now < self.pacing.quiet_until and self.alarm is None:
            self.alarm = asyncio.get_running_loop().call_later(self.pacing.quiet_until - now, self.wake)

    def wake(self) -> None:
        self.alarm = None
        self.pump()

    async def attempt(self, job: Job) -> None:
        begun = time.monotonic()
        if job.answered_before is None:
            job.answered_before = self.counts.answered
        try:
            result = await job.work(self.opened())
        except PassingFailure as failure:
            self.running.discard(job)
            if failure.overloaded or failure.cause == "connection":
                self.pacing.overloaded(begun, time.monotonic(), failure.wait_s)
            await self.again(job, failure)
        except Refusal as refusal:
            self.running.discard(job)
            if refusal.failure.cause == "prompt_too_long":
                job.deliver(refusal.failure)
            else:
                await self.fail(job, refusal.failure, suspicious=False)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the engine's, or a fault of ours: raised where the results are read
            self.stop(error)
        else:
            tokens = result.completion_tokens if isinstance(result, Generation) else 0
            self.pacing.answered(begun, time.monotonic(), tokens=tokens, in_flight=len(self.running))
            self.counts.row_steps += len(self.running)
            self.counts.slot_steps += max(len(self.running), int(self.pacing.window))
            self.running.discard(job)
            self.failures_in_a_row = 0
            self.counts.answered += 1
            self.counts.prompt_tokens += result.prompt_tokens
            self.counts.completion_tokens += tokens
            job.deliver(result)
        finally:
            self.running.discard(job)
            self.pump()

    async def again(self, job: Job, failure: PassingFailure) -> None:
        """Send it again after a while, or give it up."""
        job.failed += 1
        most = self.retries.time_outs if failure.cause == "time_out" else self.retries.attempts
        if job.failed >= most:
            nothing_since = self.counts.answered == job.answered_before
            await self.fail(job, RequestFailure(failure.cause, failure.detail), suspicious=nothing_since)
            return
        self.counts.retries += 1
        job.answered_before = self.counts.answered
        self.sleeping.add(job)
        wait_s = max(self.retries.wait_s(job.failed), failure.wait_s or 0.0)
        asyncio.get_running_loop().call_later(wait_s, self.requeue, job)

    def requeue(self, job: Job) -> None:
        if job in self.sleeping:
            self.sleeping.discard(job)
            self.waiting.appendleft(job)
            self.pump()

    async def fail(self, job: Job, failure: RequestFailure, *, suspicious: bool) -> None:
        """The request has failed for good. If nothing else went well either, is the server there at all?"""
        self.failures_in_a_row += 1
        if suspicious or self.failures_in_a_row >= _SUSPICIOUS_FAILURES:
            answered = self.counts.answered
            self.sleeping.add(job)  # it is not lost while the server is asked
            async with self.asking:
                if job not in self.sleeping:
                    return
                if self.counts.answered == answered:
                    try:
                        await self.is_there(self.opened())
                    except (PassingFailure, Refusal) as error:
                        self.stop(_gone(self.opened(), failure, str(error)))
                        return
                    except CaiError as error:
                        self.stop(error)
                        return
                    self.counts.answered += 1
                    self.failures_in_a_row = 0
            self.sleeping.discard(job)
        job.deliver(failure)

    def stop(self, error: BaseException) -> None:
        """Everything not answered is given up; each is told why."""
        unanswered = [*self.running, *self.sleeping, *self.waiting]
        self.running.clear()
        self.sleeping.clear()
        self.waiting.clear()
        self.failures_in_a_row = 0
        current = asyncio.current_task()
        for job in unanswered:
            if job.task is not None and job.task is not current:
                job.task.cancel()
            job.deliver(error)

    async def close(self) -> None:
        if self.exchange is not None:
            await self.exchange.__aexit__(None, None, None)
            self.exchange = None


def _gone(exchange: Exchange, failure: RequestFailure, reason: str) -> EngineError:
    return EngineError(
        f"model {exchange.served.name}: the server at {exchange.served.base_url} answers nothing any more: {failure.detail}. "
        f"Asked whether it is there: {reason}.",
        "Start it again; what is finished is kept, and the same command goes on from there.",
    )


class Dispatcher:
    """Sends requests in the background, from the first one on until it is closed or forgotten.

    Args:
        make_exchange: Opens the connections.
        is_there: Asks the server for a sign of life; raises what an exchange raises.
        retries: When a request is sent again.
        most: Requests in flight.
    """

    def __init__(
        self,
        make_exchange: Callable[[], Exchange],
        is_there: Callable[[Exchange], Awaitable[None]],
        *,
        retries: Retries,
        most: int,
    ) -> None:
        self._work = _Work(make_exchange, is_there, retries, Pacing(most))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="requests to a server", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _end, self._loop, self._work)

    @property
    def counts(self) -> Counts:
        return self._work.counts

    @property
    def waiting(self) -> int:
        return len(self._work.waiting) + len(self._work.sleeping)

    @property
    def running(self) -> int:
        return len(self._work.running)

    @property
    def pacing(self) -> Pacing:
        return self._work.pacing

    def submit(self, job: Job) -> None:
        """Queue a request; returns at once."""
        self._loop.call_soon_threadsafe(self._work.add, job)

    def forget(self, jobs: list[Job]) -> None:
        """Give up requests; nothing is delivered for them any more. Returns at once."""
        for job in jobs:
            job.given_up = True
        with contextlib.suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._work.forget, jobs)

    def ask(self, question: Callable[[Exchange], Coroutine[Any, Any, T]]) -> T:
        """One question outside the queue, tried again like a request; waits for its answer.

        Raises:
            EngineError: If it could not be answered.
            Refusal: If the server will not answer it.
        """
        return asyncio.run_coroutine_threadsafe(self._asked(question), self._loop).result()

    async def _asked(self, question: Callable[[Exchange], Coroutine[Any, Any, T]]) -> T:
        retries, failed = self._work.retries, 0
        while True:
            try:
                return await question(self._work.opened())
            except PassingFailure as failure:
                failed += 1
                if failed >= (retries.time_outs if failure.cause == "time_out" else retries.attempts):
                    served = self._work.opened().served
                    raise EngineError(
                        f"model {served.name}: the server at {served.base_url} does not answer: {failure.detail}.",
                        "Start it, or wait until it has loaded the model.",
                    ) from failure
                await asyncio.sleep(max(retries.wait_s(failed), failure.wait_s or 0.0))

    def close(self) -> None:
        """Give up everything and end the thread. Safe to call twice."""
        self._finalizer()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, work: _Work) -> None:
    async def leave() -> None:
        work.stop(EngineError("the engine was closed", "Open it again."))
        await asyncio.sleep(0)  # what was cancelled ends
        with contextlib.suppress(Exception):
            await work.close()
        loop.stop()

    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(lambda: loop.create_task(leave()))
