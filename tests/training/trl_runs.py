"""What the comparisons with TRL's trainers share: their settings made of ours, and what is looked at afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cai.training.course import Course
from cai.training.rows import PreferenceRow
from cai.training.settings import TrainingSettings

Theirs: TypeAlias = tuple[list[dict[str, float]], dict[str, torch.Tensor]]
"""TRL's log lines and trained weights."""


def pairs_in_order(course: Course) -> list[str]:
    """Uids of the pairs in the order of the course's steps, all epochs."""
    rows = [course.rows[at] for step in course.plan for at in step.rows]
    return [pair.uid for row in rows if isinstance(row, PreferenceRow) for pair in row.pairs]


def their_arguments(settings: TrainingSettings, *, batch: int, steps: int, folder: Path) -> dict[str, Any]:
    """Arguments of TRL's configurations that make so many steps, of rows in the order given, as `settings` would."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch,
        "num_train_epochs": 1,
        "learning_rate": settings.peak_learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": round(settings.warmup_share * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch",
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "report_to": "none",
    }


def train(trainer: Any) -> Theirs:
    """Let one of TRL's trainers train."""
    trainer.train()
    weights = {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}
    return [line for line in trainer.state.log_history if "loss" in line], weights


def assert_moved_alike(
    before: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], within: float
) -> None:
    """Every weight of ours has moved, and is no further from theirs than this share of its way."""
    for name, weight in ours.items():
        moved = (weight - before[name]).norm()
        assert moved > 0, name
        assert (weight - theirs[name]).norm() <= within * moved, name
