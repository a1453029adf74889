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


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_killed_and_resumed_training_is_bit_identical(kind: str, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    lora = kind == "lora"
    straight = killed_training.train(model, tmp_path / "straight", lora=lora)
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{SCRIPT.parent}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(model), str(tmp_path / "killed"), str(KILLS), kind]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == 0, killed.stderr
    assert "killed" in killed.stdout, killed.stdout
    resumed = killed_training.train(model, tmp_path / "killed", lora=lora)
    assert resumed.resumed_from_step > 0, f"no kill fell into the work:\n{killed.stdout}"
    assert contents(resumed.folder) == contents(straight.folder)
    assert (resumed.last_metrics, resumed.warnings) == (straight.last_metrics, straight.warnings)
