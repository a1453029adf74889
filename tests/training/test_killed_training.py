"""A training process killed with SIGKILL at random moments, again and again, ends with the weights of one left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import killed_training
import pytest
from checkpoints import make_checkpoint

SCRIPT = Path(killed_training.__file__)
REPOSITORY = SCRIPT.parents[2]
KILLS = 6


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the result, which tells how long it took."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in {"training.json", ".lock"})
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "kind", ["lora", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("full", "early", "reward"))]
)
def test_killed_and_resumed_training_is_bit_identical(kind: str, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    straight = killed_training.train(model, tmp_path / "straight", kind)
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{SCRIPT.parent}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(model), str(tmp_path / "killed"), str(KILLS), kind]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == 0, killed.stderr
    assert "killed" in killed.stdout, killed.stdout
    resumed = killed_training.train(model, tmp_path / "killed", kind)
    assert resumed.resumed_from_step > 0, f"no kill fell into the work:\n{killed.stdout}"
    assert contents(resumed.folder) == contents(straight.folder)
    assert (resumed.last_metrics, resumed.warnings) == (straight.last_metrics, straight.warnings)
    assert (resumed.steps, resumed.kept_step) == (straight.steps, straight.kept_step)
    assert (straight.kept_step < straight.steps < straight.planned_steps) == (kind == "early")
