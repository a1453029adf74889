"""A method carried out within a budget, from the plain model to a trained one. Nothing is taken from another method's work.

Offline methods make data of as many prompts as pay for themselves and for the training on them; online methods take steps until
the budget is spent.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cai.data.rows import sft_records
from cai.engines.local import LocalEngine
from cai.errors import TrainingError
from cai.lab.comparison.best_drafts import best_drafts
from cai.lab.comparison.compute import Passes, passes_of_engine
from cai.lab.comparison.methods import MethodId
from cai.lab.comparison.setup import ContestSetup
from cai.lab.settings import LabSettings
from cai.lab.study.bench import NothingToTrainOnError
from cai.lab.study.recipes import DEFAULT, POINTWISE
from cai.lab.study.steps import (
    Tell,
    anchors_of,
    chains,
    decided_pairs,
    labels_of,
    reference_tokens_of,
    tell_nobody,
    tell_training,
    tokens_of,
)
from cai.lab.suite import loop_items
from cai.labels.settings import LabelSettings
from cai.models.loading import open_model
from cai.models.memory import return_free_memory
from cai.models.spec import ModelSpec
from cai.records import Item, PreferenceRecord, RevisionRecord, SFTRecord
from cai.rl.course import rl_course
from cai.rl.margins import MarginReward
from cai.rl.run import train_rl
from cai.rl.settings import RLSettings
from cai.training.course import Course, run_course
from cai.training.dpo import dpo_course
from cai.training.sft import sft_course
from constitution.schema import Constitution

POOL = 8
"""Prompts there are at most, as a multiple of those asked for."""
NEXT_SHARE = 0.8
"""Of the prompts that would use the budget up, so many are taken next: the estimate is better each time."""
CLOSE_ENOUGH = 0.01
"""Of the budget: so little of it may stay unspent."""


@dataclass
class Gathered:
    """Data of an offline method so far. `prompts` were taken, and `lost` of them came to nothing, by reason."""

    prompts: int = 0
    records: list[RevisionRecord] = field(default_factory=list[RevisionRecord])
    pairs: list[PreferenceRecord] = field(default_factory=list[PreferenceRecord])
    best: list[SFTRecord] = field(default_factory=list[SFTRecord])
    lost: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trained model and what the way to it took; see `EntryResult`. `model`: None where `failure` says why."""

    model: Path | None
    passes: Passes
    prompts: int
    rows: int
    steps: int
    lost: Mapping[str, int]
    failure: str = ""


class Contest:
    """Carries methods out.

    Args:
        setup: What they have in common.
        constitution: The principles.
        items: Prompts that the reference method takes.
        tell: Told how far it is.
    """

    def __init__(self, setup: ContestSetup, constitution: Constitution, *, items: int, tell: Tell = tell_nobody) -> None:
        self._setup = setup
        self._constitution = constitution
        self._items = items
        self._tell = tell
        self._engines: dict[str, LocalEngine] = {}

    def carry_out(self, method: MethodId, seed: int, budget: float | None, folder: Path) -> Outcome:
        """A model by this method.

        Args:
            method: Which.
            seed: Of prompts, drafts and training.
            budget: In tokens forward; None: whatever the prompts asked for take (offline methods alone).
            folder: Its models come here; what lies there is deleted.

        Raises:
            TrainingError: If a training failed.
        """
        shutil.rmtree(folder, ignore_errors=True)
        pool = loop_items(LabSettings(items=POOL * self._items, seed=seed))
        setup, plain = self._setup, self._setup.study.plain
        match method:
            case "online_dpo":
                return self._online(setup.online_dpo, plain, pool, seed, budget, folder / "online_dpo")
            case "rloo":
                return self._online(setup.rloo, plain, pool, seed, budget, folder / "rloo")
            case "sl_cai_rloo" | "dpo_twice":
                return self._in_two_parts(method, pool, seed, budget, folder)
            case _:
                return self._offline(method, plain, pool, seed, budget, folder)

    def _in_two_parts(self, method: MethodId, pool: Sequence[Item], seed: int, budget: float | None, folder: Path) -> Outcome:
        """A part of the budget for one method, the rest for another that starts from the first one's model."""
        part = None if budget is None else self._setup.first_share * budget
        way: MethodId = "dpo" if method == "dpo_twice" else "sl_cai"
        first = self._offline(way, self._setup.study.plain, pool, seed, part, folder / "first")
        if first.model is None:
            return first
        start, rest = ModelSpec(name=str(first.model)), None if budget is None else budget - first.passes.cost
        if method == "dpo_twice":
            then = self._offline("dpo", start, pool[first.prompts :], seed, rest, folder / "second")
            prompts = first.prompts + then.prompts
        else:
            then = self._online(self._setup.rloo, start, pool, seed, rest, folder / "second")
            prompts = max(first.prompts, then.prompts)
        passes, rows, steps = first.passes + then.passes, first.rows + then.rows, first.steps + then.steps
        return Outcome(then.model, passes, prompts, rows, steps, Counter(first.lost) + Counter(then.lost), then.failure)

    # ---- offline: data first, then training

    def _offline(
        self, method: MethodId, policy: ModelSpec, pool: Sequence[Item], seed: int, budget: float | None, folder: Path
    ) -> Outcome:
        with self._at_work() as spent:
            gathered = self._gather(method, policy, pool, seed, budget, spent)
            passes = spent()
        start, rows, steps = policy, 0, 0
        for stage in _stages(method):
            try:
                course = self._course(stage, start, gathered, seed, folder)
            except NothingToTrainOnError as error:
                return Outcome(None, passes, gathered.prompts, rows, steps, gathered.lost, error.problem)
            output = folder / stage
            gathered.lost[f"{stage}: a row that cannot be trained on"] += len(course.dropped)
            run_course(course, output, resume=False, on_event=tell_training(stage, self._tell))
            passes += _course_passes(course)
            rows, steps = len(course.rows) + len(course.anchors), steps + len(course.plan)
            start = ModelSpec(name=str(output))
        return Outcome(Path(start.name), passes, gathered.prompts, rows, steps, gathered.lost)

    def _gather(
        self,
        method: MethodId,
        policy: ModelSpec,
        pool: Sequence[Item],
        seed: int,
        budget: float | None,
        spent: Callable[[], Passes],
    ) -> Gathered:
        gathered = Gathered()
        count = self._items if budget is None else max(1, self._items // 4)
        while count:
            chosen = pool[gathered.prompts : gathered.prompts + count]
            if not chosen:
                gathered.lost["budget that the lab's prompts did not use up"] = 1
                break
            self._add(method, policy, chosen, seed, gathered)
            gathered.prompts += len(chosen)
            if budget is None:
                break
            cost = spent().cost + self._training_cost(method, policy, gathered, seed)
            left, each = budget - cost, cost / gathered.prompts
            fits = int(left / each + 0.5)
            count = 0 if left < CLOSE_ENOUGH * budget else min(fits, max(1, int(NEXT_SHARE * fits)))
        return gathered

    def _add(self, method: MethodId, policy: ModelSpec, items: Sequence[Item], seed: int, gathered: Gathered) -> None:
        study = self._setup.study
        if method == "best_of":
            reward = self._reward(self._engine(study.feedback), seed, per_reply=None)
            params, tries = study.loop.draft, self._setup.best_of
            rows, lost = best_drafts(items, self._engine(policy), reward, params, tries, seed)
            gathered.best += rows
            gathered.lost += lost
            return
        loop = study.loop.model_copy(update={"rounds": DEFAULT.rounds})
        drafting, feedback = self._engine(policy), self._engine(study.feedback)
        records, lost = chains(items, self._constitution, drafting, feedback, loop, study, seed, self._tell)
        gathered.records += records
        gathered.lost += lost
        if "dpo" in _stages(method):

            def engine(judge: str) -> LocalEngine:
                return feedback if judge == "feedback" else self._engine(study.plain)

            labels = labels_of(records, self._constitution, POINTWISE, engine, seed, self._tell)
            decided, failed = decided_pairs(labels), sum(label.failed for _, label in labels)
            gathered.pairs += decided
            gathered.lost["label: the judge gave no answer"] += failed
            gathered.lost["label: undecided"] += len(labels) - len(decided) - failed

    def _training_cost(self, method: MethodId, policy: ModelSpec, gathered: Gathered, seed: int) -> float:
        """Of all stages on the data so far, without doing them."""
        cost = 0.0
        for stage in _stages(method):
            try:
                cost += _course_passes(self._course(stage, policy, gathered, seed, None)).cost
            except NothingToTrainOnError:
                continue  # a few prompts may give nothing yet
        return cost

    def _course(self, stage: str, start: ModelSpec, gathered: Gathered, seed: int, folder: Path | None) -> Course:
        study = self._setup.study
        try:
            if stage == "sft":
                rows = gathered.best or list(sft_records(gathered.records))
                return sft_course(start, rows, study.sft.model_copy(update={"seed": seed}))
            cache = None if folder is None else str(folder / "reference")
            settings = study.dpo.model_copy(update={"seed": seed, "beta": DEFAULT.beta, "reference_cache": cache})
            return dpo_course(start, gathered.pairs, anchors_of(gathered.records, gathered.pairs), settings)
        except TrainingError as error:  # so far nothing was done but rows read
            raise NothingToTrainOnError(error.problem) from error

    # ---- online: the policy draws while it learns

    def _online(
        self, settings: RLSettings, start: ModelSpec, pool: Sequence[Item], seed: int, budget: float | None, output: Path
    ) -> Outcome:
        if budget is None:
            raise ValueError("an online method needs a budget")
        with self._at_work() as spent:
            engine = self._engine(self._setup.study.feedback)
            reward = self._reward(engine, seed, per_reply=settings.principles_per_reply)
            course = rl_course(start, pool, settings.model_copy(update={"seed": seed}), reward)

            passes = Passes()

            def until(rows: Sequence[Mapping[str, float]]) -> str:
                nonlocal passes
                passes = spent() + _rl_passes(rows)
                half_a_step = passes.cost / len(rows) / 2
                return "the budget is spent" if passes.cost + half_a_step >= budget else ""

            on_event = tell_training(settings.algorithm, self._tell)
            result = train_rl(course, output, resume=False, on_event=on_event, until=until)
        lost = {
            "prompt: too long": len(result.dropped),
            "reply: not drawn": result.failed_draws,
            "reply: no reward": result.failed_rewards,
        }
        prompts = min(len(course.items), result.steps * settings.prompts_per_step)
        return Outcome(output, passes, prompts, result.replies, result.steps, lost)

    def _reward(self, engine: LocalEngine, seed: int, *, per_reply: int | None) -> MarginReward:
        settings = POINTWISE.settings or LabelSettings()
        return MarginReward(engine, self._constitution, settings, per_reply=per_reply, seed=seed)

    # ---- engines, and what they do

    @contextmanager
    def _at_work(self) -> Generator[Callable[[], Passes]]:
        """New engines for the block; gives what they have done so far."""

        def spent() -> Passes:
            return sum((passes_of_engine(engine.statistics()) for engine in self._engines.values()), Passes())

        self._engines = {}
        try:
            yield spent
        finally:
            self._engines = {}
            return_free_memory()

    def _engine(self, spec: ModelSpec) -> LocalEngine:
        key = str(spec)
        if key not in self._engines:
            self._engines[key] = LocalEngine(open_model(spec))
        return self._engines[key]


def _stages(method: MethodId) -> tuple[str, ...]:
    stages: dict[MethodId, tuple[str, ...]] = {
        "best_of": ("sft",),
        "sl_cai": ("sft",),
        "dpo": ("dpo",),
        "sl_cai_dpo": ("sft", "dpo"),
    }
    return stages[method]


def _course_passes(course: Course) -> Passes:
    return Passes(scored=reference_tokens_of(course), trained=tokens_of(course))


def _rl_passes(rows: Sequence[Mapping[str, float]]) -> Passes:
    """Of all steps, the reward's model not counted."""
    return Passes(**{name: int(sum(row[f"tokens/{name}"] for row in rows)) for name in Passes.model_fields})
