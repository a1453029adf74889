"""Methods that look at one answer at a time: K answers cost K judgements, and there is no position to be biased by.

The score of an answer under a principle is in nats, higher is better, and two answers compare by the difference of theirs:

- `pointwise`: log-odds that its critique finds nothing to change (`cai.verdicts`).
- `yes_no`: log P(Yes) − log P(No) that it follows the principle.
- `contrast`: log P(answer | prompt, principle) − log P(answer | prompt), or against the opposite of the principle: by Bayes'
  rule the log-odds, up to a constant, that the answer was written by the principle. It asks the model to judge nothing, so that
  small models can do it (after RLCD, arXiv 2307.12950, whose two prompts are used here to score and not to sample).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cai.engines.base import Engine, RequestFailure, ScoreRequest, Scores
from cai.labels.settings import LabelSettings
from cai.labels.words import CountTokens, Spellings, every_spelling, spellings
from cai.verdicts import NO_ODDS, NOT_A_NUMBER, Judged, VerdictOdds, judge
from constitution.rendering import render_contrast, render_yes_no

YES_NO = ("Yes", "No")
OnDone = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """One answer under one principle: `nats`, higher is better; probability outside the words asked for; the reasoning."""

    nats: float
    mass_outside: float = 0.0
    ground: str = ""


def score_answers(
    engine: Engine, asked: Sequence[Judged], settings: LabelSettings, *, on_done: OnDone | None = None
) -> list[AnswerScore | RequestFailure]:
    """Score every answer by `settings.method`, in the order given; a failed request is a failure of its own row alone.

    Raises:
        EngineError: If `yes_no` is asked of a model to which a word is several tokens.
        ValueError: If the method is one that compares two answers.
    """
    match settings.method:
        case "pointwise":
            found = judge(engine, asked, ground_tokens=settings.ground_tokens, on_done=on_done)
            return [AnswerScore(v.log_odds_nats, 0.0, v.ground) if isinstance(v, VerdictOdds) else v for v in found]
        case "yes_no":
            return _by_yes_or_no(engine, asked, on_done)
        case "contrast":
            return _by_contrast(engine, asked, settings.contrast_against, on_done)
        case "letters":
            raise ValueError("letters compare two answers")


def yes_no_spellings(count: CountTokens) -> Spellings:
    """Which first tokens of a judge's turn are yes and no.

    Raises:
        EngineError: If a word is more than one token of the model.
    """
    return spellings(count, YES_NO)


def yes_no_request(each: Judged, spelt: Spellings | None = None) -> ScoreRequest:
    """What a judge is asked about one answer; without `spelt`, both spellings of each word."""
    spelt = spelt or every_spelling(YES_NO)
    return ScoreRequest(render_yes_no(each.principle, each.conversation, each.reply), spelt.continuations)


def contrast_requests(each: Judged, against: str) -> tuple[ScoreRequest, ScoreRequest]:
    """The answer after the principle, and after what it is contrasted with."""
    plain = each.conversation if against == "none" else render_contrast(each.principle, each.conversation, follow=False)
    following = render_contrast(each.principle, each.conversation, follow=True)
    return ScoreRequest(following, (each.reply,)), ScoreRequest(plain, (each.reply,))


def _by_yes_or_no(engine: Engine, asked: Sequence[Judged], on_done: OnDone | None) -> list[AnswerScore | RequestFailure]:
    spelt = yes_no_spellings(engine.count_tokens)
    outcomes: list[AnswerScore | RequestFailure] = []
    for result in _scored(engine, [yes_no_request(each, spelt) for each in asked], on_done):
        odds = spelt.odds(result.logps) if isinstance(result, Scores) else result
        outcomes.append(odds if isinstance(odds, RequestFailure) else AnswerScore(*odds))
    return outcomes


def _by_contrast(
    engine: Engine, asked: Sequence[Judged], against: str, on_done: OnDone | None
) -> list[AnswerScore | RequestFailure]:
    pairs = [contrast_requests(each, against) for each in asked]
    # Without the principle, an answer is the same request under every principle.
    places = {request: None for pair in pairs for request in pair}
    found = dict(zip(places, _scored(engine, list(places), on_done), strict=True))
    return [_difference(found[following], found[other]) for following, other in pairs]


def _difference(following: Scores | RequestFailure, other: Scores | RequestFailure) -> AnswerScore | RequestFailure:
    if isinstance(following, RequestFailure):
        return following
    if isinstance(other, RequestFailure):
        return other
    nats = following.logps[0] - other.logps[0]
    if math.isnan(nats):
        return NOT_A_NUMBER
    return AnswerScore(nats) if math.isfinite(nats) else NO_ODDS


def _scored(engine: Engine, requests: Sequence[ScoreRequest], on_done: OnDone | None) -> list[Scores | RequestFailure]:
    """The answers, in order."""
    answers: list[Scores | RequestFailure] = [RequestFailure("no_answer", "the engine gave no result")] * len(requests)
    for done, (index, result) in enumerate(engine.score(requests), start=1):
        answers[index] = result
        if on_done:
            on_done(done, len(requests))
    return answers
