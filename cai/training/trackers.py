"""Experiment trackers for training alone: refused before training where they cannot work, and where TensorBoard writes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai.errors import TrainingError
from cai.training import processes
from cai.training.tracker_packages import PACKAGES, missing_packages
from constitution.nearest import nearest


def refuse_missing_trackers(names: Sequence[str]) -> None:
    """Raise TrainingError for trackers that are not known, or whose package is not installed."""
    unknown = [name for name in names if name not in PACKAGES]
    if unknown:
        meant = nearest(unknown[0], PACKAGES)
        raise TrainingError(
            f"report_to: no tracker is named {', '.join(unknown)}",
            f"use {meant}" if meant else f"there are {', '.join(sorted(PACKAGES))}",
        )
    if missing := missing_packages(names):
        raise TrainingError(f"report_to: {', '.join(missing)} is not installed", f"pip install {' '.join(missing)}")


def tensorboard(folder: Path) -> list[Any]:
    """The callback that writes into `folder`; the Trainer's own would write among the checkpoints, which are cleared away."""
    if not processes.is_first():
        return []
    writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
    return [importlib.import_module("transformers.integrations").TensorBoardCallback(writer)]
