"""Cells made by hand, so that every figure of them can be worked out on paper."""

from __future__ import annotations

from cai.evaluation.suites import Outcome
from cai.lab.study.cells import Answered, CellResult, Divergence, Labelled, Made, Price
from cai.lab.study.recipes import DEFAULT, Recipe


def answered(uid: str, behaviour: str, before: Outcome, after: Outcome, words: tuple[int, int] = (20, 10)) -> Answered:
    return Answered(uid=uid, behaviour=behaviour, before=before, after=after, words=words)


def cell(
    recipe: Recipe = DEFAULT,
    seed: int = 0,
    answers: tuple[Answered, ...] = (),
    *,
    labels: tuple[Labelled, ...] = (),
    divergences: tuple[Divergence, ...] = (),
    failure: str = "",
    seconds: float = 60.0,
) -> CellResult:
    return CellResult(
        recipe=recipe,
        seed=seed,
        items=8,
        per_behaviour=1,
        setup="setup",
        records=8,
        changed=4,
        labels=labels,
        pairs=4,
        anchors=3,
        answers=answers,
        divergences=divergences,
        failure=failure,
        price=Price(
            prompt_tokens=1000,
            completion_tokens=100,
            trained_tokens=500,
            reused_calls=2,
            seconds=seconds,
            cpu_seconds=seconds / 2,
        ),
        made=Made(at="2026-01-02T03:04:05+00:00", packages={"torch": "2"}, environment={"cpu": "a processor", "cores": 2}),
    )
