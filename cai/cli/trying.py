"""One prompt through the loop, in memory: what `cai try` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cai.cli.feedback import feedback_of
from cai.config import read_config
from cai.config.settings import EngineSettings
from cai.engines.base import SamplingParams
from cai.engines.opening import open_engine
from cai.errors import CaiError, ConfigError, ProblemList, unknown_principles
from cai.loop import GateSettings, LoopSettings, gate_problems, run_loop
from cai.models.checking import check_model
from cai.models.embedded import EMBEDDED_NAME
from cai.models.spec import ModelSpec
from cai.records import FailureRecord, Item, RevisionRecord
from constitution.loading import load_constitution
from constitution.messages import system, user
from constitution.schema import Constitution


@dataclass(frozen=True, slots=True)
class Trial:
    """What to try; see the options of `cai try`."""

    prompt: str
    constitution: tuple[str, ...]
    principles: tuple[str, ...]
    draft: str | None
    model: str | None
    feedback: str | None
    config: Path | None
    system: str | None
    rounds: int
    tags: tuple[str, ...]
    temperature: float
    max_tokens: int
    seed: int
    gate: GateSettings | None = None


def try_prompt(trial: Trial) -> list[RevisionRecord | FailureRecord]:
    """Run the loop on one prompt: with the drawn principle, or with each of the named ones, one after another.

    Raises:
        ProblemList: With everything that is wrong.
    """
    constitution = load_constitution(trial.constitution)
    policy_spec, feedback_spec, engine = _models(trial)
    problems: list[CaiError] = [
        *check_model(policy_spec),
        *([] if feedback_spec == policy_spec else check_model(feedback_spec)),
    ]
    problems += unknown_principles(trial.principles, constitution.ids)
    if feedback_spec.server is not None and trial.gate is not None and not problems:
        from cai.engines.server import check_scoring

        problems += check_scoring(feedback_spec, {"the gate": "verdicts"})
    if trial.gate is not None:
        problems += gate_problems(trial.gate, constitution)
    if not trial.prompt.strip():
        problems.append(ConfigError("the prompt is empty"))
    if problems:
        raise ProblemList("This cannot be tried:", problems)
    policy = open_engine(policy_spec, engine)
    feedback = policy if feedback_spec == policy_spec else open_engine(feedback_spec, engine)
    greedy = SamplingParams(temperature=0.0, max_tokens=trial.max_tokens)
    settings = LoopSettings(
        rounds=trial.rounds,
        draft=SamplingParams(temperature=trial.temperature, max_tokens=trial.max_tokens),
        critique=greedy,
        revision=greedy,
        gate=trial.gate,
    )
    messages = (user(trial.prompt),) if trial.system is None else (system(trial.system), user(trial.prompt))
    outcomes: list[RevisionRecord | FailureRecord] = []
    for chosen in _chosen(constitution, trial.principles):
        item = Item(uid="try", messages=messages, tags=trial.tags)
        drafts = None if trial.draft is None else {item.uid: trial.draft}
        outcomes += run_loop([item], chosen, policy, feedback, settings, seed=trial.seed, library=constitution, drafts=drafts)
    return outcomes


def _models(trial: Trial) -> tuple[ModelSpec, ModelSpec, EngineSettings]:
    """Policy, feedback model, and how they are run."""
    run = read_config(trial.config).config if trial.config is not None else None
    if run is None or trial.model is not None:
        model = EMBEDDED_NAME if trial.model is None else trial.model
        feedback = feedback_of(model, trial.feedback)  # refuses an empty name of either
        return ModelSpec(name=model), feedback, run.engine if run else EngineSettings()
    feedback = run.feedback_or_policy if trial.feedback is None else feedback_of(run.policy.name, trial.feedback)
    return run.policy, feedback, run.engine


def _chosen(constitution: Constitution, names: tuple[str, ...]) -> list[Constitution]:
    """One constitution for each named principle, which then applies whatever the tags; the whole one when none is named."""
    if not names:
        return [constitution]
    everywhere = [constitution.by_id(name).model_copy(update={"applies_to": ()}) for name in names]
    return [Constitution(name=each.id, principles=(each,)) for each in everywhere]
