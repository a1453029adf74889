"""Draft → critique → revise → gate over many items at once: engines in, records out.

Each item goes its own way: its critique is asked for as soon as its draft is there. Knows no files: durability is the engine's
(a `MemoisedEngine` keeps each call). An item's texts depend only on their own noise keys, so records are the same in any window
and order. An item that cannot be finished becomes a `FailureRecord`.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cai.engines.base import (
    Engine,
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationStream,
    RequestFailure,
    SamplingParams,
)
from cai.loop.gate import Candidate, Gate, Ruled
from cai.loop.settings import LoopSettings
from cai.loop.threads import Thread
from cai.loop.tidying import tidy_revision
from cai.models.call_forms import one_form
from cai.records import BAD_CALL_KEPT, FailureRecord, Item, RevisionRecord
from cai.tool_calls import checked_reply
from constitution.messages import Conversation, tools_of
from constitution.rendering import read_critique, render_critique, render_direct_revision, render_revision
from constitution.schema import Constitution, Principle
from constitution.selection import select_principle


@dataclass(frozen=True, slots=True)
class LoopEvent:
    """`done` of the `total` calls of one stage that were asked for so far are answered; `items_done` items are finished."""

    stage: str
    round: int
    done: int
    total: int
    items_done: int


OnLoopEvent: TypeAlias = Callable[[LoopEvent], None]

_PATIENCE_S = 0.05
"""How long one of two models that work elsewhere is waited for before the other's answers are looked at."""

_TURN_S = 0.5
"""How long the answers of one of two models are taken in a row while they keep coming, if either works elsewhere: the other's,
which may have come meanwhile, are kept and followed up only when they are looked at."""


def noise_key(
    seed: int,
    uid: str,
    replica: int,
    stage: str,
    round: int = 0,  # noqa: A002 - the term of the field
    attempt: int = 0,
) -> str:
    """What a call's sampling noise is drawn from; a further attempt at the same text has noise of its own."""
    return f"{seed}/{uid}/{replica}/{stage}/{round}" + (f".{attempt}" if attempt else "")


def run_loop(
    items: Iterable[Item],
    constitution: Constitution,
    policy: Engine,
    feedback: Engine,
    settings: LoopSettings,
    *,
    seed: int,
    on_event: OnLoopEvent | None = None,
    library: Constitution | None = None,
    drafts: Mapping[str, str] | None = None,
) -> Iterator[RevisionRecord | FailureRecord]:
    """Draft every item, then critique and revise it `settings.rounds` times.

    Round r + 1 starts a fresh feedback conversation about the newest revision. "Nothing to change" keeps the text and costs no
    revision. A round for which no principle applies is skipped. With `settings.gate`, a revision that makes the text worse
    under a principle that has a say goes on record, and no further. The principles that the gate's settings name are looked up
    in `library` (default: `constitution`). With `drafts` (uid → text) the policy is not asked: these are begun from.

    Items are read as they are needed: at most `settings.chunk_items` are in work, or wait for one before them.

    Yields:
        One record per (item, replica), in the order of `items`.

    Raises:
        KeyError: If a principle of the gate's is not there (`gate_problems` says so beforehand), or an item is not in `drafts`.
    """
    gate = Gate(feedback, settings.gate, library or constitution) if settings.gate else None
    threads = (Thread(item, replica) for item in items for replica in range(settings.replicas))
    work = _Work(constitution, settings, seed, on_event, gate, policy, feedback, drafts, threads)
    try:
        yield from work.run()
    finally:
        work.close()


@dataclass(eq=False)
class _Course:
    """Where a thread stands: in which round, under which principle, with which critique."""

    thread: Thread
    round: int = -1
    principle: Principle | None = None
    critique: Generation | None = None
    candidate: Candidate | None = None
    """A revision that waits for the gate."""
    finished: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    """A request on its way, and what is done with its answer."""

    course: _Course
    stage: str
    then: Callable[[_Course, Generation], None]


@dataclass
class _Line:
    """The stream of one engine, and who waits for what."""

    stream: GenerationStream
    calls: dict[int, _Call] = field(default_factory=dict[int, _Call])


class _Work:
    def __init__(
        self,
        constitution: Constitution,
        settings: LoopSettings,
        seed: int,
        on_event: OnLoopEvent | None,
        gate: Gate | None,
        policy: Engine,
        feedback: Engine,
        drafts: Mapping[str, str] | None,
        threads: Iterator[Thread],
    ) -> None:
        self._constitution = constitution
        self._settings = settings
        self._seed = seed
        self._on_event = on_event
        self._gate = gate
        self._feedback_engine = feedback
        self._drafts = drafts
        self._threads = threads
        self._feedback = _Line(feedback.stream())
        self._policy = self._feedback if policy is feedback else _Line(policy.stream())
        self._window: deque[_Course] = deque()
        self._items_done = 0
        self._asked: Counter[tuple[str, int]] = Counter()
        self._answered: Counter[tuple[str, int]] = Counter()

    def run(self) -> Iterator[RevisionRecord | FailureRecord]:
        """The records, in the order of the threads."""
        lines = [self._policy] if self._policy is self._feedback else [self._policy, self._feedback]
        patience_s = _PATIENCE_S if len(lines) > 1 else None
        # Two models of this process cannot work at once: each does until it has nothing left. Turns by the clock would make
        # batches, and with them what bfloat16 rounds, differ from run to run.
        turn_s = _TURN_S if len(lines) > 1 and any(line.stream.works_unread for line in lines) else math.inf
        yield from self._records()
        while self._window:
            for line in lines:
                began_s = time.monotonic()
                for ticket, result in line.stream.results(patience_s):
                    self._receive(line.calls.pop(ticket), result)
                    yield from self._records()
                    if time.monotonic() - began_s >= turn_s:
                        break
            if self._window and not any(line.calls for line in lines):
                # Whoever is not finished waits for the gate. Who that is follows from the items alone, and so do its batches.
                self._rule([course for course in self._window if course.candidate is not None])
                yield from self._records()

    def close(self) -> None:
        self._policy.stream.close()
        self._feedback.stream.close()

    # ---- the window

    def _records(self) -> Iterator[RevisionRecord | FailureRecord]:
        """Hand out what is finished at the front of the window, and let as many threads in."""
        while True:
            while len(self._window) < self._settings.chunk_items and (thread := next(self._threads, None)) is not None:
                course = _Course(thread)
                self._window.append(course)
                self._begin(course)
            if not (self._window and self._window[0].finished):
                return
            thread = self._window.popleft().thread
            if self._gate is not None:
                self._gate.forget(thread.name)
            self._items_done += 1
            yield thread.record()

    def _begin(self, course: _Course) -> None:
        thread = course.thread
        if self._drafts is None:
            self._ask(self._policy, course, "draft", self._settings.draft, thread.item.messages, self._drafted)
        else:
            thread.begin(self._drafts[thread.item.uid])
            self._next_round(course)

    def _next_round(self, course: _Course) -> None:
        """Begin the next round for which a principle applies; without one the thread is finished."""
        thread, course.principle, course.critique = course.thread, None, None
        while thread.failure is None and course.principle is None and course.round + 1 < self._settings.rounds:
            course.round += 1
            course.principle = select_principle(
                self._constitution,
                seed=self._seed,
                uid=thread.item.uid,
                round=course.round,
                tags=thread.item.tags,
                repeat=self._settings.repeat_principles,
            )
        if thread.failure is not None or course.principle is None:
            course.finished = True
        elif self._settings.critique_free:
            self._ask_revision(course)
        else:
            asked = render_critique(course.principle, thread.item.messages, thread.text)
            self._ask(self._feedback, course, "critique", self._settings.critique, asked, self._criticised)

    # ---- calls and their answers

    def _ask(
        self,
        line: _Line,
        course: _Course,
        stage: str,
        params: SamplingParams,
        messages: Conversation,
        then: Callable[[_Course, Generation], None],
    ) -> None:
        number = max(0, course.round)
        key = noise_key(self._seed, course.thread.item.uid, course.thread.replica, stage, number)
        ticket = line.stream.submit(GenerationRequest(messages, params, key))
        line.calls[ticket] = _Call(course, stage, then)
        self._asked[stage, number] += 1

    def _receive(self, call: _Call, result: Generation | RequestFailure) -> None:
        course, stage = call.course, (call.stage, max(0, call.course.round))
        self._answered[stage] += 1
        if isinstance(result, RequestFailure):
            course.thread.fail(call.stage, result.cause, result.detail)
            course.finished = True
        else:
            call.then(course, result)
        self._tell(*stage, self._answered[stage], self._asked[stage])

    def _tell(self, stage: str, number: int, done: int, total: int) -> None:
        if self._on_event:
            self._on_event(LoopEvent(stage, number, done, total, self._items_done))

    def _drafted(self, course: _Course, answer: Generation) -> None:
        cut = answer.finish_reason is FinishReason.LENGTH
        course.thread.begin(answer.text, cut=cut, trim=self._settings.trim_cut_drafts)
        self._next_round(course)

    def _criticised(self, course: _Course, answer: Generation) -> None:
        thread, principle = course.thread, course.principle
        assert principle is not None
        reading = read_critique(answer.text)
        if self._settings.critique.temperature == 0.0:  # a sampled ground is no match for the judge's own, which is greedy
            thread.grounds[principle.id] = reading.ground
        if not answer.text.strip():
            thread.fail("critique", "empty_critique", "the feedback model answered nothing")
            course.finished = True
        elif reading.nothing_to_change:
            thread.keep(course.round, principle, answer)
            self._next_round(course)
        else:
            course.critique = answer
            self._ask_revision(course)

    def _ask_revision(self, course: _Course) -> None:
        self._ask(self._feedback, course, "revision", self._settings.revision, self._revision_request(course), self._revised)

    def _revision_request(self, course: _Course) -> Conversation:
        thread, principle = course.thread, course.principle
        assert principle is not None
        if course.critique is None:
            return render_direct_revision(principle, thread.item.messages, thread.text)
        return render_revision(principle, thread.item.messages, thread.text, course.critique.text.strip())

    def _revised(self, course: _Course, answer: Generation) -> None:
        candidate = _candidate(answer, course.thread.item)
        if self._gate is not None and candidate.text is not None:
            course.candidate = candidate
            return
        self._close_round(course, Ruled(candidate, None))

    def _close_round(self, course: _Course, ruled: Ruled) -> None:
        assert course.principle is not None
        course.thread.revise(course.round, course.principle, course.critique, ruled.candidate, ruled.ruling)
        self._next_round(course)

    # ---- the gate

    def _rule(self, courses: Sequence[_Course]) -> None:
        """Decide about every revision that waits, and let its thread go on."""
        assert self._gate is not None
        candidates: list[Candidate] = []
        for course in courses:
            assert course.candidate is not None
            candidates.append(course.candidate)
            course.candidate = None

        first = min(course.round for course in courses)
        cases = [
            course.thread.case(
                course.principle,
                self._constitution,
                noise_key(self._seed, course.thread.item.uid, course.thread.replica, "gate", course.round),
            )
            for course in courses
            if course.principle is not None
        ]
        ruled = self._gate.rule(
            cases,
            candidates,
            lambda some, attempt: self._redrawn(courses, some, attempt),
            on_done=lambda done, total: self._tell("gate", first, done, total),
        )
        for place, course in enumerate(courses):
            match ruled.get(place):
                case Ruled() as decided:
                    self._close_round(course, decided)
                case RequestFailure(cause, detail):
                    course.thread.fail("gate", cause, detail)
                    course.finished = True
                case None:  # it failed while it was drawn anew
                    course.finished = True

    def _redrawn(self, courses: Sequence[_Course], some: Sequence[int], attempt: int) -> dict[int, Candidate]:
        """New revisions of those that the gate turned down; a failed request fails its thread alone."""
        assert self._settings.gate is not None
        params = self._settings.revision
        if params.temperature == 0.0:
            params = params.model_copy(update={"temperature": self._settings.gate.retry_temperature})
        requests: list[GenerationRequest] = []
        for place in some:
            course, item = courses[place], courses[place].thread.item
            key = noise_key(self._seed, item.uid, course.thread.replica, "retry", course.round, attempt)
            requests.append(GenerationRequest(self._revision_request(course), params, key))
        drawn: dict[int, Candidate] = {}
        for done, (index, result) in enumerate(self._feedback_engine.generate(requests), start=1):
            self._tell("retry", min(courses[place].round for place in some), done, len(requests))
            if isinstance(result, RequestFailure):
                courses[some[index]].thread.fail("retry", result.cause, result.detail)
            else:
                drawn[some[index]] = _candidate(result, courses[some[index]].thread.item)
        # Answers come as they are ready, and known ones first; the gate's batches must not depend on that.
        return {place: drawn[place] for place in some if place in drawn}


def _candidate(answer: Generation, item: Item) -> Candidate:
    text, note = tidy_revision(answer.text)
    if text is not None and (tools := tools_of(item.messages)):
        checked = checked_reply(one_form(text, tools), tools)
        text, note = (None, f"{BAD_CALL_KEPT}: {checked.problem}") if checked.problem else (checked.text, note)
    return Candidate(text, note, cut=answer.finish_reason is FinishReason.LENGTH)
