"""One training run from loaded model and token rows to a finished folder: what preference and supervised training share."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch

from cai.errors import TrainingError
from cai.models.loading import LoadedModel
from cai.training.folder import TrainingFolder, disk_errors, locked
from cai.training.logps import ReplyScorer, choose_layout
from cai.training.objectives import Objective
from cai.training.packing import Layout
from cai.training.plan import Step
from cai.training.policy import Policy, load_policy, save_policy
from cai.training.reference import ReferenceCache, reference_logps
from cai.training.results import DroppedRow, OnEvent, TrainingResult
from cai.training.rows import PairRow, ReplyRow, TrainingRow
from cai.training.settings import DPOSettings, SFTSettings
from cai.training.trainer import StepTrainer, refuse_broken_weights, training_arguments

# These change how a run is computed or kept, not what it computes: a resumed run may have others.
_NOT_PART_OF_THE_RUN = {"save_every_steps", "tokens_per_forward", "reference_cache", "gradient_checkpointing"}

SATURATED_MARGIN = 6.0
"""A pair with βΔ above this has a loss below 0.0025 nats: its gradient is gone."""
LOUD_DRIFT_NATS = 0.3
"""Fall of the chosen replies' log-probability, in nats a token, that deserves a warning."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is trained on what.

    Args:
        model: The policy before training, its weights not read yet.
        rows: Pairs or supervised rows.
        anchors: Kept drafts, for preference training.
        dropped: Rows that were left out before.
        plan: The steps.
        objective: The loss.
        settings: Of the stage.
    """

    model: LoadedModel
    rows: Sequence[TrainingRow]
    anchors: Sequence[ReplyRow]
    dropped: Sequence[DroppedRow]
    plan: Sequence[Step]
    objective: Objective
    settings: DPOSettings | SFTSettings

    def fingerprint(self) -> str:
        """Hash of all that decides the trained weights."""
        settings = {
            name: value for name, value in self.settings.model_dump(mode="json").items() if name not in _NOT_PART_OF_THE_RUN
        }
        rows = [[row.uid, row.replica, row.group.prompt_ids, row.group.replies, _strength(row)] for row in self.rows]
        anchors = [[row.uid, row.replica, row.group.prompt_ids, row.group.replies] for row in self.anchors]
        content = [1, type(self.settings).__name__, self.model.fingerprint, settings, rows, anchors]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _strength(row: TrainingRow) -> float | None:
    return row.p_chosen if isinstance(row, PairRow) else None


def run_course(course: Course, output_folder: Path, *, resume: bool, on_event: OnEvent | None) -> TrainingResult:
    """Train, save, and say how it went; a finished run with the same fingerprint is returned as it is.

    Raises:
        TrainingError: Another process trains in the folder, or the model lies in it; the disk is full, memory runs out, the
            loss is not finite.
    """
    if output_folder.resolve() == course.model.place.folder.resolve():
        raise TrainingError(f"{output_folder}: the model to be trained lies here", "give another output folder")
    PartialState: Any = import_module("accelerate").PartialState  # slow to load, and without types
    main_process = PartialState(cpu=course.model.device.type == "cpu").is_main_process
    folder = TrainingFolder(output_folder, course.fingerprint())
    with disk_errors(output_folder), locked(output_folder, main_process=main_process), _memory_errors(), _flushed_denormals():
        if resume and (result := folder.finished()) is not None:
            return result
        return _train(course, folder, resume=resume, on_event=on_event)


def _train(course: Course, folder: TrainingFolder, *, resume: bool, on_event: OnEvent | None) -> TrainingResult:
    started = time.monotonic()
    settings, policy = course.settings, load_policy(course.model, course.settings)
    checkpoint = folder.resumable() if resume else None
    arguments: Any = training_arguments(settings, len(course.plan), folder.checkpoints, course.model.device)
    warnings: list[str] = []
    if arguments.process_index == 0 and folder.prepare(checkpoint[1] if checkpoint else None) and resume:
        warnings.append("the folder held a run on other rows, model or settings; training started from the beginning")
    scorer = ReplyScorer(policy.model, policy.compute_dtype)
    groups = [row.group for row in course.rows]
    device = arguments.device
    policy.model.to(device)
    with policy.as_reference():
        layout, reason = choose_layout(policy.model, scorer, groups, device)
    rows, computed = _with_reference(course, policy, folder, scorer, layout=layout, arguments=arguments, on_event=on_event)
    trainer = StepTrainer(
        policy.model,
        arguments,
        rows=rows,
        anchors=course.anchors,
        plan=course.plan,
        epochs=settings.epochs,
        scorer=scorer,
        objective=course.objective,
        layout=layout,
        tokens_per_forward=settings.tokens_per_forward,
        on_metrics=folder.add_metrics,
        on_event=on_event,
    )
    cast("Any", trainer).train(resume_from_checkpoint=str(checkpoint[0]) if checkpoint else None)
    scorer.close()
    refuse_broken_weights(policy.model, len(course.plan))
    lines = folder.metrics()
    if isinstance(settings, DPOSettings):
        warnings += _warnings(lines, len(course.plan) // settings.epochs)
        if reason:
            warnings.append(f"prompts were computed once for each reply: {reason}")
    result = TrainingResult(
        fingerprint=folder.fingerprint,
        folder=folder.path,
        adapter=folder.adapter if policy.has_adapter and course.model.spec.adapter is None else None,
        steps=len(course.plan),
        resumed_from_step=checkpoint[1] if checkpoint else 0,
        trained_rows=len(course.rows),
        anchors=len(course.anchors),
        dropped=tuple(course.dropped),
        layout=layout,
        dtype=str(course.model.dtype).removeprefix("torch."),
        reference_computed=computed,
        first_metrics=lines[0] if lines else {},
        last_metrics=lines[-1] if lines else {},
        warnings=tuple(warnings),
        seconds=round(time.monotonic() - started, 3),
    )
    if trainer.is_world_process_zero():
        save_policy(policy, folder.path, folder.adapter, merge=settings.merge)
        folder.finish(result)
    trainer.accelerator.wait_for_everyone()
    return result


def _with_reference(
    course: Course,
    policy: Policy,
    folder: TrainingFolder,
    scorer: ReplyScorer,
    *,
    layout: Layout,
    arguments: Any,
    on_event: OnEvent | None,
) -> tuple[list[TrainingRow], int]:
    """The rows, pairs among them with their reference log-probabilities, and how many of these had to be computed."""
    pairs = [row for row in course.rows if isinstance(row, PairRow)]
    if not pairs or not isinstance(course.settings, DPOSettings):
        return list(course.rows), 0
    settings = course.settings
    cache_folder = folder.path / "reference" if settings.reference_cache is None else Path(settings.reference_cache)
    cache = ReferenceCache(cache_folder, f"{course.model.fingerprint} {layout}")
    with policy.as_reference():
        found, computed = reference_logps(
            policy.model,
            scorer,
            [row.group for row in pairs],
            cache,
            layout=layout,
            tokens_per_forward=settings.tokens_per_forward,
            device=arguments.device,
            rank=arguments.process_index,
            world=arguments.world_size,
            gather=_gather if arguments.world_size > 1 else None,
            on_event=on_event if arguments.process_index == 0 else None,
        )
    return [dataclasses.replace(row, reference=logps) for row, logps in zip(pairs, found, strict=True)], computed


def _gather(found: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    return import_module("accelerate.utils").gather_object(found)


def _warnings(lines: Sequence[dict[str, float]], steps_per_epoch: int) -> list[str]:
    """What the last epoch's metrics say a reader should know."""
    last = [line for line in lines if line["step"] > lines[-1]["step"] - steps_per_epoch]

    def mean(name: str) -> float:
        values = [line[name] for line in last if name in line]
        return sum(values) / len(values) if values else 0.0

    found: list[str] = []
    if (drift := mean("drift/chosen")) < -LOUD_DRIFT_NATS:
        found.append(
            f"chosen replies lost {-drift:.2f} nats a token against the reference: raise nll_weight or beta, "
            "or lower learning_rate"
        )
    if (margin := mean("rewards/margins")) > SATURATED_MARGIN:
        found.append(
            f"reward margins are saturated (mean {margin:.1f}): the pairs teach nothing more; fewer epochs, a lower "
            "learning_rate or a larger beta keep the model nearer to what it was"
        )
    if mean("rewards/accuracies") < 0.5:
        found.append("in the last epoch the policy preferred the chosen reply in fewer than half of the pairs")
    return found


@contextlib.contextmanager
def _flushed_denormals() -> Generator[None]:
    """Saturated pairs have denormal gradients, which CPUs compute a hundred times slower: they count as zero in here."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class _memory_errors:  # noqa: N801 - reads as the context it is
    """Turns running out of accelerator memory into a TrainingError."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise TrainingError(
                "the accelerator's memory ran out", "halve tokens_per_forward or set gradient_checkpointing; it resumes"
            ) from error
