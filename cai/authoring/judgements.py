"""What the labelling model says of two replies under one principle, by any method of the labels.

Asks through the labels' own code, so that a test of a principle is judged exactly as a pair of a run is. Every call is
remembered in a run folder under the key of what determines it: model, rendered tokens and parameters, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from cai.engines.base import (
    Engine,
    GenerationRequest,
    GenerationResult,
    GenerationStream,
    RequestFailure,
    ScoreRequest,
    ScoreResult,
    generate_all,
)
from cai.labels import AnswerScore, Compared, Judged, LabelSettings, compare, score_answers
from cai.labels.alone import contrast_requests
from cai.records import Method
from cai.store import MemoisedEngine, RunFolder
from constitution.messages import Conversation, user
from constitution.rendering import LETTERS, render_comparison, render_critique, render_yes_no
from constitution.schema import Principle

OnJudged: TypeAlias = Callable[[Method, int, int], None]
"""(method, calls answered, calls in all)."""


@dataclass(frozen=True, slots=True)
class Question:
    """Is `better` judged better than `worse`? `labels` are what the judge by letters calls the two replies."""

    principle: Principle
    prompt: str
    better: str
    worse: str
    method: Method
    labels: tuple[str, str] = LETTERS


@dataclass(frozen=True, slots=True)
class Judgement:
    """All figures are log-odds in nats.

    Args:
        margin_nats: That `better` is better; the mean over both orders.
        parts_nats: letters: the margin with `better` first, and with `better` second. Else the score of `better` and of `worse`
            (pointwise: the log-odds that there is nothing to change), each judged alone; the margin is their difference.
        grounds: pointwise: what the critique says of `better` and of `worse` before its verdict. Empty for other methods.
    """

    margin_nats: float
    parts_nats: tuple[float, float]
    grounds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A judgement, or why there is none. `remembered`: no call had to be computed for it."""

    outcome: Judgement | RequestFailure
    remembered: bool

    def preferred(self, min_margin_nats: float) -> int:
        """1: `better`, −1: `worse`, 0: neither, because the margin is below the threshold or there is no judgement."""
        if isinstance(self.outcome, RequestFailure) or abs(self.outcome.margin_nats) < min_margin_nats:
            return 0
        return (self.outcome.margin_nats > 0) - (self.outcome.margin_nats < 0)


_OnDone: TypeAlias = Callable[[int, int], None]
_Judging: TypeAlias = Callable[[Sequence[Question], _OnDone | None], list[Judgement | RequestFailure]]


class Judge:
    """A labelling model that remembers its calls in a run folder."""

    def __init__(
        self, engine: Engine, folder: RunFolder, *, ground_tokens: int, contrast_against: Literal["none", "opposite"] = "none"
    ) -> None:
        self._computing = _Watched(engine)
        self._engine = MemoisedEngine(self._computing, folder)
        self._ground_tokens = ground_tokens
        self._against: Literal["none", "opposite"] = contrast_against

    def ask(self, questions: Sequence[Question], on_judged: OnJudged | None = None) -> list[Answer]:
        """Judge every question, in the order given. A failed request fails its own question alone."""
        outcomes: dict[int, Judgement | RequestFailure] = {}
        methods: list[Method] = [question.method for question in questions]
        for method in dict.fromkeys(methods):
            judged: _Judging = self._by_letters if method == "letters" else partial(self._alone, method)
            numbers = [number for number, each in enumerate(methods) if each == method]
            told = partial(on_judged, method) if on_judged else None
            outcomes |= zip(numbers, judged([questions[number] for number in numbers], told), strict=True)
        return [
            Answer(outcomes[number], remembered=self._computing.asked.isdisjoint(self._prompts(question)))
            for number, question in enumerate(questions)
        ]

    def _by_letters(self, questions: Sequence[Question], on_done: _OnDone | None) -> list[Judgement | RequestFailure]:
        asked = [Compared((user(q.prompt),), q.better, q.worse, q.principle, q.labels) for q in questions]
        with self._engine.stage("letters"):
            found = compare(self._engine, asked, on_done=on_done)
        return [
            each if isinstance(each, RequestFailure) else Judgement(sum(each.margins_nats) / 2, each.margins_nats)
            for each in found
        ]

    def _alone(
        self, method: Method, questions: Sequence[Question], on_done: _OnDone | None
    ) -> list[Judgement | RequestFailure]:
        # A reply that stands in several questions is judged once: a changed worse reply keeps its better one.
        replies = {
            (q.principle.id, q.prompt, reply): Judged((user(q.prompt),), reply, q.principle, "test/verdict/0")
            for q in questions
            for reply in (q.better, q.worse)
        }
        settings = LabelSettings.model_construct(
            method=method, ground_tokens=self._ground_tokens, contrast_against=self._against
        )
        with self._engine.stage(method):
            scores = score_answers(self._engine, list(replies.values()), settings, on_done=on_done)
        found = dict(zip(replies, scores, strict=True))
        return [
            _difference(found[q.principle.id, q.prompt, q.better], found[q.principle.id, q.prompt, q.worse]) for q in questions
        ]

    def _prompts(self, question: Question) -> list[Conversation]:
        """Every conversation that the question makes the model read."""
        conversation, better, worse = (user(question.prompt),), question.better, question.worse
        principle = question.principle
        match question.method:
            case "pointwise":
                return [render_critique(principle, conversation, reply) for reply in (better, worse)]
            case "yes_no":
                return [render_yes_no(principle, conversation, reply) for reply in (better, worse)]
            case "contrast":
                asked = [Judged(conversation, reply, principle, "") for reply in (better, worse)]
                return [request.messages for each in asked for request in contrast_requests(each, self._against)]
            case "letters":
                orders = ((better, worse), (worse, better))
                return [render_comparison(principle, conversation, *order, question.labels) for order in orders]


def _difference(better: AnswerScore | RequestFailure, worse: AnswerScore | RequestFailure) -> Judgement | RequestFailure:
    if isinstance(better, RequestFailure):
        return better
    if isinstance(worse, RequestFailure):
        return worse
    grounds = (better.ground, worse.ground) if better.ground or worse.ground else ()
    return Judgement(better.nats - worse.nats, (better.nats, worse.nats), grounds)


class _WatchedStream:
    def __init__(self, inner: GenerationStream, asked: set[Conversation]) -> None:
        self._inner, self._asked = inner, asked
        self.works_unread, self.results, self.close = inner.works_unread, inner.results, inner.close

    def submit(self, request: GenerationRequest) -> int:
        self._asked.add(request.messages)
        return self._inner.submit(request)


class _Watched:
    """An engine that notes which conversations it had to read: under a memo, those that were not known yet."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.fingerprint, self.context_tokens = inner.fingerprint, inner.context_tokens
        self.count_tokens, self.request_key = inner.count_tokens, inner.request_key
        self.statistics = inner.statistics
        self.asked: set[Conversation] = set()

    def stream(self) -> _WatchedStream:
        return _WatchedStream(self._inner.stream(), self.asked)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        return generate_all(self, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        self.asked.update(request.messages for request in requests)
        return self._inner.score(requests)
