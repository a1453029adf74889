"""Everything that is asked of the models themselves: answers, beliefs, and log-probabilities of their own samples.

One model is open at a time, whatever their number; what a judge says comes later. Each call is remembered where the engines
remember, so an evaluation that was killed asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cai.engines.base import Engine, RequestFailure
from cai.evaluation.answering import Reply, Sampling, Try, answer, tries
from cai.evaluation.confidence import Belief, token_beliefs
from cai.evaluation.data_suites import SuitePlan
from cai.evaluation.drift import own_logps
from cai.evaluation.suites import Trial
from constitution.messages import Conversation

Section: TypeAlias = Literal["behaviours", "stated", "drift", "preference"]
SECTIONS: tuple[Section, ...] = ("behaviours", "stated", "drift", "preference")
OnProgress: TypeAlias = Callable[[str, int, int], None]
"""(what is being done, done, in all)."""

SAMPLED_AT = 1.0
"""Temperature of the answers that show drift: the KL of the policy itself is that of its samples at 1."""
UNSCORED = "no_log_probabilities"


@dataclass(frozen=True)
class Contestant:
    """A model that is evaluated.

    Args:
        name: As the tables call it.
        open_engine: Called when it is its turn.
        unscored: Why it gives no log-probabilities; "": it does.
    """

    name: str
    open_engine: Callable[[], Engine]
    unscored: str = ""


@dataclass
class Gathered:
    """What one model said in one suite; every list is in the order of the suite's tries or questions."""

    replies: dict[Section, list[Reply | RequestFailure]] = field(default_factory=dict[Section, list[Reply | RequestFailure]])
    beliefs: list[Belief | RequestFailure] = field(default_factory=list[Belief | RequestFailure])
    own: list[tuple[float, int] | RequestFailure] = field(default_factory=list[tuple[float, int] | RequestFailure])
    """drift: log-probability and tokens of the model's own answers."""
    by_start: list[tuple[float, int] | RequestFailure] = field(default_factory=list[tuple[float, int] | RequestFailure])
    """drift: the same answers under the first model."""


def tries_of(plan: SuitePlan, section: Section, sampling: Sampling) -> list[Try]:
    """What a suite asks in one of its sections."""
    if section == "drift":
        return [Try(trial, SAMPLED_AT, number) for number in range(sampling.seeds) for trial in plan.drift]
    trials: Sequence[Trial] = plan.preference
    if section == "behaviours":
        trials = plan.suite.trials if plan.suite is not None else ()
    elif section == "stated":
        trials = plan.stated.trials if plan.stated is not None else ()
    return tries(trials, sampling)


def gather(
    plans: Sequence[SuitePlan],
    contestants: Sequence[Contestant],
    sampling: Sampling,
    *,
    max_tokens: int,
    seed: int,
    on_progress: OnProgress,
) -> tuple[list[list[Gathered]], list[str]]:
    """By contestant, then by suite; and the contestants' fingerprints."""
    found: list[list[Gathered]] = []
    fingerprints: list[str] = []
    for contestant in contestants:
        engine = contestant.open_engine()
        fingerprints.append(engine.fingerprint)
        mine = _answered(plans, engine, sampling, max_tokens, seed, _telling(on_progress, f"ask {contestant.name}"))
        for plan, each in zip(plans, mine, strict=True):
            each.beliefs = (
                [RequestFailure(UNSCORED, contestant.unscored)] * len(plan.questions)
                if contestant.unscored
                else token_beliefs(engine, plan.questions)
            )
            if contestant is not contestants[0]:
                each.own = _scored(contestant, engine, each)
        found.append(mine)
    _score_by_start(contestants, found, on_progress)
    return found, fingerprints


def _telling(on_progress: OnProgress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(what, done, total)


def _answered(
    plans: Sequence[SuitePlan],
    engine: Engine,
    sampling: Sampling,
    max_tokens: int,
    seed: int,
    on_done: Callable[[int, int], None],
) -> list[Gathered]:
    """All suites in one stream, so that batches stay full."""
    places: list[tuple[int, Section]] = []
    asked: list[Try] = []
    lengths: list[int] = []
    for number, plan in enumerate(plans):
        for section in SECTIONS:
            own = tries_of(plan, section, sampling)
            places.extend((number, section) for _ in own)
            asked += own
            lengths += [plan.max_tokens or max_tokens] * len(own)
    found = [Gathered({section: [] for section in SECTIONS}) for _ in plans]
    for (number, section), reply in zip(places, answer(engine, asked, lengths, seed=seed, on_done=on_done), strict=True):
        found[number].replies[section].append(reply)
    return found


def _scored(contestant: Contestant, engine: Engine, each: Gathered) -> list[tuple[float, int] | RequestFailure]:
    """Log-probabilities of a model's drift answers under one model; what has no answer has none."""
    replies = each.replies["drift"]
    if contestant.unscored:
        return [RequestFailure(UNSCORED, contestant.unscored)] * len(replies)
    scored = iter(own_logps(engine, list(_texts(replies))))
    return [next(scored) if isinstance(reply, Reply) else reply for reply in replies]


def _texts(replies: Sequence[Reply | RequestFailure]) -> Iterator[tuple[Conversation, str]]:
    for reply in replies:
        if isinstance(reply, Reply):
            yield reply.conversation, reply.text


def _score_by_start(contestants: Sequence[Contestant], found: Sequence[list[Gathered]], on_progress: OnProgress) -> None:
    """The first model's log-probabilities of what the others wrote."""
    wanted = [each for mine in found[1:] for each in mine if each.replies["drift"]]
    if not wanted:
        return
    engine = contestants[0].open_engine()
    for done, each in enumerate(wanted, start=1):
        each.by_start = _scored(contestants[0], engine, each)
        on_progress(f"score by {contestants[0].name}", done, len(wanted))
