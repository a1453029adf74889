"""Labelling models with a known opinion, for tests of what is made of their verdicts."""

from __future__ import annotations

import re
from collections.abc import Callable

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine

LabelledOdds = Callable[[str, str, tuple[str, str]], float | RequestFailure]


def by_letters(odds: LabelledOdds) -> ScriptedEngine:
    """A judge whose log-odds of the first label are `odds(first reply, second reply, labels)`, in nats."""

    def score(request: ScoreRequest) -> tuple[float, ...] | RequestFailure:
        found = re.fullmatch(
            r".*\n\nReply (\w):\n(.*)\n\nReply (\w):\n(.*)\n\nPrinciple: .*", request.messages[-1].content, re.DOTALL
        )
        assert found is not None
        label_a, reply_a, label_b, reply_b = found.groups()
        assert request.continuations == (f" {label_a}", label_a, f" {label_b}", label_b)
        told = odds(reply_a, reply_b, (label_a, label_b))
        if isinstance(told, RequestFailure):
            return told
        never = float("-inf")
        return (told / 2 - 40, never, -told / 2 - 40, never)

    return ScriptedEngine({}, score)


def pointwise(odds: Callable[[str], float | RequestFailure]) -> ScriptedEngine:
    """A judge whose log-odds that nothing is to change in a reply are `odds(reply)`; its ground quotes the reply."""

    def answer(request: GenerationRequest) -> str:
        return f"It says {request.messages[-2].content}. Fault: so."

    def score(request: ScoreRequest) -> tuple[float, float] | RequestFailure:
        told = odds(request.messages[-2].content)
        return told if isinstance(told, RequestFailure) else (told - 1.0, -1.0)

    return ScriptedEngine(answer, score)
