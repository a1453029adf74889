"""One prompt through the loop, in memory: what `cai try` does."""

from __future__ import annotations

from dataclasses import dataclass

from cai.cli.feedback import feedback_of
from cai.config.settings import EngineSettings
from cai.engines.base import SamplingParams
from cai.engines.opening import open_engine
from cai.errors import CaiError, ConfigError, ProblemList, unknown_principles
from cai.loop import GateSettings, LoopSettings, gate_problems, run_loop
from cai.models.checking import check_model
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
    model: str
    feedback: str | None
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
    feedback_spec = feedback_of(trial.model, trial.feedback)  # refuses an empty name of either
    policy_spec = ModelSpec(name=trial.model)
    problems: list[CaiError] = [
        *check_model(policy_spec),
        *([] if feedback_spec == policy_spec else check_model(feedback_spec)),
    ]
    problems += unknown_principles(trial.principles, constitution.ids)
    if trial.gate is not None:
        problems += gate_problems(trial.gate, constitution)
    if not trial.prompt.strip():
        problems.append(ConfigError("the prompt is empty"))
    if problems:
        raise ProblemList("This cannot be tried:", problems)
    policy = open_engine(policy_spec, EngineSettings())
    feedback = policy if feedback_spec == policy_spec else open_engine(feedback_spec, EngineSettings())
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


def _chosen(constitution: Constitution, names: tuple[str, ...]) -> list[Constitution]:
    """One constitution for each named principle, which then applies whatever the tags; the whole one when none is named."""
    if not names:
        return [constitution]
    everywhere = [constitution.by_id(name).model_copy(update={"applies_to": ()}) for name in names]
    return [Constitution(name=each.id, principles=(each,)) for each in everywhere]
