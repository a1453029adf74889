"""Before and after as a stage of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cai.config.settings import RunConfig
from cai.engines.base import Engine
from cai.evaluation.before_after import evaluate
from cai.evaluation.by_suites import SuiteEvaluation, evaluate_suites
from cai.evaluation.data_suites import SuitePlan
from cai.evaluation.gathering import Contestant
from cai.evaluation.judging import JudgeModel
from cai.evaluation.results import BehaviourRow, EvaluationResult
from cai.evaluation.suite_results import SuiteResult
from cai.evaluation.suites import PrincipleSuite, Suite
from cai.lab.suite import LabSuite
from cai.models.spec import ModelSpec
from cai.pipeline.describing import shown_model
from cai.pipeline.evaluating import plan_suites, unscored
from cai.pipeline.learning import newest_spec
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session, stage_key
from cai.records import EVALUATION, SUITE_ANSWERS, SUITE_RESULTS, Stage
from cai.store import write_bytes_atomically

EVALUATION_NAME = "evaluation.json"


@dataclass(frozen=True)
class Measured:
    """What the evaluation stage found: before and after on held-out prompts, and the behaviour suites."""

    evaluation: EvaluationResult | None = None
    suites: tuple[SuiteResult, ...] = ()

    @property
    def rows(self) -> Iterator[tuple[str, BehaviourRow]]:
        """Every behaviour before and after, by its name; those of a suite by `SUITE/NAME`."""
        yield from ((row.behaviour, row) for row in (self.evaluation.rows if self.evaluation else ()))
        for suite in self.suites:
            yield from ((f"{suite.suite}/{row.behaviour}", row) for each in suite.comparisons for row in each.rows)


def measure(session: Session) -> Measured:
    """Answer the held-out prompts and the suites before and after training, and compare what there is."""
    config, folder = session.inputs.config, session.folder
    trained = newest_spec(session)
    suite = suite_of(session.inputs, session.feedback)
    judge = _suite_judge(session)
    plans = plan_suites(config.evaluation.suites, judge, config.evaluation, seed=config.seed)
    path = folder.path / EVALUATION_NAME
    if trained is None or (suite is None and not plans):
        path.unlink(missing_ok=True)  # of an earlier run on other records
        return Measured()
    after = session.engine(trained)
    other = session.engine(config.evaluation.judge) if config.evaluation.judge is not None and plans else None
    key = evaluation_key(session.inputs, suite, session.policy, after, session.feedback, plans, other)
    if session.is_current(Stage.EVALUATE, key) and path.is_file() == (suite is not None):
        return Measured(
            next(folder.measurements(EVALUATION, EvaluationResult), None),
            tuple(folder.measurements(SUITE_RESULTS, SuiteResult)),
        )
    result = None
    if suite is not None:
        result = evaluate(
            session.policy,
            after,
            suite,
            config.evaluation,
            seed=config.seed,
            names=(shown_model(config.policy), f"{shown_model(config.policy)} after training"),
            on_answer=lambda side, done, total: session.tell(f"evaluate {side}", done, total),
        )
    found = _ask_suites(session, plans, trained, judge)
    folder.forget_stage(Stage.EVALUATE)  # a kill in between must not leave the note of another file
    path.unlink(missing_ok=True)
    if result is not None:
        write_bytes_atomically(path, f"{result.model_dump_json(indent=1)}\n".encode())
    with folder.transaction():
        folder.put_measurements(EVALUATION, [result] if result is not None else [])
        folder.put_measurements(SUITE_RESULTS, [each.result for each in found])
        folder.put_measurements(SUITE_ANSWERS, [answer for each in found for answer in each.answers])
        summary = {"verdicts": result.verdicts() if result is not None else []}
        folder.put_stage(Stage.EVALUATE, key, summary, files=[path] if result is not None else [])
    return Measured(result, tuple(each.result for each in found))


def _suite_judge(session: Session) -> JudgeModel:
    config = session.inputs.config
    spec = config.evaluation.judge or config.feedback_or_policy
    return JudgeModel(
        shown_model(spec),
        lambda: session.engine(spec),
        by="words" if config.evaluation.suites and unscored(spec) else "odds",
        ground_tokens=config.labels.ground_tokens,
        seed=config.seed,
    )


def _ask_suites(session: Session, plans: Sequence[SuitePlan], trained: ModelSpec, judge: JudgeModel) -> list[SuiteEvaluation]:
    if not plans:
        return []
    config = session.inputs.config
    name = shown_model(config.policy)
    models = {name: config.policy, f"{name} after training": trained}
    return evaluate_suites(
        plans,
        [Contestant(name, partial(session.engine, spec), unscored(spec)) for name, spec in models.items()],
        judge,
        config.evaluation,
        max_tokens=config.evaluation.max_tokens,
        seed=config.seed,
        correction=config.evaluation.correction,
        on_progress=session.tell,
    )


def evaluation_key(
    inputs: Inputs,
    suite: Suite | None,
    before: Engine,
    after: Engine,
    feedback: Engine,
    plans: Sequence[SuitePlan] = (),
    judge: Engine | None = None,
) -> str:
    """Fingerprint of all that the evaluation depends on besides the principles (see `Session.forget_after`).

    Args:
        inputs: The run.
        suite: Of the held-out prompts.
        before: The policy.
        after: The trained model.
        feedback: Judges where no other model does.
        plans: The behaviour suites.
        judge: Judges them, where it is another model.
    """
    judged = isinstance(suite, PrincipleSuite) or any(plan.judges or plan.helpful for plan in plans)
    return stage_key(
        before.fingerprint,
        after.fingerprint,
        feedback.fingerprint if judged else "",
        [[trial.item.uid, trial.item.messages, trial.behaviour] for trial in suite.trials] if suite is not None else [],
        inputs.config.evaluation,
        inputs.config.seed,
        [plan.fingerprint for plan in plans],
        judge.fingerprint if judge is not None else "",
    )


def suite_of(inputs: Inputs, feedback: Engine) -> Suite | None:
    """The prompts of before and after, and who judges the answers; None when there is nothing to ask."""
    config = inputs.config
    name = _suite_name(config)
    if name == "lab":
        return LabSuite.draw(config.evaluation.per_behaviour, seed=config.seed)
    items = inputs.held_out_items[: config.evaluation.max_prompts]
    if name == "none" or not items:
        return None
    suite = PrincipleSuite(items, inputs.constitution, feedback, seed=config.seed, ground_tokens=config.labels.ground_tokens)
    return suite if suite.trials else None


def _suite_name(config: RunConfig) -> str:
    if config.evaluation.suite != "auto":
        return config.evaluation.suite
    return "lab" if config.lab is not None else "principles"
