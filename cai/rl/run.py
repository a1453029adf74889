"""One run of online optimisation: draw, judge, measure, move, again; saved so that a kill costs only what came after.

A run is a function of model, prompts, settings and rewards, interrupted or not: bit for bit on a CPU in float32, if the rewards
are functions of the replies too.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch

from cai.errors import TrainingError
from cai.models.fingerprints import write_atomically
from cai.models.memory import Tidying, return_free_memory
from cai.rl.card import rl_card
from cai.rl.checkpoints import clear_others, load_checkpoint, load_weights, save_checkpoint, saved_steps
from cai.rl.course import RLCourse
from cai.rl.experience import Batch, Known, batch_of, targets_of
from cai.rl.folder import RLFolder
from cai.rl.learner import Diverged, Learner, Reference
from cai.rl.leash import first_snap, good_step, snapped
from cai.rl.preferences import preference_rows, preference_update
from cai.rl.results import RLResult
from cai.rl.rewards import Judgement, Reply, bounded, judged
from cai.rl.rows import Tokens, distance_row, mean_row, reply_row, sample_rows, tokens_row
from cai.rl.sampling import Rollout, Sampler, items_of_step, policy_engine
from cai.rl.telling import warnings_of
from cai.training.card import CARD
from cai.training.course import flushed_denormals
from cai.training.folder import disk_errors, locked
from cai.training.logps import ReplyScorer
from cai.training.packing import TokenGroup
from cai.training.policy import Policy, load_policy, save_policy
from cai.training.probing import choose_path
from cai.training.results import OnEvent, TrainingEvent

OnMetrics: TypeAlias = Callable[[Mapping[str, float]], None]
"""Told of a step's row of metrics, `step` among them."""
Until: TypeAlias = Callable[[Sequence[Mapping[str, float]]], str]
"""Of all rows of metrics so far: why the run is to end here; "" to go on."""


def train_rl(
    course: RLCourse,
    output_folder: Path | str,
    *,
    resume: bool = True,
    on_event: OnEvent | None = None,
    on_metrics: OnMetrics | None = None,
    until: Until | None = None,
) -> RLResult:
    """Optimise, save, and say how it went. A killed run goes on from its last checkpoint, a finished one is returned.

    Args:
        course: From `rl_course`.
        output_folder: What it holds afterwards is described in `cai.rl.folder`.
        resume: False: start anew.
        on_event: Told after every step.
        on_metrics: Told of every step's row of metrics, once it is written down.
        until: Asked after every step, whether the run has had enough: a budget that is spent. Its last weights are kept.

    Raises:
        CaiError: A reward cannot begin.
        TrainingError: The loss or a reward stopped being finite, or the reward gave nothing for too long: the weights of the
            last good checkpoint are then saved all the same. Or the folder cannot be used.
    """
    path = Path(output_folder)
    if path.resolve() == course.model.place.folder.resolve():
        raise TrainingError(f"{path}: the model to be trained lies here", "give another output folder")
    folder = RLFolder(path, course.fingerprint)
    with disk_errors(path), locked(path, main_process=True), flushed_denormals():
        if resume and (result := folder.ended()) is not None:
            return result
        for reward in (course.reward, course.truth):
            if reward is not None:
                reward.begin()
        try:
            return _Run(course, folder, on_event, on_metrics, until).train(resume=resume)
        finally:
            return_free_memory()


class _Stopped(Exception):
    """The run cannot go on; what it has learned until the last good checkpoint can be kept."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


@contextmanager
def _stopped_where_it_diverges(step: int) -> Generator[None]:
    try:
        yield
    except Diverged as diverged:
        hint = "lower rl.learning_rate, raise rl.beta, or train in float32"
        raise _Stopped(f"step {step}: {diverged}", hint) from diverged


class _Run:
    def __init__(
        self,
        course: RLCourse,
        folder: RLFolder,
        on_event: OnEvent | None,
        on_metrics: OnMetrics | None,
        until: Until | None,
    ) -> None:
        self._course, self._folder = course, folder
        self._on_event, self._on_metrics, self._until = on_event, on_metrics, until
        settings = self._settings = course.settings
        self._started, self._tidying = time.monotonic(), Tidying()
        self._policy: Policy = load_policy(course.model, settings.training)
        self._device: torch.device = course.model.device
        self._scorer = ReplyScorer(self._policy.model, self._policy.compute_dtype, temperature=settings.temperature)
        engine = policy_engine(course.model, self._policy.model)
        self._sampler = Sampler(
            engine,
            samples=settings.samples_per_prompt,
            max_tokens=settings.max_tokens,
            seed=settings.seed,
            temperature=settings.temperature,
        )
        self._rows: list[dict[str, float]] = []
        self._failures: list[str] = []
        self._padded = self._choose_path()
        reference = Reference.of(self._policy, self._scorer, course.model)
        self._learner = Learner(self._policy, self._scorer, reference, settings, self._device)
        self._resumed = 0

    def train(self, *, resume: bool) -> RLResult:
        settings, folder = self._settings, self._folder
        found = folder.resumable() if resume else None
        self._resumed = found[1] if found else 0
        cleared = folder.prepare(found[1] if found else None)
        warnings = ["the folder held another run; training started from the beginning"] if cleared and resume else []
        if found:
            load_checkpoint(self._learner, folder.checkpoints, found[1])
            self._rows = folder.metrics()
        stopped, step = "", self._resumed
        held = snapped(self._rows, settings.leash)
        enough = self._enough()
        try:
            while step < settings.steps and not (held and settings.leash.stop) and not enough:
                step += 1
                self._step(step)
                held, enough = snapped(self._rows, settings.leash), self._enough()
                ends = step == settings.steps or (held and settings.leash.stop) or enough
                if step % settings.save_every_steps == 0 or ends:
                    self._save(step)
        except _Stopped as stop:
            raise self._ended_badly(stop, step) from stop
        kept = step
        if held and settings.leash.stop:
            stopped = held.reason
            kept = good_step(self._rows, saved_steps(folder.checkpoints), settings.leash.window) or step
            load_weights(self._learner, folder.checkpoints, kept)
        else:
            stopped = enough
        if not settings.leash.stop and (would := first_snap(self._rows, settings.leash)):
            warnings.append(f"the leash would have stopped the run after step {would.step}: {would.reason}")
        result = self._result(step, kept, stopped, warnings)
        self._save_policy()
        write_atomically(folder.path / CARD, rl_card(result, self._course.model, settings))
        folder.end(result)
        return result

    def _enough(self) -> str:
        return self._until(self._rows) if self._until and self._rows else ""

    # ---- one step

    def _step(self, step: int) -> None:
        settings, began, before = self._settings, time.monotonic(), self._tokens()
        items = items_of_step(self._course.items, step, settings.prompts_per_step, settings.seed)
        self._policy.model.eval()
        rollouts = self._sampler.draw(items, step)
        reward, truth = self._judge(rollouts)
        row = reply_row(step, rollouts, reward, truth)
        self._refuse_explosion(step, reward, rollouts)
        batch = self._batch(rollouts, reward)
        known: Known | None = None
        loss = math.nan
        if batch.pieces:
            known = self._learner.know(batch)
            row |= distance_row(batch, known)
            with _stopped_where_it_diverges(step):
                found = self._update(batch, known, step)
            row |= found
            loss = found.get("loss", math.nan)
        row |= tokens_row(before, self._tokens())
        row["seconds"] = round(time.monotonic() - began, 3)
        samples = sample_rows(step, rollouts, reward, truth, batch, known, settings.shown_samples)
        self._folder.add_row(row, samples)
        self._rows.append(row)
        if self._on_metrics is not None:
            self._on_metrics(row)
        self._refuse_silence(step)
        if self._device.type == "cpu":
            self._tidying.step_ended()
        self._tell(step, loss)

    def _judge(self, rollouts: Sequence[Rollout]) -> tuple[Judgement, Judgement | None]:
        settings, course = self._settings, self._course
        replies = [Reply(each.item, sample.text, len(sample.ids), sample.ids) for each in rollouts for sample in each.samples]
        reward = judged(course.reward, replies)
        if settings.cut_penalty:
            ended = [sample.ended for each in rollouts for sample in each.samples]
            paid = [value - (0 if end else settings.cut_penalty) for value, end in zip(reward.rewards, ended, strict=True)]
            reward = Judgement(tuple(paid), reward.failures)
        truth = None if course.truth is None else bounded(judged(course.truth, replies), settings.reward_limit)
        self._failures = list(dict.fromkeys([*self._failures, *reward.failures, *(truth.failures if truth else ())]))[:8]
        return reward, truth

    def _batch(self, rollouts: Sequence[Rollout], reward: Judgement) -> Batch:
        settings = self._settings
        alone = settings.algorithm == "ppo"
        most = sys.maxsize if settings.algorithm == "online_dpo" else settings.tokens_per_forward  # a pair stays whole
        return batch_of(rollouts, reward.rewards, self._scorer.layout, most, least=1 if alone else 2)

    def _update(self, batch: Batch, known: Known, step: int) -> dict[str, float]:
        settings = self._settings
        if settings.algorithm == "online_dpo":
            rows = preference_rows(batch, known, settings)
            found = preference_update(self._learner, batch, rows, settings, step)
            return {"pairs": float(len(rows)), **found}
        targets = targets_of(batch, known, settings)
        return self._learner.update(batch, known, targets, step)

    def _refuse_explosion(self, step: int, reward: Judgement, rollouts: Sequence[Rollout]) -> None:
        limit = self._settings.reward_limit
        uids = [each.item.uid for each in rollouts for _ in each.samples]
        worst = next((at for at, value in enumerate(reward.rewards) if abs(value) > limit), None)
        if worst is not None:
            raise _Stopped(
                f"step {step}: the reward of a reply to {uids[worst]} is {reward.rewards[worst]:g}, beyond rl.reward_limit "
                f"({limit:g})",
                "look at the reward; if it is right, raise rl.reward_limit",
            )

    def _refuse_silence(self, step: int) -> None:
        last = self._rows[-self._settings.reward_patience :]
        if len(last) == self._settings.reward_patience and not any("reward" in row for row in last):
            told = "; ".join(self._failures[-3:])
            raise _Stopped(
                f"step {step}: no usable reward in {len(last)} steps ({told})",
                "mend what the reward needs, then run again: it resumes (with another text a function is another reward, and "
                "begins another run)",
            )

    # ---- around the steps

    def _tokens(self) -> Tokens:
        drawing, learner = self._sampler.statistics(), self._learner
        return Tokens(drawing.read_tokens, drawing.completion_tokens, learner.scored_tokens, learner.trained_tokens)

    def _choose_path(self) -> str:
        """Why replies are padded rows; "" where they are trees."""
        prompt = tuple(self._course.model.tokenizer.encode_chat(self._course.items[0].messages))
        probe = TokenGroup(prompt, (prompt[-12:], prompt[-7:]))
        self._policy.model.eval()
        with self._policy.as_reference():
            return choose_path(self._policy.model, self._scorer, [probe], self._device)

    def _save(self, step: int) -> None:
        folder, window = self._folder, self._settings.leash.window
        with _stopped_where_it_diverges(step):
            save_checkpoint(self._learner, folder.checkpoints, step)
        good = good_step(self._rows, saved_steps(folder.checkpoints), window)
        clear_others(folder.checkpoints, {step, good or step})

    def _ended_badly(self, stop: _Stopped, step: int) -> TrainingError:
        """The error to be raised, with the last good weights saved where there are any."""
        self._learner.optimizer.zero_grad(set_to_none=True)
        checkpoints = self._folder.checkpoints
        kept = good_step(self._rows, [at for at in saved_steps(checkpoints) if at < step], self._settings.leash.window)
        if kept is None:
            return TrainingError(stop.reason, f"{stop.hint}. Nothing had been saved yet")
        load_weights(self._learner, checkpoints, kept)
        self._save_policy()
        return TrainingError(stop.reason, f"{stop.hint}. The weights after step {kept} are kept in {self._folder.path}")

    def _save_policy(self) -> None:
        course = self._course
        save_policy(self._policy, self._folder.path, self._folder.adapter, merge=course.settings.merge)

    def _result(self, step: int, kept: int, stopped: str, warnings: Sequence[str]) -> RLResult:
        course, settings, rows = self._course, self._settings, self._rows
        window = settings.leash.window
        own_adapter = self._policy.has_adapter and course.model.spec.adapter is None
        result = RLResult(
            fingerprint=course.fingerprint,
            folder=self._folder.path,
            adapter=self._folder.adapter if own_adapter else None,
            algorithm=settings.algorithm,
            reward=course.reward.name,
            truth=None if course.truth is None else course.truth.name,
            steps=step,
            planned_steps=settings.steps,
            kept_step=kept,
            stopped=stopped,
            resumed_from_step=self._resumed,
            prompts=len(course.items),
            dropped=course.dropped,
            replies=int(sum(row["replies"] for row in rows)),
            failed_draws=int(sum(row["draws/failed"] for row in rows)),
            failed_rewards=int(sum(row["reward/failed"] for row in rows)),
            failed_truths=int(sum(row.get("truth/failed", 0) for row in rows)),
            idle_steps=sum("loss" not in row for row in rows),
            path=self._scorer.path,
            dtype=str(course.model.dtype).removeprefix("torch."),
            first=mean_row(rows[:window]),
            last=mean_row(rows[-window:]),
            kept=mean_row([row for row in rows if row["step"] <= kept][-window:]),
            warnings=(),
            seconds=round(time.monotonic() - self._started, 3),
        )
        padded = [f"replies were padded, and each prompt computed for each of them: {self._padded}"] if self._padded else []
        told = (*warnings, *padded, *warnings_of(result, self._failures))
        return result.model_copy(update={"warnings": told})

    def _tell(self, step: int, loss: float) -> None:
        if self._on_event is None:
            return
        seconds = max(time.monotonic() - self._started, 1e-9)
        eta = seconds / (step - self._resumed) * (self._settings.steps - step)
        rate = (self._learner.scored_tokens + self._learner.trained_tokens) / seconds
        told = None if math.isnan(loss) else loss
        self._on_event(TrainingEvent("train", step, self._settings.steps, told, rate, eta))
