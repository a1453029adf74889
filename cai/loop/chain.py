"""Draft → critique → revise over many items, in batches: engines in, records out.

Knows no files: durability is the engine's (a `MemoisedEngine` keeps each call). Text of an item depends only on its own noise
key, so records are the same in any chunk size and order. An item that cannot be finished becomes a `FailureRecord`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from cai.engines.base import Engine, FinishReason, Generation, GenerationRequest, RequestFailure, SamplingParams
from cai.loop.settings import LoopSettings
from cai.records import FailureRecord, Item, RevisionRecord, Round, Verdict
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

_LABEL = re.compile(r"\A(?:revision|revised reply|new reply|reply|answer)\s*:\s*", re.IGNORECASE)
_QUOTES = (('"', '"'), ("“", "”"), ("«", "»"))


@dataclass
class _Thread:
    """One (item, replica) on its way through the loop."""

    item: Item
    replica: int
    draft: str = ""
    draft_cut: bool = False
    rounds: list[Round] = field(default_factory=list[Round])
    failure: FailureRecord | None = None

    @property
    def text(self) -> str:
        revised = [r.revision for r in self.rounds if r.revision is not None]
        return revised[-1] if revised else self.draft

    def fail(self, stage: str, cause: str, detail: str) -> None:
        self.failure = FailureRecord(uid=self.item.uid, replica=self.replica, stage=stage, cause=cause, detail=detail)

    def record(self) -> RevisionRecord | FailureRecord:
        return self.failure or RevisionRecord(
            uid=self.item.uid,
            replica=self.replica,
            messages=self.item.messages,
            tags=self.item.tags,
            facts=self.item.facts,
            draft=self.draft,
            draft_cut=self.draft_cut,
            rounds=tuple(self.rounds),
        )


@dataclass(frozen=True)
class _Stage:
    engine: Engine
    name: str
    round: int
    params: SamplingParams


def noise_key(seed: int, uid: str, replica: int, stage: str, round: int = 0) -> str:  # noqa: A002 - the term of the field
    """What a call's sampling noise is drawn from."""
    return f"{seed}/{uid}/{replica}/{stage}/{round}"


def run_loop(
    items: Iterable[Item],
    constitution: Constitution,
    policy: Engine,
    feedback: Engine,
    settings: LoopSettings,
    *,
    seed: int,
    on_event: OnLoopEvent | None = None,
) -> Iterator[RevisionRecord | FailureRecord]:
    """Draft every item, then critique and revise it `settings.rounds` times.

    Round r + 1 starts a fresh feedback conversation about the newest revision. "Nothing to change" keeps the text and costs no
    revision. A round for which no principle applies is skipped.

    Yields:
        One record per (item, replica), in the order of `items`.
    """
    threads = (_Thread(item, replica) for item in items for replica in range(settings.replicas))
    finished = 0
    while chunk := list(islice(threads, settings.chunk_items)):
        work = _Work(constitution, settings, seed, on_event, finished)
        work.draft(chunk, policy)
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

    def draft(self, threads: Sequence[_Thread], policy: Engine) -> None:
        stage = _Stage(policy, "draft", 0, self.settings.draft)
        for thread, answer in self._ask(stage, threads, lambda thread: thread.item.messages):
            thread.draft = answer.text.strip()
            thread.draft_cut = answer.finish_reason is FinishReason.LENGTH
            if not thread.draft:
                thread.fail("draft", "empty_draft", "the policy answered nothing")

    def round(self, threads: Sequence[_Thread], feedback: Engine, number: int) -> None:
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

            def render(thread: _Thread) -> Conversation:
                return render_critique(drawn[id(thread)], thread.item.messages, thread.text)

            for thread, answer in self._ask(stage, working, render):
                critiques[id(thread)] = answer
                if not answer.text.strip():
                    thread.fail("critique", "empty_critique", "the feedback model answered nothing")
                elif read_critique(answer.text).nothing_to_change:
                    thread.rounds.append(_kept(number, drawn[id(thread)], answer))
        faulty = [t for t in working if t.failure is None and not (t.rounds and t.rounds[-1].round == number)]
        self._revise(faulty, feedback, number, drawn, critiques)

    def _revise(
        self,
        threads: Sequence[_Thread],
        feedback: Engine,
        number: int,
        drawn: dict[int, Principle],
        critiques: dict[int, Generation],
    ) -> None:
        def render(thread: _Thread) -> Conversation:
            principle, critique = drawn[id(thread)], critiques.get(id(thread))
            if critique is None:
                return render_direct_revision(principle, thread.item.messages, thread.text)
            return render_revision(principle, thread.item.messages, thread.text, critique.text.strip())

        for thread, answer in self._ask(_Stage(feedback, "revision", number, self.settings.revision), threads, render):
            critique = critiques.get(id(thread))
            revision, note = tidy_revision(answer.text)
            thread.rounds.append(
                Round(
                    round=number,
                    principle_id=drawn[id(thread)].id,
                    critique=critique.text.strip() if critique else "",
                    verdict=Verdict.FAULT,
                    revision=revision,
                    critique_cut=critique is not None and critique.finish_reason is FinishReason.LENGTH,
                    revision_cut=answer.finish_reason is FinishReason.LENGTH,
                    note=note,
                )
            )

    def _ask(
        self, stage: _Stage, threads: Sequence[_Thread], render: Callable[[_Thread], Conversation]
    ) -> Iterator[tuple[_Thread, Generation]]:
        """Ask for every thread; a failed request fails its thread alone."""
        asked = [thread for thread in threads if thread.failure is None]
        requests = [
            GenerationRequest(
                messages=render(thread),
                params=stage.params,
                noise_key=noise_key(self.seed, thread.item.uid, thread.replica, stage.name, stage.round),
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


def _kept(number: int, principle: Principle, critique: Generation) -> Round:
    return Round(
        round=number,
        principle_id=principle.id,
        critique=critique.text.strip(),
        verdict=Verdict.NOTHING_TO_CHANGE,
        revision=None,
        critique_cut=critique.finish_reason is FinishReason.LENGTH,
    )


def tidy_revision(text: str) -> tuple[str | None, str]:
    """Take off what cannot belong to a reply: a label such as "Revision:" in front, quotes around the whole.

    Returns:
        The revision, or None when nothing is left, and what was done ("" for nothing).
    """
    notes: list[str] = []
    revision = text.strip()
    bare = _LABEL.sub("", revision, count=1)
    if bare != revision:
        notes.append("label taken off")
        revision = bare.strip()
    for left, right in _QUOTES:
        inner = revision[1:-1]
        if len(revision) > 2 and revision[0] == left and revision[-1] == right and left not in inner and right not in inner:
            notes.append("quotes taken off")
            revision = inner.strip()
    if not revision:
        return None, "empty revision: the text before it was kept"
    return revision, ", ".join(notes)
