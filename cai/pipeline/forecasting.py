"""An engine that computes nothing: it answers from the stored calls, and counts those that would have to be made.

Implements the `Engine` protocol around an engine whose weights are never read. The stages themselves are run on it, so that it
knows nothing of them: what they would ask is what is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from cai.engines.base import (
    Engine,
    EngineStatistics,
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationResult,
    RequestFailure,
    ScoreRequest,
    ScoreResult,
    Scores,
    generate_all,
)
from cai.engines.immediate import ImmediateStream
from cai.errors import ModelError
from cai.store.calls import CallTable
from cai.store.memo import read_generation, read_scores, stage_of
from constitution.messages import Conversation

NOT_MADE = "not_made_yet"
"""Cause of the failure that a call gets which is yet to be made."""
EXAMPLES = 1000
"""Stored answers of a stage from which a guess is drawn."""
_NOT_MADE = RequestFailure(NOT_MADE, "a call that is yet to be made")
_FILLER = tuple("a reply that is yet to be written says what one would like to know and why it is so".split())  # noqa: SIM905


@dataclass(slots=True)
class StageForecast:
    """What one stage asks of the model: `reused` calls are stored, `calls` are to be made.

    `new_tokens` are those written, as guessed (0 where nothing was guessed); `most_new_tokens` those of answers of full length.
    """

    reused: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    most_new_tokens: int = 0


@dataclass
class Tally:
    """Calls counted so far, over all engines of a plan. A call that two engines ask alike is made once."""

    stages: dict[str, StageForecast] = field(default_factory=dict[str, StageForecast])
    seen: set[str] = field(default_factory=set[str])

    def at(self, stage: str) -> StageForecast:
        return self.stages.setdefault(stage, StageForecast())

    @property
    def calls(self) -> int:
        return sum(stage.calls for stage in self.stages.values())


class ForecastingEngine:
    """`engine`, if its calls were made.

    A call that is not stored fails with `NOT_MADE`, so that what hangs on its answer is not asked; or, with `guess`, is
    answered by a stored answer of the same stage, so that what follows it is asked as often and at such length as before.

    Args:
        engine: Has the tokenizer and the keys; is asked for no answer.
        calls: The stored calls; None: nothing is stored.
        tally: Counts what is asked.
        guess: Whether to go on with guessed answers.
        fingerprint: Of the model that would be asked, where it is not there yet (one that will be trained).
    """

    def __init__(
        self, engine: Engine, calls: CallTable | None, tally: Tally, *, guess: bool, fingerprint: str | None = None
    ) -> None:
        self._engine = engine
        self._calls = calls
        self._tally = tally
        self._guess = guess
        self._fingerprint = fingerprint
        self._stored_texts: dict[str, list[Generation]] = {}
        self._stored_logps: dict[str, list[tuple[float, ...]]] = {}

    @property
    def fingerprint(self) -> str:
        return self._fingerprint or self._engine.fingerprint

    @property
    def context_tokens(self) -> int:
        return self._engine.context_tokens

    def count_tokens(self, messages: Conversation, response_prefix: str = "") -> int:
        return self._engine.count_tokens(messages, response_prefix)

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        key = self._engine.request_key(request)
        return key if self._fingerprint is None else f"{self._fingerprint} {key}"

    def statistics(self) -> EngineStatistics:
        """Nothing: no model works."""
        return EngineStatistics()

    def stream(self) -> ImmediateStream:
        return ImmediateStream(self._generation)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        return generate_all(self, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        return ((index, self._scored(request)) for index, request in enumerate(requests))

    def _generation(self, request: GenerationRequest) -> GenerationResult:
        stage, key = stage_of(request), self.request_key(request)
        if (known := self._known(key, stage)) is not None:
            return read_generation(known)
        prompt_tokens = self._prompt_tokens(stage, key, request)
        if isinstance(prompt_tokens, RequestFailure):
            return prompt_tokens
        room = min(request.params.max_tokens, self.context_tokens - prompt_tokens)
        guess = self._guessed_text(stage, key, prompt_tokens, room) if self._guess else None
        self._book(stage, key, prompt_tokens, guess.completion_tokens if guess else 0, room)
        return guess or _NOT_MADE

    def _scored(self, request: ScoreRequest) -> ScoreResult:
        stage, key = stage_of(request), self.request_key(request)
        if (known := self._known(key, stage)) is not None:
            return read_scores(known)
        prompt_tokens = self._prompt_tokens(stage, key, request)
        if isinstance(prompt_tokens, RequestFailure):
            return prompt_tokens
        self._book(stage, key, prompt_tokens, 0, 0)
        wanted = len(request.continuations)
        return self._guessed_scores(stage, key, prompt_tokens, wanted) if self._guess else _NOT_MADE

    def _known(self, key: str, stage: str) -> dict[str, Any] | None:
        """The stored result of a call."""
        found = self._calls.find([key]).get(key) if self._calls is not None else None
        if found is None:
            return None
        self._tally.at(stage).reused += 1
        return json.loads(found.result)

    def _prompt_tokens(self, stage: str, key: str, request: GenerationRequest | ScoreRequest) -> int | RequestFailure:
        """Length of a call that is not stored; or how the engine would refuse it, which costs a call and no token."""
        try:
            tokens = self.count_tokens(request.messages, request.response_prefix)
        except ModelError as error:
            return RequestFailure("refused_by_template", error.problem)
        if tokens >= self.context_tokens:
            self._book(stage, key, 0, 0, 0)
            return RequestFailure("prompt_too_long", f"{tokens:,} tokens; the model takes {self.context_tokens:,}")
        return tokens

    def _book(self, stage: str, key: str, prompt_tokens: int, new_tokens: int, most: int) -> None:
        counted = self._tally.at(stage)
        if key in self._tally.seen:
            counted.reused += 1
            return
        self._tally.seen.add(key)
        counted.calls += 1
        counted.prompt_tokens += prompt_tokens
        counted.new_tokens += new_tokens
        counted.most_new_tokens += most

    def _guessed_text(self, stage: str, key: str, prompt_tokens: int, room: int) -> Generation:
        """A stored answer of the stage, always the same for the same call; without any, one of full length."""
        if not (stored := self._texts(stage)):
            words = [_FILLER[_number(f"{key} {place}", len(_FILLER))] for place in range(room)]
            return Generation(" ".join(words), FinishReason.STOP, prompt_tokens, room)
        drawn = stored[_number(key, len(stored))]
        if drawn.completion_tokens > room:
            return Generation(drawn.text, FinishReason.LENGTH, prompt_tokens, room)
        return Generation(drawn.text, drawn.finish_reason, prompt_tokens, drawn.completion_tokens)

    def _guessed_scores(self, stage: str, key: str, prompt_tokens: int, wanted: int) -> Scores:
        stored = [logps for logps in self._logps(stage) if len(logps) == wanted]
        if stored:
            return Scores(stored[_number(key, len(stored))], prompt_tokens)
        return Scores(tuple(-1.0 - _number(f"{key} {place}", 1000) / 100 for place in range(wanted)), prompt_tokens)

    def _texts(self, stage: str) -> list[Generation]:
        if stage not in self._stored_texts:
            read = (read_generation(json.loads(text)) for text in self._examples(stage, "generate"))
            self._stored_texts[stage] = [each for each in read if isinstance(each, Generation)]
        return self._stored_texts[stage]

    def _logps(self, stage: str) -> list[tuple[float, ...]]:
        if stage not in self._stored_logps:
            read = (read_scores(json.loads(text)) for text in self._examples(stage, "score"))
            self._stored_logps[stage] = [each.logps for each in read if isinstance(each, Scores)]
        return self._stored_logps[stage]

    def _examples(self, stage: str, kind: Literal["generate", "score"]) -> list[str]:
        return self._calls.examples(stage, kind, EXAMPLES) if self._calls is not None else []


def _number(text: str, below: int) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") % below
