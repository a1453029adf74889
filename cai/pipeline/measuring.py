"""Before and after as a stage of a run."""

from __future__ import annotations

from cai.config.settings import RunConfig
from cai.evaluation.before_after import evaluate
from cai.evaluation.results import EvaluationResult
from cai.evaluation.suites import PrincipleSuite, Suite
from cai.lab.suite import LabSuite
from cai.pipeline.learning import newest_spec
from cai.pipeline.session import Session
from cai.records import EVALUATION, Stage
from cai.store import write_bytes_atomically


def measure(session: Session) -> EvaluationResult | None:
    """Answer the held-out prompts before and after training, and compare; None when there is nothing to compare."""
    config, folder = session.inputs.config, session.folder
    trained = newest_spec(session)
    suite = _suite(session)
    if trained is None or suite is None:
        return None
    after = session.engine(trained)
    key = session.key(
        session.policy.fingerprint,
        after.fingerprint,
        session.feedback.fingerprint if isinstance(suite, PrincipleSuite) else "",
        [[trial.item.uid, trial.item.messages, trial.behaviour] for trial in suite.trials],
        config.evaluation,
        config.seed,
    )
    path = folder.path / "evaluation.json"
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
    with folder.transaction():
        folder.put_measurements(EVALUATION, [result])
        folder.put_stage(Stage.EVALUATE, key, {"verdicts": result.verdicts()})
    write_bytes_atomically(path, f"{result.model_dump_json(indent=1)}\n".encode())
    return result


def _suite(session: Session) -> Suite | None:
    config, inputs = session.inputs.config, session.inputs
    name = _suite_name(config)
    if name == "lab":
        return LabSuite.draw(config.evaluation.per_behaviour, seed=config.seed)
    items = inputs.held_out_items[: config.evaluation.max_prompts]
    if name == "none" or not items:
        return None
    suite = PrincipleSuite(
        items, inputs.constitution, session.feedback, seed=config.seed, ground_tokens=config.labels.ground_tokens
    )
    return suite if suite.trials else None


def _suite_name(config: RunConfig) -> str:
    if config.evaluation.suite != "auto":
        return config.evaluation.suite
    return "lab" if config.lab is not None else "principles"
