"""Answers to compare, and a judge that grades them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cai.engines.base import RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.labels import (
    Candidate,
    Candidates,
    LabelSettings,
)
from cai.records import Method, RevisionRecord, Round, Verdict
from constitution.messages import assistant, user
from constitution.schema import Constitution, Principle

KIND = Principle(id="kind", principle="Be kind.", weight=3.0)
BRIEF = Principle(id="brief", principle="Be brief.")
BOTH = Constitution(name="both", principles=(KIND, BRIEF))
TALK = (user("question"),)


def settings(method: Method, **changes: Any) -> LabelSettings:
    return LabelSettings.model_validate({"method": method, "min_margin_nats": 0.0, "max_p_chosen": 1.0, **changes})


def two(first: str, second: str, principles: tuple[Principle, ...] = (KIND,)) -> Candidates:
    return Candidates("x", 0, TALK, (Candidate(first), Candidate(second)), ((0, 1),), principles)


def chain(draft: str, *revisions: str | None, uid: str = "a", replica: int = 0) -> RevisionRecord:
    rounds = tuple(
        Round(round=n, principle_id="kind", critique="Fault: so.", verdict=Verdict.FAULT, revision=text)
        for n, text in enumerate(revisions)
    )
    return RevisionRecord(uid=uid, replica=replica, messages=TALK, draft=draft, rounds=rounds)


def graded(grades: dict[str, float], *, fault: Callable[[ScoreRequest], bool] = lambda _: False) -> ScriptedEngine:
    """A judge whose log-odds of nothing to change are those of the reply it is shown."""

    def score(request: ScoreRequest) -> tuple[float, ...] | RequestFailure:
        if fault(request):
            return RequestFailure("out_of_memory", "no room")
        (value,) = (value for reply, value in grades.items() if assistant(reply) in request.messages)
        return (-1.0, -1.0 - value)

    return ScriptedEngine({"": "Ground. Fault: x"}, score)
