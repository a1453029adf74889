"""Behaviour suites on models: those of a run, its checkpoints, or any others. What was asked is remembered in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cai.config.settings import EngineSettings
from cai.engines.base import Engine
from cai.engines.opening import open_engine
from cai.evaluation.agents.suite import AgentSuite
from cai.evaluation.by_suites import SuiteEvaluation
from cai.evaluation.data_suites import SuitePlan, plan_suite
from cai.evaluation.gathering import Contestant
from cai.evaluation.judging import By, JudgeModel
from cai.evaluation.settings import EvaluationSettings
from cai.evaluation.suite_reading import AGENT_SUITE, LAB_SUITE, WITHOUT_FILE, read_suites
from cai.evaluation.suite_results import SuiteAnswer, SuiteResult
from cai.lab.suite import LabSuite
from cai.models.spec import ModelSpec
from cai.records import SUITE_ANSWERS, SUITE_RESULTS
from cai.store import MemoisedEngine, RunFolder, fingerprint
from constitution.messages import spelt


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model to evaluate, as the tables call it."""

    name: str
    spec: ModelSpec


def unscored(spec: ModelSpec) -> str:
    """Why a model gives no log-probabilities of given texts; "" if it does."""
    if spec.server is None:
        return ""
    from cai.engines.server import check_scoring

    problems = check_scoring(spec, {"this measure": "verdicts"})
    return problems[0].problem if problems else ""


def remembering(spec: ModelSpec, settings: EngineSettings, folder: RunFolder) -> Engine:
    """The engine of a model, which keeps its calls in the folder."""
    return MemoisedEngine(open_engine(spec, settings), folder)


def contestants(models: Sequence[NamedModel], settings: EngineSettings, folder: RunFolder) -> list[Contestant]:
    """Models that are opened one after the other, and keep their calls in the folder."""

    def contestant(model: NamedModel) -> Contestant:
        return Contestant(model.name, lambda: remembering(model.spec, settings, folder), unscored(model.spec))

    return [contestant(model) for model in models]


def judge_of(spec: ModelSpec, settings: EngineSettings, folder: RunFolder, *, ground_tokens: int, seed: int) -> JudgeModel:
    """A judging model; one on a server without log-probabilities is asked in words."""
    by: By = "words" if unscored(spec) else "odds"
    return JudgeModel(str(spec), lambda: remembering(spec, settings, folder), by=by, ground_tokens=ground_tokens, seed=seed)


def plan_suites(names: Sequence[str], judge: JudgeModel | None, settings: EvaluationSettings, *, seed: int) -> list[SuitePlan]:
    """Read and check suites, and fill them in.

    Raises:
        ProblemList: With every problem of every file.
        ConfigError: If one needs a judge and there is none.
    """
    names = list(dict.fromkeys(names))
    files = iter(read_suites([name for name in names if name not in WITHOUT_FILE]))
    made = {LAB_SUITE: _lab, AGENT_SUITE: _agents}
    return [
        made[name](settings, seed)
        if name in WITHOUT_FILE
        else plan_suite(next(files), judge, most_prompts=settings.suite_prompts)
        for name in names
    ]


def _lab(settings: EvaluationSettings, seed: int) -> SuitePlan:
    suite = LabSuite.draw(settings.suite_prompts or settings.per_behaviour, seed=seed)
    return SuitePlan(
        name=LAB_SUITE,
        description="Held-out prompts of the embedded small world, judged by exact truth.",
        fingerprint=fingerprint([trial.item.uid for trial in suite.trials]),
        suite=suite,
    )


def _agents(settings: EvaluationSettings, seed: int) -> SuitePlan:
    suite = AgentSuite.draw(settings.suite_prompts or settings.per_behaviour, seed=seed)
    return SuitePlan(
        name=AGENT_SUITE,
        description="What a model does with files and mails in a small world, judged by the facts.",
        fingerprint=fingerprint([[spelt(message) for message in trial.item.messages] for trial in suite.trials]),
        suite=suite,
    )


def store(folder: RunFolder, found: Sequence[SuiteEvaluation]) -> None:
    """Keep results and answers in a run, in place of those of the same suites."""
    names = {each.result.suite for each in found}
    results = [each for each in folder.measurements(SUITE_RESULTS, SuiteResult) if each.suite not in names]
    answers = [each for each in folder.measurements(SUITE_ANSWERS, SuiteAnswer) if each.suite not in names]
    with folder.transaction():
        folder.put_measurements(SUITE_RESULTS, [*results, *(each.result for each in found)])
        folder.put_measurements(SUITE_ANSWERS, [*answers, *(answer for each in found for answer in each.answers)])
