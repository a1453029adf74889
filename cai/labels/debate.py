"""Debate before the letter: each answer has an advocate, and the judge reads what both said (arXiv 1805.00899).

Per pair and principle one statement is written for each answer, then rebuttals, each side at once in every turn. Advocates know
no letters, so that one debate serves both orders of the comparison. Statements are greedy: a debate is a function of its pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cai.engines.base import (
    Engine,
    EngineStatistics,
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationResult,
    GenerationStream,
    RequestFailure,
    SamplingParams,
    ScoreRequest,
    ScoreResult,
)
from cai.labels.settings import DebateSettings
from constitution.messages import Conversation
from constitution.rendering import render_argument

if TYPE_CHECKING:
    from cai.labels.letters import Compared

Turns: TypeAlias = tuple[tuple[str, str], ...]
"""By turn of a debate, what was said for the first answer and for the second."""
CUT = "…"


@dataclass(frozen=True, slots=True)
class Debate:
    """What was said about one pair."""

    turns: Turns

    @property
    def arguments(self) -> tuple[str, str]:
        """All that was said for the first answer, and for the second."""
        return " ".join(turn[0] for turn in self.turns).strip(), " ".join(turn[1] for turn in self.turns).strip()


def debate(
    engine: Engine,
    asked: Sequence[Compared],
    settings: DebateSettings,
    *,
    on_done: Callable[[int], None] | None = None,
) -> list[Debate | RequestFailure]:
    """Hold a debate about every pair, in the order given; a failed statement is a failure of its own pair alone.

    An advocate who says nothing has said nothing: that is no failure, and the judge is told.

    Args:
        engine: Speaks for both sides.
        asked: The pairs.
        settings: Turns, and the longest statement.
        on_done: Called with the statements made so far.
    """
    found: list[Debate | RequestFailure] = [Debate(()) for _ in asked]
    done = 0
    for turn in range(settings.rounds + 1):
        places = [place for place, each in enumerate(found) if isinstance(each, Debate)]
        requests = [
            statement_request(asked[place], _so_far(found[place]), settings, turn, second=second)
            for place in places
            for second in (False, True)
        ]
        said: list[GenerationResult] = [RequestFailure("no_answer", "the engine gave no result")] * len(requests)
        for index, result in engine.generate(requests):
            said[index] = result
            done += 1
            if on_done:
                on_done(done)
        for number, place in enumerate(places):
            found[place] = _with_turn(_so_far(found[place]), *said[2 * number : 2 * number + 2])
    return found


def statements(pairs: int, settings: DebateSettings) -> int:
    """How many are made at most."""
    return 2 * pairs * (settings.rounds + 1)


def statement_request(each: Compared, before: Turns, settings: DebateSettings, turn: int, *, second: bool) -> GenerationRequest:
    """What the advocate of one of the two answers is asked."""
    reply, other = (each.second, each.first) if second else (each.first, each.second)
    said = tuple((turn[1], turn[0]) for turn in before) if second else before
    messages = render_argument(each.principle, each.conversation, reply, other, said)
    params = SamplingParams(temperature=0.0, max_tokens=settings.argument_tokens)
    return GenerationRequest(messages, params, f"0/compared/0/argue/{turn}")


def with_advocate(labellers: Sequence[Engine], policy: Callable[[], Engine], settings: DebateSettings | None) -> list[Engine]:
    """The labelling models as a debate needs them: where the policy argues, it writes what they would write."""
    if settings is None or settings.advocate != "policy":
        return list(labellers)
    return [AdvocateAndJudge(policy(), judge) for judge in labellers]


class AdvocateAndJudge:
    """One engine made of two: the advocate writes, the judge scores.

    The judge alone gives it its fingerprint: on whom else labels depend, the policy, stands in their key already.
    """

    def __init__(self, advocate: Engine, judge: Engine) -> None:
        self._advocate, self._judge = advocate, judge

    @property
    def fingerprint(self) -> str:
        return self._judge.fingerprint

    @property
    def context_tokens(self) -> int:
        return min(self._advocate.context_tokens, self._judge.context_tokens)

    def count_tokens(self, messages: Conversation, response_prefix: str = "") -> int:
        return self._judge.count_tokens(messages, response_prefix)

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        return (self._judge if isinstance(request, ScoreRequest) else self._advocate).request_key(request)

    def statistics(self) -> EngineStatistics:
        return self._advocate.statistics() + self._judge.statistics()

    def stream(self) -> GenerationStream:
        return self._advocate.stream()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        return self._advocate.generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        return self._judge.score(requests)


def _so_far(found: Debate | RequestFailure) -> Turns:
    assert isinstance(found, Debate), "only debates go on"
    return found.turns


def _with_turn(before: Turns, first: GenerationResult, second: GenerationResult) -> Debate | RequestFailure:
    if isinstance(first, RequestFailure):
        return first
    if isinstance(second, RequestFailure):
        return second
    return Debate((*before, (_statement(first), _statement(second))))


def _statement(answer: Generation) -> str:
    text = " ".join(answer.text.split())
    return f"{text}{CUT}" if text and answer.finish_reason is FinishReason.LENGTH else text
