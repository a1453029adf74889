"""An engine that remembers: the same request is never computed twice in a run, nor after a kill.

Implements the `Engine` protocol around another engine. Look up by `request_key`, else compute, then commit.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from cai.engines.base import (
    Engine,
    EngineStatistics,
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationResult,
    GenerationStream,
    RequestFailure,
    ScoreRequest,
    ScoreResult,
    Scores,
    generate_all,
)
from cai.errors import EngineError
from cai.store.calls import KEYS_PER_QUERY, StoredCall, Usage
from cai.store.grouping import score_groups
from cai.store.run_folder import RunFolder
from constitution.messages import Conversation

LASTING_FAILURES = frozenset({"prompt_too_long", "refused_by_template", "no_odds"})
"""Causes that depend on the request, or on answers that are kept, alone. Any other failure is tried again by the next run."""


class MemoisedEngine:
    """`engine`, with every finished call kept in `run`.

    Results come as they are ready: first those already known, then the computed ones. A computed result is on the disk
    after `commit_every` results or a second, whichever comes first, and always before anything else is written to the run:
    a kill loses at most that tail. Scores are computed and kept in groups (`cai.store.grouping`). Identical requests of one
    call are computed once.

    Args:
        engine: Computes what is not known yet.
        run: Keeps the calls.
        commit_every: Commit after this many computed results.
    """

    def __init__(self, engine: Engine, run: RunFolder, *, commit_every: int = 256) -> None:
        if commit_every < 1:
            raise ValueError(f"commit_every is {commit_every}; it must be at least 1")
        self._engine = engine
        self._run = run
        self._commit_every = commit_every
        self._usage: dict[str, Usage] = {}
        self._failures: dict[str, int] = {}
        self._stage: str | None = None

    @property
    def fingerprint(self) -> str:
        return self._engine.fingerprint

    @property
    def context_tokens(self) -> int:
        return self._engine.context_tokens

    def count_tokens(self, messages: Conversation, response_prefix: str = "") -> int:
        return self._engine.count_tokens(messages, response_prefix)

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        return self._engine.request_key(request)

    def statistics(self) -> EngineStatistics:
        return self._engine.statistics()

    def stream(self) -> MemoisedStream:
        return MemoisedStream(self, self._engine.stream())

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        return generate_all(self, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        """In groups that follow from the requests alone (`score_groups`); each is kept as a whole."""
        page: list[list[int]] = []
        for group in score_groups(requests):
            page.append(group)
            if sum(map(len, page)) >= KEYS_PER_QUERY:
                yield from self._score_page(requests, page)
                page = []
        yield from self._score_page(requests, page)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Book the calls made inside under `name`, instead of the stage named in their noise keys."""
        before, self._stage = self._stage, name
        try:
            yield
        finally:
            self._stage = before

    def usage(self) -> dict[str, Usage]:
        """What this process asked for, by stage. What the run has cost in all its processes: `RunFolder.usage`."""
        return dict(self._usage)

    def failures(self) -> dict[str, int]:
        """Calls of this process that failed, by `stage: cause`; remembered failures are among them."""
        return dict(self._failures)

    def stage_name(self, request: GenerationRequest | ScoreRequest) -> str:
        """The stage that a call is booked under."""
        return self._stage or stage_of(request)

    def find(self, key: str) -> GenerationResult | None:
        """The answer that is remembered under a key."""
        known = self._run.calls.find([key]).get(key)
        return read_generation(json.loads(known.result)) if known else None

    def keep(
        self,
        kind: Literal["generate", "score"],
        results: Iterable[tuple[str, str, GenerationResult | ScoreResult]],
        seconds: float,
    ) -> None:
        """Book computed results (key, stage, result) that took so long together, and remember them in one commit.

        A failure that another try may not have is booked and not remembered.
        """
        several = list(results)
        calls: list[StoredCall] = []
        for key, stage, result in several:
            took_s = seconds / len(several)
            prompt_tokens = getattr(result, "prompt_tokens", 0)
            completion_tokens = getattr(result, "completion_tokens", 0)
            failed = isinstance(result, RequestFailure)
            self.book(stage, Usage(1, 0, int(failed), prompt_tokens, completion_tokens, took_s), result)
            if not isinstance(result, RequestFailure) or result.cause in LASTING_FAILURES:
                # ASCII on purpose: JSON escapes carry also what has no UTF-8 form.
                stored = json.dumps({name: getattr(result, name) for name in result.__slots__})  # `asdict` copies deeply
                calls.append(StoredCall(key, kind, stage, stored, prompt_tokens, completion_tokens, took_s, failed))
        self._run.calls.add(*calls)
        if self._run.calls.waiting >= self._commit_every:
            self._run.calls.flush()

    def flush(self) -> None:
        """Everything computed so far is on the disk afterwards."""
        self._run.calls.flush()

    def book(self, stage: str, usage: Usage, result: GenerationResult | ScoreResult) -> None:
        self._usage[stage] = self._usage.get(stage, Usage()) + usage
        if isinstance(result, RequestFailure):
            name = f"{stage}: {result.cause}"
            self._failures[name] = self._failures.get(name, 0) + 1

    def _score_page(self, requests: Sequence[ScoreRequest], page: Sequence[list[int]]) -> Iterator[tuple[int, ScoreResult]]:
        """Several groups, looked up together: what is known of them, then what is not, group by group."""
        keys = {index: self.request_key(requests[index]) for group in page for index in group}
        known = self._run.calls.find(list(keys.values()))
        unknown: list[dict[str, list[int]]] = []
        twins: dict[str, list[int]] = {}
        for group in page:
            fresh: dict[str, list[int]] = {}
            for index in group:
                key = keys[index]
                if key in known:
                    result = read_scores(json.loads(known[key].result))
                    self.book(self.stage_name(requests[index]), Usage(reused=1), result)
                    yield index, result
                elif key in twins:
                    twins[key].append(index)
                else:
                    twins[key] = fresh[key] = [index]
            unknown.append(fresh)
        for fresh in unknown:
            if fresh:
                yield from self._score_group(requests, fresh)

    def _score_group(
        self, requests: Sequence[ScoreRequest], group: Mapping[str, list[int]]
    ) -> Iterator[tuple[int, ScoreResult]]:
        keys, twins = list(group), list(group.values())
        began_s = time.monotonic()
        results = dict(self._engine.score([requests[indices[0]] for indices in twins]))
        _all_answered(len(results), len(twins))
        stages = [self.stage_name(requests[indices[0]]) for indices in twins]
        self.keep(
            "score",
            [(keys[place], stages[place], results[place]) for place in range(len(twins))],
            time.monotonic() - began_s,
        )
        self.flush()
        for place, (first, *others) in enumerate(twins):
            yield first, results[place]
            for other in others:
                self.book(stages[place], Usage(reused=1), results[place])
                yield other, results[place]


class MemoisedStream:
    """A stream whose finished calls are kept; requests that are the same are computed once.

    Args:
        memo: Where they are kept.
        inner: Computes what is not known yet.
    """

    def __init__(self, memo: MemoisedEngine, inner: GenerationStream) -> None:
        self._memo = memo
        self._inner = inner
        self._inbox: deque[tuple[int, GenerationResult]] = deque()
        self._asked: dict[int, tuple[str, str, list[int]]] = {}
        """Ticket of the inner stream → key, stage, and our tickets: the first computes, the others are the same."""
        self._by_key: dict[str, int] = {}
        self._tickets = 0
        self._computed = 0
        """Requests handed to the inner stream."""

    @property
    def works_unread(self) -> bool:
        return self._inner.works_unread

    def submit(self, request: GenerationRequest) -> int:
        ticket, self._tickets = self._tickets, self._tickets + 1
        key, stage = self._memo.request_key(request), self._memo.stage_name(request)
        if key in self._by_key:
            self._asked[self._by_key[key]][2].append(ticket)
        elif (known := self._memo.find(key)) is not None:
            self._memo.book(stage, Usage(reused=1), known)
            self._inbox.append((ticket, known))
        else:
            inner = self._inner.submit(request)
            self._computed += 1
            self._by_key[key] = inner
            self._asked[inner] = key, stage, [ticket]
        return ticket

    def results(self, patience_s: float | None = None) -> Iterator[tuple[int, GenerationResult]]:
        """Answers as they are ready: those already known before the others."""
        try:
            while self._inbox or self._asked:
                yield from self._known()
                last_s = time.monotonic()
                for inner, result in self._inner.results(patience_s):
                    key, stage, (first, *others) = self._asked.pop(inner)
                    del self._by_key[key]
                    self._memo.keep("generate", [(key, stage, result)], time.monotonic() - last_s)
                    self._inbox.append((first, result))
                    for other in others:
                        self._memo.book(stage, Usage(reused=1), result)
                        self._inbox.append((other, result))
                    yield from self._known()
                    last_s = time.monotonic()  # what the caller did with the result is not the model's time
                if self._inbox:
                    continue
                if patience_s is not None and time.monotonic() - last_s >= patience_s:
                    return  # the others are on their way
                if self._asked:
                    _all_answered(self._computed - len(self._asked), self._computed)
        finally:
            self._memo.flush()

    def close(self) -> None:
        self._inner.close()
        self._asked.clear()
        self._by_key.clear()
        self._inbox.clear()
        self._memo.flush()

    def _known(self) -> Iterator[tuple[int, GenerationResult]]:
        while self._inbox:
            yield self._inbox.popleft()


def _all_answered(answered: int, asked: int) -> None:
    if answered != asked:
        raise EngineError(f"the engine answered {answered} of {asked} requests.", "Please report this; answers are kept.")


def stage_of(request: GenerationRequest | ScoreRequest) -> str:
    """The stage in a noise key `seed/uid/replica/stage/round` (the uid may hold slashes of its own); `score` for scores."""
    if isinstance(request, ScoreRequest):
        return "score"
    parts = request.noise_key.rsplit("/", 2)
    return parts[1] if len(parts) == 3 else "generate"


def _read_failure(stored: dict[str, Any]) -> RequestFailure | None:
    return RequestFailure(stored["cause"], stored["detail"]) if "cause" in stored else None


def read_generation(stored: dict[str, Any]) -> GenerationResult:
    """The answer in a stored call's `result`, as it was given."""
    return _read_failure(stored) or Generation(
        text=stored["text"],
        finish_reason=FinishReason(stored["finish_reason"]),
        prompt_tokens=stored["prompt_tokens"],
        completion_tokens=stored["completion_tokens"],
        thoughts=stored.get("thoughts", ""),
    )


def read_scores(stored: dict[str, Any]) -> ScoreResult:
    """The scores in a stored call's `result`, as they were given."""
    return _read_failure(stored) or Scores(logps=tuple(stored["logps"]), prompt_tokens=stored["prompt_tokens"])
