"""What a training would do: rows, steps, tokens, memory, time, and its first batch; before any weight is read.

With a trial, the weights are read after all, and one pass is made and timed. Nothing is written in either case.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import psutil
import torch

from cai.training.attention import paths_for
from cai.training.course import Course, flushed_denormals
from cai.training.held_out import units
from cai.training.loss_table import LOSSES
from cai.training.memory import TrainingMemory, training_memory
from cai.training.objectives import StepSize
from cai.training.packing import Layout
from cai.training.policy import load_policy
from cai.training.probing import choose_path
from cai.training.reward_scorer import marked_at_the_end
from cai.training.rows import PreferenceRow, TrainingRow
from cai.training.settings import DPOSettings, RewardSettings, TrainingSettings
from cai.training.shown_batch import ShownRow, shown_row
from cai.training.skeleton import Skeleton
from cai.training.workload import REACHED, Load, epoch_load, load_of, matrix_rate, reference_load, step_passes


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, foretold.

    Args:
        train: All optimizer steps, of all epochs.
        reference: The reference's log-probabilities, if none of them is known yet.
        flops_per_second: That a step is taken to reach.
        basis: What this was found from: one matrix product, or one pass of the real model.
    """

    train: float
    reference: float
    flops_per_second: float
    basis: str


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would be.

    Args:
        model: As it was asked for.
        trained_rows: Pairs, or supervised rows.
        prompts: Rows after pairs on one prompt were put together.
        anchors: Kept drafts.
        held_out: Pairs (with their anchors) or rows that would not be trained on.
        dropped: Rows left out, by reason.
        dropped_rows: (uid, reason, detail) of each.
        steps: Optimizer steps.
        epochs: Passes over the rows.
        learning_rate: The peak.
        parameters: Of the model.
        trainable: Of these or of the adapter, those that are trained.
        load: Of one epoch.
        path: The attention path that is expected, or was found in a trial.
        path_reason: Why rows would be padded; "" where they would not.
        tried: Whether the model was loaded and a pass made.
        memory: See there.
        free_bytes: Of the machine's memory now.
        times: See there.
        first_batch: The rows of the first step's first pass.
    """

    model: str
    trained_rows: int
    prompts: int
    anchors: int
    held_out: int
    dropped: dict[str, int]
    dropped_rows: tuple[tuple[str, str, str], ...]
    steps: int
    epochs: int
    learning_rate: float
    parameters: int
    trainable: int
    load: Load
    path: str
    path_reason: str
    tried: bool
    memory: TrainingMemory
    free_bytes: int
    times: Times
    first_batch: tuple[ShownRow, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        largest = {"process_bytes": self.memory.process_bytes, "device_bytes": self.memory.device_bytes}
        return asdict(self) | {"memory": asdict(self.memory) | largest}


def dry_run(course: Course, *, trial: bool = False) -> DryRun:
    """Find out what training would do.

    Args:
        course: The course.
        trial: Load the model, choose its path, and time one pass forwards and backwards; nothing is saved.

    Raises:
        TrainingError: If the model's modules cannot be adapted as asked.
        ModelError: In a trial, if the model cannot be loaded.
    """
    settings = course.settings
    skeleton = Skeleton(course.model, settings)
    device = course.model.device
    found = _Trial(course) if trial else None
    path, reason = (found.path, found.reason) if found else _expected_path(skeleton, device)
    layout: Layout = "padded" if path == "padded" else "tree"
    load = epoch_load(course, layout)
    needs_reference = isinstance(settings, DPOSettings) and LOSSES[settings.loss].needs_reference
    recomputed = settings.gradient_checkpointing
    if found:
        rate, basis = found.load.training_flops(skeleton, recomputed=recomputed) / found.seconds, "one pass of the model, timed"
    else:
        share = REACHED.get(device.type, REACHED["cuda"])
        rate = matrix_rate(skeleton, device, load.largest) * share
        basis = f"{share:.0%} of the rate of one matrix product of the model's shape"
    flops = settings.epochs * load.training_flops(skeleton, recomputed=recomputed)
    of_reference = reference_load(course, layout) if needs_reference else None
    counts: dict[str, int] = {}
    for row in course.dropped:
        counts[row.reason] = counts.get(row.reason, 0) + 1
    return DryRun(
        model=str(course.model.spec),
        trained_rows=units(course.rows),
        prompts=len({row.group.prompt_ids for row in course.rows}),
        anchors=len(course.anchors),
        held_out=units(course.held_out),
        dropped=counts,
        dropped_rows=tuple((row.uid, row.reason, row.detail) for row in course.dropped),
        steps=len(course.plan),
        epochs=settings.epochs,
        learning_rate=settings.peak_learning_rate,
        parameters=skeleton.parameters,
        trainable=skeleton.trainable,
        load=load,
        path=path,
        path_reason=reason,
        tried=found is not None,
        memory=training_memory(
            skeleton,
            settings,
            device,
            tokens=load.largest,
            slots=load.largest_slots,
            passes=settings.epochs * load.passes + (of_reference.passes if of_reference else 0),
        ),
        free_bytes=psutil.virtual_memory().available,
        times=Times(flops / rate, of_reference.forward_flops(skeleton) / rate if of_reference else 0.0, rate, basis),
        first_batch=tuple(shown_row(_as_read(row, settings), course.model.tokenizer) for row in _first_pass(course, layout)),
    )


def _first_pass(course: Course, layout: Layout) -> list[TrainingRow]:
    return step_passes(course, course.plan[0], layout)[0]


def _as_read(row: TrainingRow, settings: TrainingSettings) -> TrainingRow:
    """For showing: rewards are read at the last token of each reply, which is marked as what is learnt."""
    if not isinstance(settings, RewardSettings) or not isinstance(row, PreferenceRow):
        return row
    return replace(row, group=marked_at_the_end(row.group))


def _expected_path(skeleton: Skeleton, device: torch.device) -> tuple[str, str]:
    """What the loaded model will probably take; only a trial on it can say."""
    paths = paths_for(skeleton.inner, device)
    return (paths[0], "") if paths else ("padded", "the model has layers or attention that take no mask of trees")


class _Trial:
    """The largest pass of the first step, made forwards and backwards on the loaded model.

    Preference rows are given a reference of their own log-probabilities: what a pass costs does not hang on it.
    """

    def __init__(self, course: Course) -> None:
        policy = load_policy(course.model, course.settings)
        scorer = course.scorer(policy)
        device = course.model.device
        policy.model.to(device)
        with policy.as_reference():
            self.reason = choose_path(policy.model, scorer, [row.group for row in course.rows], device)
        self.path = scorer.path
        rows = _first_pass(course, scorer.layout)
        batch = scorer.pack([row.group for row in rows], device)
        self.load = load_of([[row.group for row in rows]], scorer.layout)
        size = StepSize.of(rows)
        policy.model.train()
        self.seconds = 0.0
        with flushed_denormals(), scorer.at_work():
            with torch.no_grad():
                values: list[float] = cast("Any", scorer.values(policy.model, batch)).tolist()
            known: list[TrainingRow] = [
                replace(row, reference=tuple(values[part.sequences])) if isinstance(row, PreferenceRow) else row
                for row, part in zip(rows, batch.parts, strict=True)
            ]

            def loss_of(groups: slice, logps_R: torch.Tensor) -> torch.Tensor:
                first = batch.parts[groups][0].sequences.start
                lengths = batch.sequence_lengths[first : first + len(logps_R)]
                return course.objective(known[groups], logps_R, lengths, size)[0]

            for _ in range(2):  # the first is a warm-up; gradients add up, and are never used
                started = time.perf_counter()
                cast("Any", scorer.loss(policy.model, batch, loss_of)).backward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                self.seconds = time.perf_counter() - started
