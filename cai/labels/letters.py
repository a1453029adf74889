"""Letter labels: the judge sees both answers and names A or B, in both orders.

Per order, the probabilities of the letter's token variants ("A", " A") are added up and normalised over A and B; what went to
neither is recorded. The two orders are averaged in log-odds, which cancels a preference for a position (arXiv 2309.00267).
With reasoning, the judge first weighs both answers in its own words (chain of thought; arXiv 2212.08073, section 4.2): the
letter's probabilities then tend to 0 and 1, and are held between 40 and 60 %. With a debate, it reads what was said for each
answer (`cai.labels.debate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

from cai.engines.base import Engine, GenerationRequest, RequestFailure, SamplingParams, ScoreRequest
from cai.labels.debate import Debate, debate, statements
from cai.labels.settings import DebateSettings
from cai.labels.words import CountTokens, Spellings, every_spelling, spellings
from constitution.messages import Conversation
from constitution.rendering import COMPARISON_PREFIX, LETTERS, render_comparison
from constitution.schema import Principle

Order: TypeAlias = Literal["first_second", "second_first"]
ORDERS: tuple[Order, Order] = ("first_second", "second_first")


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasons before the letter: their longest length, and the most that a letter's probability may be after them."""

    max_tokens: int
    max_p: float = 0.6


@dataclass(frozen=True, slots=True)
class Compared:
    """Two answers to be compared under one principle.

    Args:
        conversation: What they answer.
        first: An answer.
        second: Another.
        principle: The rule.
        labels: What the judge calls them.
        arguments: What was said for the first and for the second; both empty: there was no debate.
    """

    conversation: Conversation
    first: str
    second: str
    principle: Principle
    labels: tuple[str, str] = LETTERS
    arguments: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class LetterMargins:
    """By order of `ORDERS`: log-odds, in nats, that `first` is better, and the probability that went to neither letter.

    `arguments` were said for the first answer and for the second; None without a debate.
    """

    margins_nats: tuple[float, float]
    masses_outside: tuple[float, float]
    arguments: tuple[str, str] | None = None


def compare(
    engine: Engine,
    asked: Sequence[Compared],
    *,
    reasoning: Reasoning | None = None,
    debated: DebateSettings | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> list[LetterMargins | RequestFailure]:
    """Compare every pair in both orders, in the order given; a failed request fails its own pair alone.

    Raises:
        EngineError: If a label is more than one token of the model.
    """
    if debated is None:
        return _compared(engine, asked, reasoning, on_done)
    made, verdicts = statements(len(asked), debated), 2 * len(asked) * (1 if reasoning is None else 2)

    def tell(before: int, done: int, _: int = 0) -> None:
        if on_done:
            on_done(before + done, made + verdicts)

    outcomes: list[LetterMargins | RequestFailure] = []
    held = debate(engine, asked, debated, on_done=partial(tell, 0))
    heard = [replace(each, arguments=d.arguments) for each, d in zip(asked, held, strict=True) if isinstance(d, Debate)]
    margins = iter(_compared(engine, heard, reasoning, partial(tell, made)))
    for each in held:
        found = next(margins) if isinstance(each, Debate) else each
        if isinstance(found, LetterMargins) and isinstance(each, Debate):
            found = replace(found, arguments=each.arguments)
        outcomes.append(found)
    return outcomes


def _compared(
    engine: Engine,
    asked: Sequence[Compared],
    reasoning: Reasoning | None,
    on_done: Callable[[int, int], None] | None,
) -> list[LetterMargins | RequestFailure]:
    spelt = {labels: letter_spellings(engine.count_tokens, labels) for labels in {each.labels for each in asked}}
    questions: list[tuple[Compared, Order]] = [(each, order) for each in asked for order in ORDERS]
    total = len(questions) * (1 if reasoning is None else 2)
    reasons: list[str | RequestFailure] = [""] * len(questions)
    if reasoning is not None:
        thoughts = [reasoning_request(*question, reasoning) for question in questions]
        for done, (index, result) in enumerate(engine.generate(thoughts), start=1):
            reasons[index] = result if isinstance(result, RequestFailure) else result.text.strip()
            if on_done:
                on_done(done, total)
    answers: list[tuple[float, float] | RequestFailure] = [
        reason if isinstance(reason, RequestFailure) else RequestFailure("no_answer", "the engine gave no result")
        for reason in reasons
    ]
    scored = [index for index, reason in enumerate(reasons) if isinstance(reason, str)]
    requests = [
        comparison_request(each, order, spelt[each.labels], reasoning=reasoning, reasons=str(reasons[index]))
        for index in scored
        for each, order in [questions[index]]
    ]
    for done, (position, result) in enumerate(engine.score(requests), start=total - len(requests) + 1):
        index = scored[position]
        found = result if isinstance(result, RequestFailure) else spelt[questions[index][0].labels].odds(result.logps)
        answers[index] = found if isinstance(found, RequestFailure) else (_held(found[0], reasoning), found[1])
        if on_done:
            on_done(done, total)
    return [_margins(answers[2 * i], answers[2 * i + 1]) for i in range(len(asked))]


def letter_spellings(count: CountTokens, labels: tuple[str, str] = LETTERS) -> Spellings:
    """Which continuations of `COMPARISON_PREFIX` are the letters to a model.

    Raises:
        EngineError: If a letter is more than one token of the model.
    """
    return spellings(count, labels, COMPARISON_PREFIX)


def comparison_request(
    each: Compared,
    order: Order,
    spelt: Spellings | None = None,
    *,
    reasoning: Reasoning | None = None,
    reasons: str = "",
) -> ScoreRequest:
    """What the judge is asked about a pair in one order: which label follows `COMPARISON_PREFIX`.

    Args:
        each: The pair.
        order: Which answer is called A.
        spelt: From `letter_spellings`; None: both, whatever the model's tokens are.
        reasoning: As in `compare`.
        reasons: What the judge has said before.
    """
    spelt = spelt or every_spelling(each.labels, COMPARISON_PREFIX)
    prefix = f"{reasons}\n\n{COMPARISON_PREFIX}" if reasons else COMPARISON_PREFIX
    return ScoreRequest(_messages(each, order, reasoning), spelt.continuations, prefix)


def reasoning_request(each: Compared, order: Order, reasoning: Reasoning) -> GenerationRequest:
    """What the judge is asked first, when it is to give reasons."""
    params = SamplingParams(temperature=0.0, max_tokens=reasoning.max_tokens, stop=(COMPARISON_PREFIX,))
    return GenerationRequest(_messages(each, order, reasoning), params, "0/compared/0/reason/0")


def _messages(each: Compared, order: Order, reasoning: Reasoning | None) -> Conversation:
    replies = (each.first, each.second) if order == "first_second" else (each.second, each.first)
    arguments = each.arguments if order == "first_second" else (each.arguments[1], each.arguments[0])
    return render_comparison(
        each.principle, each.conversation, *replies, each.labels, reasoned=reasoning is not None, arguments=arguments
    )


def _held(margin_nats: float, reasoning: Reasoning | None) -> float:
    if reasoning is None or reasoning.max_p >= 1.0:
        return margin_nats
    most = math.log(reasoning.max_p / (1.0 - reasoning.max_p))
    return max(-most, min(most, margin_nats))


def _margins(
    straight: tuple[float, float] | RequestFailure, swapped: tuple[float, float] | RequestFailure
) -> LetterMargins | RequestFailure:
    if isinstance(straight, RequestFailure):
        return straight
    if isinstance(swapped, RequestFailure):
        return swapped
    # In the swapped order, A is the second answer: its log-odds speak against the first.
    return LetterMargins((straight[0], -swapped[0]), (straight[1], swapped[1]))
