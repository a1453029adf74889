"""Checkpoints of a training as files: which are whole, what may go, and what may not become one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from cai.errors import TrainingError
from cai.training import processes
from cai.training.sharding import broken_weight

COMPLETE = "complete"
"""Written into a checkpoint's folder last of all: without it the checkpoint is a torso that a kill has left."""
MAKE_ROOM = "make room or mend the folder's rights, then run again: it resumes"
"""What to do about files that cannot be written."""
RESUMABLE = 2
"""Checkpoints that training could go on from: the newest, and one before it."""


def whole_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Those that were written to their end, by step."""
    found = (mark.parent for mark in folder.glob(f"checkpoint-*/{COMPLETE}"))
    return sorted((int(path.name.rpartition("-")[2]), path) for path in found)


def drop_superseded(folder: Path, *, best_step: int | None, keep_weights: bool) -> None:
    """Leave the newest `RESUMABLE` whole checkpoints and that of the best step; of the others nothing, or their weights."""
    for step, checkpoint in whole_checkpoints(folder)[:-RESUMABLE]:
        if keep_weights:
            drop_optimizer(checkpoint)
        elif step != best_step:
            (checkpoint / COMPLETE).unlink()  # first: whoever is killed in here leaves a torso, and no whole one
            shutil.rmtree(checkpoint, ignore_errors=True)


def drop_optimizer(checkpoint: Path) -> None:
    """Leave the weights of a checkpoint, and nothing that only a resumed training reads: two thirds of it or more."""
    for pattern in ("optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth"):
        for file in checkpoint.glob(pattern):
            file.unlink()


def refuse_broken_weights(model: nn.Module | Any, step: int) -> None:
    """Raise TrainingError if a trained weight is not finite: such a checkpoint would only spread the damage.

    Of a sharded model each process looks at its own share, and all raise if one of them must.
    """
    name = next(iter(processes.gather([name] if (name := broken_weight(model)) else [])), None)
    if name is not None:
        raise TrainingError(
            f"step {step}: {name} is no longer finite", "lower learning_rate or max_grad_norm, or train in float32"
        )
