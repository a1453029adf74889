"""One training run from loaded model and token rows to a finished folder: what preference and supervised training share."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from transformers import TrainerCallback

from cai.engines.forward import is_out_of_memory
from cai.errors import TrainingError
from cai.models.fingerprints import write_atomically
from cai.models.loading import LoadedModel
from cai.models.memory import return_free_memory
from cai.training import processes
from cai.training.card import CARD, model_card
from cai.training.checkpoint_files import refuse_broken_weights
from cai.training.folder import TrainingFolder, disk_errors, locked
from cai.training.held_out import FEWEST_PAIRS, Evaluating, HeldOut, units
from cai.training.logps import ReplyScorer
from cai.training.objectives import Objective
from cai.training.opening import Opening
from cai.training.plan import Step
from cai.training.policy import Policy, load_policy, save_policy, whole_policy
from cai.training.results import DroppedRow, MixedRows, OnEvent, TrainingResult
from cai.training.reward_scorer import RewardScorer
from cai.training.rows import PreferenceRow, ReplyRow, TrainingRow
from cai.training.scorer import Scorer
from cai.training.settings import DPOSettings, RewardSettings, SFTSettings
from cai.training.sharding import gathered_weights
from cai.training.stopping import EVAL_LOSS, Evaluation, Standing, evaluations_in, logged, rise, standing
from cai.training.symptoms import symptoms
from cai.training.tracker_packages import TENSORBOARD
from cai.training.trackers import tensorboard
from cai.training.trainer import StepTrainer
from cai.training.trainer_arguments import training_arguments

# These change how a run is computed or kept, not what it computes: a resumed run may have others. What is mixed in is told by
# the rows, wherever the file lies.
_NOT_PART_OF_THE_RUN = {
    "save_every_steps",
    "keep_checkpoints",
    "tokens_per_forward",
    "reference_cache",
    "gradient_checkpointing",
    "report_to",
    "mix",
}


@dataclass(frozen=True, slots=True)
class Course:
    """What is trained on what.

    Args:
        model: The policy before training, its weights not read yet.
        rows: Pairs or supervised rows.
        anchors: Kept drafts, for preference training.
        held_out: Rows and anchors that are evaluated, and not trained on.
        dropped: Rows that were left out before.
        plan: The steps.
        objective: The loss.
        settings: Of the stage.
        mixed: What of the rows was mixed in from files.
        held_out_objective: The loss of held-out rows; None: that of the others.
    """

    model: LoadedModel
    rows: Sequence[TrainingRow]
    anchors: Sequence[ReplyRow]
    held_out: Sequence[TrainingRow]
    dropped: Sequence[DroppedRow]
    plan: Sequence[Step]
    objective: Objective
    settings: DPOSettings | SFTSettings | RewardSettings
    mixed: tuple[MixedRows, ...] = ()
    held_out_objective: Objective | None = None

    def scorer(self, policy: Policy) -> Scorer:
        """Of what the loss is made of."""
        scorer = RewardScorer if isinstance(self.settings, RewardSettings) else ReplyScorer
        return scorer(policy.model, policy.compute_dtype)

    def fingerprint(self) -> str:
        """Hash of all that decides the trained weights."""
        settings = {
            name: value for name, value in self.settings.model_dump(mode="json").items() if name not in _NOT_PART_OF_THE_RUN
        }
        settings["learning_rate"] = self.settings.peak_learning_rate
        digest = hashlib.sha256()
        heads: list[Any] = [4, type(self.settings).__name__, self.model.fingerprint, settings]
        for part in (heads, *self._rows_content()):
            digest.update(json.dumps(part, separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()

    def _rows_content(self) -> Iterator[list[Any]]:
        """One by one: together, as text, they are many times as large as the rows."""
        for kind, rows in (("rows", self.rows), ("anchors", self.anchors), ("held out", self.held_out)):
            yield [kind, len(rows)]
            yield from map(_content, rows)


def _content(row: TrainingRow) -> list[Any]:
    pairs = [dataclasses.astuple(pair) for pair in row.pairs] if isinstance(row, PreferenceRow) else None
    group = row.group
    return [row.uid, row.replica, group.prompt_ids, group.replies, group.unscored, group.beginnings, pairs]


def run_course(
    course: Course,
    output_folder: Path,
    *,
    resume: bool,
    on_event: OnEvent | None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Train, save, and say how it went; a finished run with the same fingerprint is returned as it is.

    Under `torchrun` or `accelerate launch` all processes call this with the same arguments, and get the same result; the first
    one writes the folder.

    Raises:
        TrainingError: Another process trains in the folder, or the model lies in it; the disk is full, memory runs out, the
            loss is not finite.
    """
    if output_folder.resolve() == course.model.place.folder.resolve():
        raise TrainingError(f"{output_folder}: the model to be trained lies here", "give another output folder")
    PartialState: Any = import_module("accelerate").PartialState  # slow to load, and without types
    PartialState(cpu=course.model.device.type == "cpu")  # lets the processes know each other
    folder = TrainingFolder(output_folder, course.fingerprint())
    with (
        disk_errors(output_folder),
        locked(output_folder, main_process=processes.is_first()),
        memory_errors(),
        flushed_denormals(),
    ):
        if resume and (result := processes.from_first(folder.finished())) is not None:
            return result
        result = _train(course, folder, resume=resume, on_event=on_event, callbacks=callbacks)
    # The Trainer refers to itself: without this, its model and optimizer stay until garbage happens to be collected.
    return_free_memory()
    return result


def _train(
    course: Course, folder: TrainingFolder, *, resume: bool, on_event: OnEvent | None, callbacks: Sequence[TrainerCallback]
) -> TrainingResult:
    started = time.monotonic()
    settings = course.settings
    checkpoint, before = processes.from_first(_checkpoint(folder) if resume else (None, None))
    # Killed after it had stopped early: nothing is left to train.
    plan = course.plan[: checkpoint[1]] if checkpoint and before and before.stops(settings.patience) else course.plan
    arguments = training_arguments(settings, len(plan), folder.checkpoints, course.model.device)
    policy = load_policy(course.model, settings)
    warnings: list[str] = []
    if processes.is_first() and folder.prepare(checkpoint[1] if checkpoint else None) and resume:
        warnings.append("the folder held a run on other rows, model or settings; training started from the beginning")
    scorer = course.scorer(policy)
    device: torch.device = cast("Any", arguments).device
    opening = Opening(course.rows, course.held_out, settings, policy, folder.path, scorer, device, on_event)
    trainer = StepTrainer(
        policy.model,
        arguments,
        make_rows=opening,
        anchors=course.anchors,
        plan=plan,
        epochs=settings.epochs,
        scorer=scorer,
        objective=course.objective,
        tokens_per_forward=settings.tokens_per_forward,
        evaluation=_evaluation(course, policy, scorer),
        on_metrics=folder.add_metrics,
        on_event=on_event,
        measure=opening.measure,
        callbacks=callbacks if TENSORBOARD not in settings.report_to else (*callbacks, *tensorboard(folder.tensorboard)),
        keep_checkpoints=settings.keep_checkpoints,
    )
    cast("Any", trainer).train(resume_from_checkpoint=str(checkpoint[0]) if checkpoint else None)
    steps = int(trainer.state.global_step)
    kept = trainer.keep_best() if settings.patience is not None else steps
    refuse_broken_weights(policy.model, kept)
    weights = gathered_weights(cast("Any", trainer).model_wrapped, trainer.accelerator)
    result: TrainingResult | None = None
    if processes.is_first():
        lines = [line for line in folder.metrics() if "loss" in line]
        held_out_metrics = {int(line["step"]): line for line in folder.metrics() if EVAL_LOSS in line}
        warnings += _warnings(course, lines, evaluations_in(list(held_out_metrics.values())), kept)
        warnings += [opening.warning] if opening.warning else []
        if opening.reason:
            warnings.append(f"rows were padded, and what replies share computed for each of them: {opening.reason}")
        result = TrainingResult(
            fingerprint=folder.fingerprint,
            folder=folder.path,
            adapter=folder.adapter if policy.has_adapter and course.model.spec.adapter is None else None,
            steps=steps,
            planned_steps=len(course.plan),
            kept_step=kept,
            resumed_from_step=checkpoint[1] if checkpoint else 0,
            trained_rows=units(course.rows),
            anchors=len(course.anchors),
            held_out=units(course.held_out),
            mixed=course.mixed,
            dropped=tuple(course.dropped),
            path=scorer.path,
            dtype=str(course.model.dtype).removeprefix("torch."),
            reference_computed=opening.computed,
            first_metrics=lines[0] if lines else {},
            last_metrics=lines[-1] if lines else {},
            held_out_metrics=held_out_metrics.get(kept, {}),
            warnings=tuple(warnings),
            seconds=round(time.monotonic() - started, 3),
        )
        whole = policy if weights is None else whole_policy(policy, settings, weights)
        save_policy(whole, folder.path, folder.adapter, merge=settings.merge)
        card = model_card(result, course.model, settings, label_strength=_label_strength(course))
        write_atomically(folder.path / CARD, card)
        folder.finish(result, keep_checkpoints=settings.keep_checkpoints)
    return cast("TrainingResult", processes.from_first(result))


def _warnings(
    course: Course, lines: Sequence[dict[str, float]], evaluations: Sequence[Evaluation], kept_step: int
) -> list[str]:
    """What logged lines and evaluations say that the reader should know."""
    warnings: list[str] = []
    settings = course.settings
    if isinstance(settings, DPOSettings):
        warnings += symptoms(lines, steps_per_epoch=len(course.plan) // settings.epochs, pairs=units(course.rows))
    if 0 < (held_out := units(course.held_out)) < FEWEST_PAIRS:
        warnings.append(f"only {held_out} rows were held out: their figures say little; from {FEWEST_PAIRS} on they begin to")
    if (risen := rise(evaluations, kept_step)) is not None:
        warnings.append(
            f"the held-out loss was lowest after step {risen.step} ({risen.loss:.4f}) and has risen since: fewer epochs, or "
            "patience, which keeps the best weights"
        )
    if rewritten := sum(isinstance(row, ReplyRow) and len(row.group.replies) > 1 for row in course.rows):
        warnings.append(
            f"in {rewritten} conversations the chat template rewrites earlier turns: each was read in its own context"
        )
    warnings += [
        f"{each.path}: has too few rows to mix in; they are {each.share:.1%} of what is learned, not {each.wanted_share:.1%}"
        for each in course.mixed
        if each.exhausted
    ]
    return warnings


def _checkpoint(folder: TrainingFolder) -> tuple[tuple[Path, int] | None, Standing | None]:
    """The checkpoint to go on from, and where its evaluations left training."""
    found = folder.resumable()
    return found, standing(evaluations_in(logged(found[0]))) if found else None


def _label_strength(course: Course) -> float | None:
    labels = [pair.p_chosen for row in course.rows if isinstance(row, PreferenceRow) for pair in row.pairs]
    return fmean(labels) if labels else None


def _evaluation(course: Course, policy: Policy, scorer: Scorer) -> Evaluating | None:
    if not course.held_out:
        return None
    settings = course.settings
    as_reference = policy.as_reference if policy.has_adapter else None
    objective = course.held_out_objective or course.objective
    held_out = HeldOut(course.held_out, scorer, objective, settings.tokens_per_forward, as_reference)
    return Evaluating(held_out, settings.eval_every_steps or len(course.plan) // settings.epochs, settings.patience)


@contextlib.contextmanager
def flushed_denormals() -> Generator[None]:
    """Saturated pairs have denormal gradients, which CPUs compute a hundred times slower: they count as zero in here."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def memory_errors() -> Generator[None]:
    """Turn running out of memory, of an accelerator or of the machine, into a TrainingError that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # a RuntimeError is what a CPU's allocator makes of it
        if not is_out_of_memory(error):
            raise
        whose = "accelerator" if isinstance(error, torch.OutOfMemoryError) else "machine"
        raise TrainingError(
            f"the {whose}'s memory ran out", "halve tokens_per_forward or set gradient_checkpointing; it resumes"
        ) from error
