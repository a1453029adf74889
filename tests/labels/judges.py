"""Judges whose ways are known, for tests of what a run makes of them: scripted, by letters or pointwise."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

from cai.engines.base import ScoreRequest
from cai.engines.scripted import ScriptedEngine
from constitution.rendering import COMPARISON_PREFIX


def letters_judge(log_odds_of_a: Callable[[str, str], float]) -> ScriptedEngine:
    """A judge by letters that is asked with (reply A, reply B) for its log-odds of A."""

    def score(request: ScoreRequest) -> list[float]:
        assert request.response_prefix == COMPARISON_PREFIX
        a, rest = request.messages[-1].content.split("Reply A:\n")[1].split("\n\nReply B:\n")
        odds = log_odds_of_a(a, rest.split("\n\nPrinciple: ")[0])
        logp = {"A": -math.log1p(math.exp(-odds)), "B": -math.log1p(math.exp(odds))}
        return [logp[each.strip()] - math.log(2) for each in request.continuations]

    return ScriptedEngine({}, score)


def pointwise_judge(nats: Callable[[str], float]) -> ScriptedEngine:
    """A judge of one answer alone, asked with the answer for its log-odds that there is nothing to change."""

    def score(request: ScoreRequest) -> list[float]:
        keep = nats(next(each.content for each in reversed(request.messages) if each.role == "assistant"))
        return [keep / 2, -keep / 2]

    return ScriptedEngine({"": "It is so. Nothing to change."}, score)


def coin(text: str) -> float:
    """Log-odds that hang on nothing but a hash: heads or tails, and how sure."""
    digest = hashlib.sha256(text.encode()).digest()
    return (digest[0] - 127.5) / 40


always_a = letters_judge(lambda _a, _b: 3.0)
