"""An engine that remembers: the same request is never computed twice in a run, nor after a kill.

Implements the `Engine` protocol around another engine. Look up by `request_key`, else compute, then commit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal, TypeVar

from cai.engines.base import (
    Engine,
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationResult,
    RequestFailure,
    ScoreRequest,
    ScoreResult,
    Scores,
)
from cai.errors import EngineError
from cai.store.calls import KEYS_PER_QUERY, StoredCall, Usage
from cai.store.run_folder import RunFolder
from constitution.messages import Conversation

LASTING_FAILURES = frozenset({"prompt_too_long"})
"""Causes that depend on the request alone, and so are remembered. Any other failure is tried again by the next run."""

SCORES_TOGETHER = 32
"""Score requests computed, and remembered, together. Where an engine is not exact (on a GPU), a sum of logs differs in its last
bit with what else is in the batch, so the batches of a resumed run must be those of an uninterrupted one: they follow from the
requests alone, and none is ever half known."""

Request = TypeVar("Request", GenerationRequest, ScoreRequest)
Result = TypeVar("Result", Generation | RequestFailure, Scores | RequestFailure)


class MemoisedEngine:
    """`engine`, with every finished call kept in `run`.

    Results come as they are ready: first those already known, then the computed ones. A computed result is on the disk
    after `commit_every` results or a second, whichever comes first, and always before anything else is written to the run:
    a kill loses at most that tail. Scores are computed and kept in groups (see `SCORES_TOGETHER`). Identical requests of
    one call are computed once.

    Args:
        engine: Computes what is not known yet.
        run: Keeps the calls.
        commit_every: Commit after this many computed results.
    """

    def __init__(self, engine: Engine, run: RunFolder, *, commit_every: int = 32) -> None:
        if commit_every < 1:
            raise ValueError(f"commit_every is {commit_every}; it must be at least 1")
        self._engine = engine
        self._run = run
        self._commit_every = commit_every
        self._usage: dict[str, Usage] = {}
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

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        stages = [self._stage or stage_of(request) for request in requests]
        return self._answer("generate", requests, stages, self._engine.generate, read_generation)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        return self._answer(
            "score", requests, [self._stage or stage_of(r) for r in requests], self._engine.score, read_scores, SCORES_TOGETHER
        )

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

    def _answer(
        self,
        kind: Literal["generate", "score"],
        requests: Sequence[Request],
        stages: Sequence[str],
        compute: Callable[[Sequence[Request]], Iterator[tuple[int, Result]]],
        read: Callable[[dict[str, Any]], Result],
        together: int | None = None,
    ) -> Iterator[tuple[int, Result]]:
        same: dict[str, list[int]] = {}
        for start in range(0, len(requests), KEYS_PER_QUERY):
            page = {i: self._engine.request_key(requests[i]) for i in range(start, min(start + KEYS_PER_QUERY, len(requests)))}
            known = self._run.calls.find(list(page.values()))
            for index, key in page.items():
                if key in known:
                    self._book(stages[index], Usage(reused=1))
                    yield index, read(json.loads(known[key].result))
                else:
                    same.setdefault(key, []).append(index)
        groups: dict[int, dict[str, list[int]]] = {}
        for key, indices in same.items():
            groups.setdefault(0 if together is None else indices[0] // together, {})[key] = indices
        for group in groups.values():
            yield from self._compute(kind, requests, stages, compute, group, whole=together is not None)

    def _compute(
        self,
        kind: Literal["generate", "score"],
        requests: Sequence[Request],
        stages: Sequence[str],
        compute: Callable[[Sequence[Request]], Iterator[tuple[int, Result]]],
        group: Mapping[str, list[int]],
        *,
        whole: bool,
    ) -> Iterator[tuple[int, Result]]:
        """Ask the engine for one group of requests. With `whole`, its results are kept, and told, all at once."""
        keys, twins = list(group), list(group.values())
        held: list[StoredCall] = []
        results: list[tuple[int, Result]] = []
        answered = 0
        last = time.monotonic()
        try:
            for position, result in compute([requests[indices[0]] for indices in twins]):
                call = self._booked(kind, keys[position], stages[twins[position][0]], result, time.monotonic() - last)
                answered += 1
                if whole:
                    held += [call] if call else []
                    results.append((position, result))
                else:
                    self._run.calls.add(*([call] if call else []))
                    if self._run.calls.waiting >= self._commit_every:
                        self._run.calls.flush()
                    yield from self._told(twins[position], stages, result)
                last = time.monotonic()  # what the caller did with the result is not the model's time
            self._run.calls.add(*held)
        finally:
            self._run.calls.flush()
        if answered != len(twins):
            raise EngineError(
                f"the engine answered {answered} of {len(twins)} requests.", "Please report this; answers are kept."
            )
        for position, result in results:
            yield from self._told(twins[position], stages, result)

    def _told(self, indices: Sequence[int], stages: Sequence[str], result: Result) -> Iterator[tuple[int, Result]]:
        """The result for a request and for those that are the same."""
        index, *others = indices
        yield index, result
        for other in others:
            self._book(stages[other], Usage(reused=1))
            yield other, result

    def _booked(
        self, kind: Literal["generate", "score"], key: str, stage: str, result: Any, seconds: float
    ) -> StoredCall | None:
        """What to remember of a computed result; None for a failure that another try may not have."""
        failed = isinstance(result, RequestFailure)
        prompt_tokens = getattr(result, "prompt_tokens", 0)
        completion_tokens = getattr(result, "completion_tokens", 0)
        self._book(stage, Usage(1, 0, int(failed), prompt_tokens, completion_tokens, seconds))
        if isinstance(result, RequestFailure) and result.cause not in LASTING_FAILURES:
            return None
        # ASCII on purpose: JSON escapes carry also what has no UTF-8 form.
        return StoredCall(key, kind, stage, json.dumps(asdict(result)), prompt_tokens, completion_tokens, seconds)

    def _book(self, stage: str, usage: Usage) -> None:
        self._usage[stage] = self._usage.get(stage, Usage()) + usage


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
