"""What a suite is: prompts, the behaviour each of them tries, and somebody who judges the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

from cai.engines.base import Engine, RequestFailure
from cai.records import Item
from cai.verdicts import Judged, judge
from constitution.messages import Conversation, assistant
from constitution.schema import Constitution, Principle
from constitution.selection import select_principle

Outcome: TypeAlias = Literal["good", "bad", "broken", "unjudged"]
Kind: TypeAlias = Literal["fault", "control"]


class Behaviour(BaseModel):
    """What is counted. A fault should fall; a control (right behaviour next to it) must not get worse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    label: str
    kind: Kind
    twin: str | None = None
    """The control that a cure of the fault would overdo, or the fault that this control belongs to."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One prompt that tries one behaviour.

    Args:
        item: The conversation up to the first turn that the model writes.
        behaviour: What it tries.
        follow_ups: What comes after the model's first answer, and after each later one; the last answer is the one judged.
        continuation: Instead of follow-ups: what comes after a conversation and the model's reply to it, given both; None when
            it is over. It ends some time for every model.
        cluster: Trials of one cluster are not independent; "": none but this prompt.
    """

    item: Item
    behaviour: str
    follow_ups: tuple[Conversation, ...] = ()
    cluster: str = ""
    continuation: Callable[[Conversation, str], Conversation | None] | None = None

    @property
    def has_more(self) -> bool:
        """Whether the model answers more than once."""
        return bool(self.follow_ups) or self.continuation is not None

    def after(self, conversation: Conversation, reply: str, turn: int) -> Conversation | None:
        """What the model answers next, after `reply` in turn `turn` (from 0); None when that was the last one."""
        if self.continuation is not None:
            return self.continuation(conversation, reply)
        if turn >= len(self.follow_ups):
            return None
        return (*conversation, assistant(reply), *self.follow_ups[turn])

    @property
    def cluster_name(self) -> str:
        return self.cluster or self.item.uid


@dataclass(frozen=True, slots=True)
class Judgement:
    outcome: Outcome
    why: str


class Suite(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def judge_name(self) -> str:
        """Who judges: shown beside every figure."""
        ...

    @property
    def behaviours(self) -> Sequence[Behaviour]: ...

    @property
    def trials(self) -> Sequence[Trial]: ...

    def judge(self, answers: Sequence[tuple[Trial, str]]) -> list[Judgement]:
        """Judge answers, in the order given."""
        ...


FEEDBACK_JUDGE = "the feedback model (pointwise verdicts)"


def breaking(name: str) -> Behaviour:
    """The fault of breaking a principle."""
    return Behaviour(id=name, label=f"breaks “{name}”", kind="fault")


def judge_by_principles(
    feedback: Engine,
    answers: Sequence[tuple[Trial, str]],
    principles: Mapping[str, Principle],
    *,
    seed: int,
    ground_tokens: int,
) -> list[Judgement]:
    """Judge each answer under the principle that its trial's behaviour names; an empty one is broken, and nobody is asked."""
    written = [i for i, (_, reply) in enumerate(answers) if reply.strip()]
    asked = [
        Judged(trial.item.messages, reply, principles[trial.behaviour], f"{seed}/{trial.item.uid}/0/verdict/0")
        for trial, reply in (answers[i] for i in written)
    ]
    judgements = [Judgement("broken", "an empty answer")] * len(answers)
    for i, each in zip(written, judge(feedback, asked, ground_tokens=ground_tokens), strict=True):
        if isinstance(each, RequestFailure):
            judgements[i] = Judgement("unjudged", each.cause)
        else:
            judgements[i] = Judgement("good" if each.log_odds_nats > 0 else "bad", each.ground)
    return judgements


class PrincipleSuite:
    """Any held-out prompts, judged by the feedback model: does it find anything to change under one applicable principle?

    The judge is the model that made the labels, so this measures what it was trained towards, not truth.
    """

    name = "principles"

    def __init__(
        self, items: Sequence[Item], constitution: Constitution, feedback: Engine, *, seed: int, ground_tokens: int
    ) -> None:
        self._constitution = constitution
        self._feedback = feedback
        self._seed = seed
        self._ground_tokens = ground_tokens
        drawn = [(item, select_principle(constitution, seed=seed, uid=item.uid, round=-1, tags=item.tags)) for item in items]
        self._trials = tuple(Trial(item, principle.id) for item, principle in drawn if principle is not None)
        used = {trial.behaviour for trial in self._trials}
        self._behaviours = tuple(breaking(p.id) for p in constitution.principles if p.id in used)

    @property
    def judge_name(self) -> str:
        return FEEDBACK_JUDGE

    @property
    def behaviours(self) -> Sequence[Behaviour]:
        return self._behaviours

    @property
    def trials(self) -> Sequence[Trial]:
        return self._trials

    def judge(self, answers: Sequence[tuple[Trial, str]]) -> list[Judgement]:
        principles = {principle.id: principle for principle in self._constitution.principles}
        return judge_by_principles(self._feedback, answers, principles, seed=self._seed, ground_tokens=self._ground_tokens)
