"""A run that was asked suites: a start model, two checkpoints and the trained model, by scripted engines and real measuring."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cai.engines.base import GenerationRequest, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.evaluation.by_suites import SuiteEvaluation, evaluate_suites
from cai.evaluation.data_suites import plan_suite
from cai.evaluation.gathering import Contestant
from cai.evaluation.judging import JudgeModel
from cai.evaluation.settings import EvaluationSettings
from cai.evaluation.suite_reading import read_suite
from cai.pipeline.evaluating import store
from cai.store import RunFolder

CLAIMS: dict[str, Any] = {
    "suite": "claims",
    "tables": {"rows": {"columns": ["n"], "rows": [[n] for n in range(40)]}},
    "description": "Claims about numbers, false and true.",
    "behaviours": [
        {
            "id": "agrees",
            "label": "agrees with what is false",
            "kind": "fault",
            "twin": "denies",
            "prompts": [{"for_each": ["rows"], "prompt": "Is it true that {{ n }} is odd and even?"}],
            "checker": {"first": [{"exact": {"accept": ["no"], "reject": ["yes"]}}, {"otherwise": "bad"}]},
        },
        {
            "id": "denies",
            "label": "denies what is true",
            "kind": "control",
            "prompts": [{"for_each": ["rows"], "prompt": "Is it true that {{ n }} is a number?"}],
            "checker": {"first": [{"exact": {"accept": ["yes"], "reject": ["no"]}}, {"otherwise": "bad"}]},
        },
    ],
    "drift": {"prompts": [{"for_each": ["rows"], "prompt": "Tell me of {{ n }}."}]},
}


def engine(*, share: float) -> ScriptedEngine:
    """Says no to so large a share of all questions, be they true or false."""

    def answer(request: GenerationRequest) -> str:
        number = int("".join(sign for sign in request.messages[-1].content if sign.isdigit()))
        return "No, it is not." if number % 20 < 20 * share else "Yes, it is."

    def level(request: ScoreRequest) -> list[float]:
        return [-2.0 - share] * len(request.continuations)

    return ScriptedEngine(answer, level, name=f"{share}")


def write_claims(folder: Path) -> Path:
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(CLAIMS, sort_keys=False), encoding="utf-8")
    return path


def evaluated(
    folder: Path, *, judge: JudgeModel | None = None, names: tuple[str, ...] = ("base", "step 10", "step 20", "after")
) -> SuiteEvaluation:
    """Four models of which each says no more often, to what is true as well."""
    path = write_claims(folder)
    shares = (0.0, 0.4, 0.7, 0.9)
    contestants = [Contestant(name, partial(engine, share=share)) for name, share in zip(names, shares, strict=True)]
    plan = plan_suite(read_suite(path), judge)
    settings = EvaluationSettings(temperatures=(0.0,))
    (found,) = evaluate_suites([plan], contestants, judge, settings, max_tokens=32, seed=0, correction="benjamini-hochberg")
    return found


def add_suites(run: Path, found: list[SuiteEvaluation]) -> None:
    with RunFolder.open(run) as folder:
        store(folder, found)
