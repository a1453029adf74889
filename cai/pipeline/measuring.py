"""Before and after as a stage of a run."""

from __future__ import annotations

from cai.config.settings import RunConfig
from cai.engines.base import Engine
from cai.evaluation.before_after import evaluate
from cai.evaluation.results import EvaluationResult
from cai.evaluation.suites import PrincipleSuite, Suite
from cai.lab.suite import LabSuite
from cai.pipeline.learning import newest_spec
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session, stage_key
from cai.records import EVALUATION, Stage
from cai.store import write_bytes_atomically

EVALUATION_NAME = "evaluation.json"


def measure(session: Session) -> EvaluationResult | None:
    """Answer the held-out prompts before and after training, and compare; None when there is nothing to compare."""
    config, folder = session.inputs.config, session.folder
    trained = newest_spec(session)
    suite = suite_of(session.inputs, session.feedback)
    if trained is None or suite is None:
        (folder.path / EVALUATION_NAME).unlink(missing_ok=True)  # of an earlier run on other records
        return None
    after = session.engine(trained)
    key = evaluation_key(session.inputs, suite, session.policy, after, session.feedback)
    path = folder.path / EVALUATION_NAME
    if session.is_current(Stage.EVALUATE, key) and path.is_file():
        return next(folder.measurements(EVALUATION, EvaluationResult))
    result = evaluate(
        session.policy,
        after,
        suite,
        config.evaluation,
        seed=config.seed,
        names=(str(config.policy), f"{config.policy} after training"),
        on_answer=lambda side, done, total: session.tell(f"evaluate {side}", done, total),
    )
    folder.forget_stage(Stage.EVALUATE)  # a kill in between must not leave the note of another file
    write_bytes_atomically(path, f"{result.model_dump_json(indent=1)}\n".encode())
    with folder.transaction():
        folder.put_measurements(EVALUATION, [result])
        folder.put_stage(Stage.EVALUATE, key, {"verdicts": result.verdicts()}, files=[path])
    return result


def evaluation_key(inputs: Inputs, suite: Suite, before: Engine, after: Engine, feedback: Engine) -> str:
    """Fingerprint of all that the evaluation depends on besides the principles (see `Session.forget_after`)."""
    return stage_key(
        before.fingerprint,
        after.fingerprint,
        feedback.fingerprint if isinstance(suite, PrincipleSuite) else "",
        [[trial.item.uid, trial.item.messages, trial.behaviour] for trial in suite.trials],
        inputs.config.evaluation,
        inputs.config.seed,
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
