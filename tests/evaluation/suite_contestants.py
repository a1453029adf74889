"""Models that say what they are told to, asked on a suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from suite_texts import write_suite

from cai.engines.base import Engine, GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.evaluation.by_suites import SuiteEvaluation, evaluate_suites
from cai.evaluation.data_suites import plan_suite
from cai.evaluation.gathering import Contestant
from cai.evaluation.judging import JudgeModel
from cai.evaluation.settings import EvaluationSettings
from cai.evaluation.suite_reading import read_suite

Answer = Callable[[GenerationRequest], str | RequestFailure]


def contestant(name: str, engine: Engine, unscored: str = "") -> Contestant:
    return Contestant(name, lambda: engine, unscored)


def saying(answer: Answer | str, scores: Callable[[ScoreRequest], Any] | None = None, name: str = "") -> ScriptedEngine:
    return ScriptedEngine(answer if callable(answer) else {"": answer}, scores, name=name)


def ask(
    folder: Path, content: dict[str, Any], *contestants: Contestant, judge: JudgeModel | None = None, **settings: Any
) -> SuiteEvaluation:
    plan = plan_suite(read_suite(write_suite(folder, content)), judge)
    chosen = EvaluationSettings(**{"temperatures": (0.0,), **settings})
    (found,) = evaluate_suites([plan], contestants, judge, chosen, max_tokens=32, seed=0)
    return found


def many(count: int = 40, **sections: Any) -> dict[str, Any]:
    return {"suite": "many", "tables": {"rows": {"columns": ["n"], "rows": [[n] for n in range(count)]}}, **sections}
