"""`cai run` in a real process, killed with SIGKILL again and again: the outcome is the same to the byte."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from whole_runs import cai, environment, output_files, write_config, write_prompts

KILLS = 6


@pytest.mark.slow
def test_killed_at_random_moments_the_run_ends_as_if_never_interrupted(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    prompts = write_prompts(tmp_path / "prompts.jsonl", 60)
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    straight = write_config(tmp_path / "straight", model, prompts)
    killed = write_config(tmp_path / "killed", model, prompts)
    began = time.monotonic()
    done = cai("run", straight)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr

    chance = random.Random(5)
    kills = 0
    for attempt in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "cai.cli", "run", str(killed)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            # Later and later, so that generation, labels, training and evaluation are all hit.
            process.wait(seconds * (0.35 + 0.5 * (attempt + chance.random()) / KILLS))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= KILLS // 2
    done = cai("run", killed)
    assert done.returncode == 0, done.stderr
    assert output_files(tmp_path / "killed" / "run") == output_files(tmp_path / "straight" / "run")
