"""Pointwise verdicts: how likely the critique of one answer finds nothing to change.

The judge first writes the ground of its critique (greedily, up to the verdict); then the two verdicts are scored after it:

    log-odds = log P(" Nothing to change" | ground) − log P(" Fault:" | ground)        in nats; positive: nothing to change

An answer is judged alone, so there is no position to be biased by, and K candidates cost K judgements instead of K².
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cai.engines.base import Engine, GenerationRequest, RequestFailure, SamplingParams, ScoreRequest
from constitution.messages import Conversation
from constitution.rendering import FAULT, NOTHING_TO_CHANGE, read_critique, render_critique
from constitution.schema import Principle

KEEP_VERDICT = NOTHING_TO_CHANGE.rstrip(".")
FAULT_VERDICT = FAULT
NOT_A_NUMBER = RequestFailure("not_a_number", "the judging model computes no number for a probability (NaN)")
NO_ODDS = RequestFailure("no_odds", "the judging model gives one of the verdicts no probability at all")


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer to be judged under one principle. `ground` is that of a critique already written, or None."""

    conversation: Conversation
    reply: str
    principle: Principle
    noise_key: str
    ground: str | None = None


@dataclass(frozen=True, slots=True)
class VerdictOdds:
    """`log_odds_nats` that there is nothing to change, and the reasoning it rests on."""

    log_odds_nats: float
    ground: str


def judge(
    engine: Engine, asked: Sequence[Judged], *, ground_tokens: int, on_done: Callable[[int, int], None] | None = None
) -> list[VerdictOdds | RequestFailure]:
    """Judge every answer, in the order given; a failed request is a failure of its own row alone.

    Args:
        engine: The model that judges.
        asked: What to judge.
        ground_tokens: Longest ground, in tokens; a judge that comes to no verdict by then is scored where it stopped. 0: the
            verdict is asked for at once, also where a ground is known.
        on_done: Called with (calls answered, calls in all).
    """
    grounds: list[str | RequestFailure | None] = [each.ground if ground_tokens else "" for each in asked]
    open_rows = [i for i, ground in enumerate(grounds) if ground is None]
    params = SamplingParams(temperature=0.0, max_tokens=max(1, ground_tokens), stop=(KEEP_VERDICT, FAULT_VERDICT))
    requests = [
        GenerationRequest(
            messages=render_critique(asked[i].principle, asked[i].conversation, asked[i].reply),
            params=params,
            noise_key=asked[i].noise_key,
        )
        for i in open_rows
    ]
    total, done = len(requests) + len(asked), 0
    for position, result in engine.generate(requests):
        grounds[open_rows[position]] = result if isinstance(result, RequestFailure) else read_critique(result.text).ground
        done += 1
        if on_done:
            on_done(done, total)
    outcomes: list[VerdictOdds | RequestFailure | None] = [g if isinstance(g, RequestFailure) else None for g in grounds]
    scored = [i for i, ground in enumerate(grounds) if isinstance(ground, str)]
    for position, result in engine.score([verdict_request(asked[i], str(grounds[i])) for i in scored]):
        row = scored[position]
        if isinstance(result, RequestFailure):
            outcomes[row] = result
        else:
            keep, fault = result.logps
            odds = keep - fault
            missing = NOT_A_NUMBER if math.isnan(keep) or math.isnan(fault) else NO_ODDS
            outcomes[row] = VerdictOdds(odds, str(grounds[row])) if math.isfinite(odds) else missing
        done += 1
        if on_done:
            on_done(done, total)
    return [outcome or RequestFailure("no_answer", "the engine gave no result") for outcome in outcomes]


def verdict_request(each: Judged, ground: str) -> ScoreRequest:
    """What the judge is asked about one answer: which verdict follows its ground."""
    space = " " if ground else ""
    return ScoreRequest(
        messages=render_critique(each.principle, each.conversation, each.reply),
        continuations=(f"{space}{KEEP_VERDICT}", f"{space}{FAULT_VERDICT}"),
        response_prefix=ground,
    )
