"""An engine whose answers come from a table: for dry runs, and for tests of logic that need no model.

Knows no tokenizer and imports no torch: its tokens are words. It keeps the contract of `cai.engines.base` all the same
(context limit, `max_tokens`, stop strings, keys, failures as data), so that what works with it works with a model.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TypeAlias

from cai.engines.base import (
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
from cai.models.tool_turns import texts_of
from constitution.messages import Conversation, spelt

Answers: TypeAlias = Mapping[str, str] | Callable[[GenerationRequest], str | RequestFailure]
Logps: TypeAlias = Mapping[str, float] | Callable[[ScoreRequest], Sequence[float] | RequestFailure]

_WORD = re.compile(r"\S+")


class ScriptedEngine:
    """Answers as it is told. Implements `cai.engines.base.Engine`.

    Args:
        answer: What is answered to a request. A mapping answers with the value of its first key that stands in the last
            message ("" stands in every message, so it is the answer to all else); a function is asked with the request.
        scores: Log-probabilities in nats: of each continuation by its text, or by a function of the request.
        context_tokens: The longest prompt plus answer, in words.
        name: Part of the fingerprint. Two functions cannot be told apart, so give them different names where it matters.
        keep_asked: Keep every request in `asked`; without it, memory does not grow.

    What the script does not foresee is a `RequestFailure` with the cause `not_scripted`.
    """

    def __init__(
        self,
        answer: Answers,
        scores: Logps | None = None,
        *,
        context_tokens: int = 4096,
        name: str = "",
        keep_asked: bool = True,
    ) -> None:
        self._answer = answer
        self._scores: Logps = scores if scores is not None else dict[str, float]()
        self._context_tokens = context_tokens
        self._name = name
        self.asked: MutableSequence[GenerationRequest | ScoreRequest] = [] if keep_asked else deque(maxlen=0)
        """Every request so far, in the order in which they were answered; none without `keep_asked`."""
        self._statistics = EngineStatistics()

    @property
    def fingerprint(self) -> str:
        """Digest of name, tables and context limit."""
        answers = "function" if callable(self._answer) else list(self._answer.items())  # their order decides
        scores = "function" if callable(self._scores) else sorted(self._scores.items())
        return _digest(["scripted", self._name, answers, scores, self._context_tokens])

    @property
    def context_tokens(self) -> int:
        """The longest prompt plus answer, in words."""
        return self._context_tokens

    def count_tokens(self, messages: Conversation, response_prefix: str = "") -> int:
        """Words of the conversation and the prefix, and one for each turn, the assistant's own included."""
        texts = [*texts_of(messages), response_prefix]
        return sum(len(_WORD.findall(text)) for text in texts) + len(messages) + 1

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        """Hash of the whole request; a function may look at any part of it."""
        turns = [spelt(each) for each in request.messages]
        if isinstance(request, ScoreRequest):
            content = ["score", turns, request.response_prefix, request.continuations]
        else:
            params = request.params.model_dump(mode="json")
            content = ["generate", turns, request.response_prefix, params, request.noise_key]
        return _digest([self.fingerprint, content])

    def statistics(self) -> EngineStatistics:
        """What has been answered so far, in words."""
        return self._statistics

    def stream(self) -> ImmediateStream:
        return ImmediateStream(self.answered)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        """Answer requests, in their order."""
        return generate_all(self, requests)

    def answered(self, request: GenerationRequest) -> GenerationResult:
        """The answer to one request."""
        self.asked.append(request)
        result = self._generation(request)
        if isinstance(result, Generation):
            self._statistics = replace(
                self._statistics,
                prompt_tokens=self._statistics.prompt_tokens + result.prompt_tokens,
                completion_tokens=self._statistics.completion_tokens + result.completion_tokens,
            )
        return result

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        """Score requests, in their order."""
        for index, request in enumerate(requests):
            self.asked.append(request)
            yield index, self._scored(request)

    def _generation(self, request: GenerationRequest) -> GenerationResult:
        prompt_tokens = self.count_tokens(request.messages, request.response_prefix)
        if prompt_tokens >= self._context_tokens:
            return self._too_long(prompt_tokens)
        text = self._look_up(request)
        if isinstance(text, RequestFailure):
            return text
        finish = FinishReason.STOP
        found = [place for stop in request.params.stop if stop and (place := text.find(stop)) >= 0]
        if found:
            text = text[: min(found)]
        words = list(_WORD.finditer(text))
        most = min(request.params.max_tokens, self._context_tokens - prompt_tokens)
        if len(words) > most:
            text, finish = text[: words[most - 1].end()], FinishReason.LENGTH
        return Generation(text, finish, prompt_tokens, min(len(words), most))

    def _look_up(self, request: GenerationRequest) -> str | RequestFailure:
        if callable(self._answer):
            return self._answer(request)
        asked = request.messages[-1].content
        for part, answer in self._answer.items():
            if part in asked:
                return answer
        return _not_scripted(asked)

    def _scored(self, request: ScoreRequest) -> ScoreResult:
        prompt_tokens = self.count_tokens(request.messages, request.response_prefix)
        longest = prompt_tokens + max((len(_WORD.findall(each)) for each in request.continuations), default=0)
        if longest > self._context_tokens:
            return self._too_long(longest)
        if not callable(self._scores):
            table = self._scores
            unknown = next((each for each in request.continuations if each not in table), None)
            if unknown is not None:
                return _not_scripted(unknown)
            return Scores(tuple(table[each] for each in request.continuations), prompt_tokens)
        logps = self._scores(request)
        if isinstance(logps, RequestFailure):
            return logps
        if len(logps) != len(request.continuations):
            raise ValueError(f"{len(logps)} log-probabilities for {len(request.continuations)} continuations")
        return Scores(tuple(logps), prompt_tokens)

    def _too_long(self, tokens: int) -> RequestFailure:
        return RequestFailure("prompt_too_long", f"the prompt has {tokens:,} words; the script takes {self._context_tokens:,}")


def _not_scripted(text: str) -> RequestFailure:
    return RequestFailure("not_scripted", f"the script has no answer to {text[:60]!r}")


def _digest(content: object) -> str:
    return sha256(json.dumps(content).encode()).hexdigest()
