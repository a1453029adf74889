"""Entries of a comparison made by hand, so that every figure of them can be worked out on paper."""

from __future__ import annotations

from cai.lab.comparison.compute import Passes
from cai.lab.comparison.entries import EntryResult
from cai.lab.comparison.methods import MethodId
from cai.lab.study.cells import Answered, Made


def entry(
    method: MethodId,
    seed: int = 0,
    answers: tuple[Answered, ...] = (),
    *,
    budget: float | None = 3000.0,
    failure: str = "",
    seconds: float = 60.0,
    lost: dict[str, int] | None = None,
) -> EntryResult:
    return EntryResult(
        method=method,
        seed=seed,
        items=8,
        per_behaviour=1,
        setup="setup",
        budget=None if method == "dpo" else budget,
        passes=Passes(read=1000, drawn=500, scored=500, trained=500),
        prompts=8,
        rows=6,
        steps=3,
        answers=answers,
        lost=lost or {},
        failure=failure,
        seconds=seconds,
        cpu_seconds=seconds / 2,
        made=Made(at="2026-01-02T03:04:05+00:00", packages={"torch": "2"}, environment={"cpu": "a processor", "cores": 2}),
    )
