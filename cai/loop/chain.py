"""Draft → critique → revise → gate over many items, in batches: engines in, records out.

Knows no files: durability is the engine's (a `MemoisedEngine` keeps each call). Text of an item depends only on its own noise
key, so records are the same in any chunk size and order. An item that cannot be finished becomes a `FailureRecord`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from cai.engines.base import Engine, FinishReason, Generation, GenerationRequest, RequestFailure, SamplingParams
from cai.loop.gate import Candidate, Gate, Ruled
from cai.loop.settings import LoopSettings
from cai.loop.threads import Thread
from cai.loop.tidying import tidy_revision
from cai.records import FailureRecord, GateRuling, Item, RevisionRecord
from constitution.messages import Conversation
from constitution.rendering import read_critique, render_critique, render_direct_revision, render_revision
from constitution.schema import Constitution, Principle
from constitution.selection import select_principle


@dataclass(frozen=True, slots=True)
class LoopEvent:
    """`done` of `total` calls of one stage of the chunk in work are answered; `items_done` items were finished before it."""

    stage: str
    round: int
    done: int
    total: int
    items_done: int


OnLoopEvent: TypeAlias = Callable[[LoopEvent], None]
_Drawn: TypeAlias = list[tuple[Thread, Candidate]]


@dataclass(frozen=True)
class _Stage:
    engine: Engine
    name: str
    round: int
    params: SamplingParams
    attempt: int = 0


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

    Yields:
        One record per (item, replica), in the order of `items`.

    Raises:
        KeyError: If a principle of the gate's is not there (`gate_problems` says so beforehand), or an item is not in `drafts`.
    """
    threads = (Thread(item, replica) for item in items for replica in range(settings.replicas))
    finished = 0
    while chunk := list(islice(threads, settings.chunk_items)):
        gate = Gate(feedback, settings.gate, library or constitution) if settings.gate else None
        work = _Work(constitution, settings, seed, on_event, finished, gate)
        work.draft(chunk, policy, drafts)
        for number in range(settings.rounds):
            work.round(chunk, feedback, number)
        for thread in chunk:
            yield thread.record()
        finished += len(chunk)


@dataclass(frozen=True)
class _Work:
    constitution: Constitution
    settings: LoopSettings
    seed: int
    on_event: OnLoopEvent | None
    items_done: int
    gate: Gate | None

    def draft(self, threads: Sequence[Thread], policy: Engine, drafts: Mapping[str, str] | None) -> None:
        if drafts is not None:
            for thread in threads:
                thread.begin(drafts[thread.item.uid])
            return
        stage = _Stage(policy, "draft", 0, self.settings.draft)
        for thread, answer in self._ask(stage, threads, lambda thread: thread.item.messages):
            thread.begin(answer.text, cut=answer.finish_reason is FinishReason.LENGTH)

    def round(self, threads: Sequence[Thread], feedback: Engine, number: int) -> None:
        drawn: dict[int, Principle] = {}
        for thread in threads:
            if thread.failure is None:
                principle = select_principle(
                    self.constitution, seed=self.seed, uid=thread.item.uid, round=number, tags=thread.item.tags
                )
                if principle is not None:
                    drawn[id(thread)] = principle
        working = [thread for thread in threads if id(thread) in drawn]
        critiques: dict[int, Generation] = {}
        if not self.settings.critique_free:
            stage = _Stage(feedback, "critique", number, self.settings.critique)

            def render(thread: Thread) -> Conversation:
                return render_critique(drawn[id(thread)], thread.item.messages, thread.text)

            for thread, answer in self._ask(stage, working, render):
                critiques[id(thread)] = answer
                reading = read_critique(answer.text)
                if stage.params.temperature == 0.0:  # a sampled ground is no match for the judge's own, which is greedy
                    thread.grounds[drawn[id(thread)].id] = reading.ground
                if not answer.text.strip():
                    thread.fail("critique", "empty_critique", "the feedback model answered nothing")
                elif reading.nothing_to_change:
                    thread.keep(number, drawn[id(thread)], answer)
        faulty = [t for t in working if t.failure is None and not (t.rounds and t.rounds[-1].round == number)]
        self._revise(faulty, feedback, number, drawn, critiques)

    def _revise(
        self,
        threads: Sequence[Thread],
        feedback: Engine,
        number: int,
        drawn: dict[int, Principle],
        critiques: dict[int, Generation],
    ) -> None:
        def render(thread: Thread) -> Conversation:
            principle, critique = drawn[id(thread)], critiques.get(id(thread))
            if critique is None:
                return render_direct_revision(principle, thread.item.messages, thread.text)
            return render_revision(principle, thread.item.messages, thread.text, critique.text.strip())

        def draw(some: Sequence[Thread], attempt: int) -> _Drawn:
            params = self.settings.revision
            if attempt and self.settings.gate and params.temperature == 0.0:
                params = params.model_copy(update={"temperature": self.settings.gate.retry_temperature})
            stage = _Stage(feedback, "retry" if attempt else "revision", number, params, attempt)
            found = {id(thread): _candidate(answer) for thread, answer in self._ask(stage, some, render)}
            # Answers come as they are ready, and known ones first; the gate's batches must not depend on that.
            return [(thread, found[id(thread)]) for thread in some if id(thread) in found]

        first = draw(threads, 0)
        ruled = self._gated(first, draw, number, drawn) if self.gate else [(*each, None) for each in first]
        for thread, candidate, ruling in ruled:
            thread.revise(number, drawn[id(thread)], critiques.get(id(thread)), candidate, ruling)

    def _gated(
        self, first: _Drawn, draw: Callable[[Sequence[Thread], int], _Drawn], number: int, drawn: dict[int, Principle]
    ) -> Iterator[tuple[Thread, Candidate | None, GateRuling | None]]:
        """What takes the place of each text (None: it stays), with the gate's ruling. An empty revision needs none."""
        assert self.gate is not None
        yield from ((thread, candidate, None) for thread, candidate in first if candidate.text is None)
        heard = [(thread, candidate) for thread, candidate in first if candidate.text is not None]
        threads = [thread for thread, _ in heard]
        places = {id(thread): place for place, thread in enumerate(threads)}

        def redraw(some: Sequence[int], attempt: int) -> dict[int, Candidate]:
            return {places[id(thread)]: candidate for thread, candidate in draw([threads[place] for place in some], attempt)}

        def tell(done: int, total: int) -> None:
            if self.on_event:
                self.on_event(LoopEvent("gate", number, done, total, self.items_done))

        keys = [noise_key(self.seed, thread.item.uid, thread.replica, "gate", number) for thread in threads]
        cases = [thread.case(drawn[id(thread)], self.constitution, key) for thread, key in zip(threads, keys, strict=True)]
        for place, found in self.gate.rule(cases, [candidate for _, candidate in heard], redraw, on_done=tell).items():
            match found:
                case Ruled(candidate, ruling):
                    yield threads[place], candidate, ruling
                case RequestFailure(cause, detail):
                    threads[place].fail("gate", cause, detail)

    def _ask(
        self, stage: _Stage, threads: Sequence[Thread], render: Callable[[Thread], Conversation]
    ) -> Iterator[tuple[Thread, Generation]]:
        """Ask for every thread; a failed request fails its thread alone."""
        asked = [thread for thread in threads if thread.failure is None]
        requests = [
            GenerationRequest(
                messages=render(thread),
                params=stage.params,
                noise_key=noise_key(self.seed, thread.item.uid, thread.replica, stage.name, stage.round, stage.attempt),
            )
            for thread in asked
        ]
        for done, (index, result) in enumerate(stage.engine.generate(requests), start=1):
            if isinstance(result, RequestFailure):
                asked[index].fail(stage.name, result.cause, result.detail)
            else:
                yield asked[index], result
            if self.on_event:
                self.on_event(LoopEvent(stage.name, stage.round, done, len(requests), self.items_done))


def _candidate(answer: Generation) -> Candidate:
    text, note = tidy_revision(answer.text)
    return Candidate(text, note, cut=answer.finish_reason is FinishReason.LENGTH)
