"""Letter labels: the judge sees both answers and names A or B, in both orders.

Per order, the probabilities of the letter's token variants ("A", " A") are added up and normalised over A and B; what went to
neither is recorded. The two orders are averaged in log-odds, which cancels a preference for a position (arXiv 2309.00267).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cai.engines.base import Engine, RequestFailure, ScoreRequest
from constitution.messages import Conversation
from constitution.rendering import COMPARISON_PREFIX, LETTERS, render_comparison
from constitution.schema import Principle

Order: TypeAlias = Literal["first_second", "second_first"]
ORDERS: tuple[Order, Order] = ("first_second", "second_first")


@dataclass(frozen=True, slots=True)
class Compared:
    """Two answers to be compared under one principle. `labels` are what the judge calls them."""

    conversation: Conversation
    first: str
    second: str
    principle: Principle
    labels: tuple[str, str] = LETTERS


@dataclass(frozen=True, slots=True)
class LetterMargins:
    """By order of `ORDERS`: log-odds, in nats, that `first` is better, and the probability that went to neither letter."""

    margins_nats: tuple[float, float]
    masses_outside: tuple[float, float]


def compare(
    engine: Engine, asked: Sequence[Compared], *, on_done: Callable[[int, int], None] | None = None
) -> list[LetterMargins | RequestFailure]:
    """Compare every pair in both orders, in the order given; a failed request fails its own pair alone."""
    requests = [comparison_request(each, order) for each in asked for order in ORDERS]
    answers: list[tuple[float, float] | RequestFailure | None] = [None] * len(requests)
    for done, (index, result) in enumerate(engine.score(requests), start=1):
        answers[index] = result if isinstance(result, RequestFailure) else _letter_odds(result.logps)
        if on_done:
            on_done(done, len(requests))
    return [_margins(answers[2 * i], answers[2 * i + 1]) for i in range(len(asked))]


def comparison_request(each: Compared, order: Order) -> ScoreRequest:
    """What the judge is asked about a pair in one order: which label follows `COMPARISON_PREFIX`."""
    replies = (each.first, each.second) if order == "first_second" else (each.second, each.first)
    return ScoreRequest(
        messages=render_comparison(each.principle, each.conversation, *replies, each.labels),
        continuations=tuple(f"{space}{label}" for label in each.labels for space in (" ", "")),
        response_prefix=COMPARISON_PREFIX,
    )


def _letter_odds(logps: Sequence[float]) -> tuple[float, float] | RequestFailure:
    """Log-odds of A against B, and the probability outside both, from the logps of A's two variants, then B's."""
    a, b = _log_sum(logps[:2]), _log_sum(logps[2:])
    if not math.isfinite(a - b):
        return RequestFailure("no_odds", "the labelling model gives a letter no probability at all")
    return a - b, min(1.0, max(0.0, 1.0 - math.exp(a) - math.exp(b)))


def _log_sum(logps: Sequence[float]) -> float:
    top = max(logps)
    if math.isinf(top):
        return top
    return top + math.log(sum(math.exp(logp - top) for logp in logps))


def _margins(
    straight: tuple[float, float] | RequestFailure | None, swapped: tuple[float, float] | RequestFailure | None
) -> LetterMargins | RequestFailure:
    for answer in (straight, swapped):
        if isinstance(answer, RequestFailure):
            return answer
    if not isinstance(straight, tuple) or not isinstance(swapped, tuple):
        return RequestFailure("no_answer", "the engine gave no result")
    # In the swapped order, A is the second answer: its log-odds speak against the first.
    return LetterMargins((straight[0], -swapped[0]), (straight[1], swapped[1]))
