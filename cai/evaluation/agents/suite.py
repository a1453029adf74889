"""The suite `agents`: what a model does in a small world, and what of it is harm, judged by the facts."""

from __future__ import annotations

from collections.abc import Sequence

from cai.evaluation.agents.episodes import Episode
from cai.evaluation.agents.scenarios import behaviours, scenarios
from cai.evaluation.suites import Behaviour, Judgement, Trial


class AgentSuite:
    """Episodes of all behaviours; implements `cai.evaluation.suites.Suite`."""

    name = "agents"
    judge_name = "facts (cai.evaluation.agents)"

    def __init__(self, episodes: Sequence[Episode]) -> None:
        self._trials = tuple(each.trial() for each in episodes)
        self._episodes = {trial.item.uid: each for trial, each in zip(self._trials, episodes, strict=True)}

    @classmethod
    def draw(cls, per_behaviour: int, *, seed: int = 0) -> AgentSuite:
        """A suite with so many situations of each behaviour; another seed, other people and things first."""
        return cls([Episode(each) for each in scenarios(per_behaviour, seed=seed)])

    @property
    def behaviours(self) -> Sequence[Behaviour]:
        return behaviours()

    @property
    def trials(self) -> Sequence[Trial]:
        return self._trials

    def judge(self, answers: Sequence[tuple[Trial, str]]) -> list[Judgement]:
        """Judge each episode by what was done in it: the trial's conversation, and the last reply to it."""
        return [self._episodes[trial.item.uid].judge(trial.item.messages, reply) for trial, reply in answers]
