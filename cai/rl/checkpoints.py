"""What a killed run goes on from: trained weights and the optimizer's state, safetensors only.

All else (the order of prompts, sampling noise, the leash) follows from the settings, the step and the rows of metrics.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] - its paths are
from torch import Tensor, nn

from cai.rl.learner import Diverged, Learner
from cai.training.checkpoint_files import COMPLETE

STATE = "state.safetensors"


def place_of(checkpoints: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return checkpoints / f"checkpoint-{step}"


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps with a whole checkpoint, in order."""
    return sorted(int(mark.parent.name.rpartition("-")[2]) for mark in checkpoints.glob(f"checkpoint-*/{COMPLETE}"))


def save_checkpoint(learner: Learner, checkpoints: Path, step: int) -> None:
    """Durably, and marked as whole last of all.

    Raises:
        Diverged: If a weight is not finite: such a checkpoint would only spread the damage.
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in learner.trained.items():
        if not bool(torch.isfinite(weight).all()):
            raise Diverged(f"{name} is no longer finite")
        tensors[f"weight.{name}"] = weight.detach().cpu().contiguous()
        state: dict[str, Tensor] = learner.optimizer.state.get(weight, {})
        for key, value in state.items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    folder = place_of(checkpoints, step)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(tensors, folder / STATE)
    with (folder / STATE).open("rb") as file:
        os.fsync(file.fileno())
    (folder / COMPLETE).touch()


def load_weights(learner: Learner, checkpoints: Path, step: int) -> None:
    """The weights of a step into the policy; the optimizer stays as it is."""
    with _opened(checkpoints, step) as file:
        _fill(learner.trained, file)


def load_checkpoint(learner: Learner, checkpoints: Path, step: int) -> None:
    """The weights of a step and the optimizer's state after it."""
    with _opened(checkpoints, step) as opened:
        _fill(learner.trained, opened)
        names = set(opened.keys())
        for name, weight in learner.trained.items():
            state: dict[str, Tensor] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                stored = f"optimizer.{key}.{name}"
                if stored in names:
                    # AdamW keeps its count of steps on the CPU.
                    state[key] = opened.get_tensor(stored) if key == "step" else opened.get_tensor(stored).to(weight.device)
            if state:
                learner.optimizer.state[weight] = state


def clear_others(checkpoints: Path, keep: set[int]) -> None:
    """Remove the checkpoints of other steps."""
    for step in saved_steps(checkpoints):
        if step not in keep:
            shutil.rmtree(place_of(checkpoints, step), ignore_errors=True)


def _opened(checkpoints: Path, step: int) -> Any:
    return cast("Any", safe_open)(place_of(checkpoints, step) / STATE, framework="pt")


@torch.no_grad()
def _fill(trained: dict[str, nn.Parameter], file: Any) -> None:
    for name, weight in trained.items():
        weight.copy_(file.get_tensor(f"weight.{name}"))
