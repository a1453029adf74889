"""The examples for clusters, run on this machine: Slurm's and torchrun's variables are set as they set them; Ray is real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_runs import write_scripted_run
from whole_runs import REPOSITORY, cai, environment

from cai.store import RunFolder

CLUSTER = REPOSITORY / "examples" / "cluster"


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, str]:
    """An environment in which `cai` is this checkout's."""
    script = tmp_path / "bin" / "cai"
    script.parent.mkdir()
    script.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m cai.cli "$@"\n')
    script.chmod(0o755)
    return environment() | {"PATH": f"{script.parent}:{os.environ['PATH']}"}


def execute(*command: object, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], env=env, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


def ledger(folder: Path) -> list[str]:
    with RunFolder.open(folder, read_only=True) as run:
        return [entry.model_dump_json() for entry in run.ledger()]


@pytest.mark.parametrize("name", sorted(path.name for path in CLUSTER.iterdir() if path.suffix in {".sh", ".sbatch"}))
def test_scripts_are_good_shell(name: str) -> None:
    done = subprocess.run(["bash", "-n", str(CLUSTER / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    usage = subprocess.run(["bash", str(CLUSTER / name)], capture_output=True, text=True, check=False)
    assert usage.returncode != 0
    assert "usage: " in usage.stderr


@pytest.mark.slow
def test_a_slurm_array_and_its_merge_end_as_the_run_of_all_rows(tmp_path: Path, commands: dict[str, str]) -> None:
    config = write_scripted_run(tmp_path)
    for task in (1, 2):
        variables = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"}
        done = execute("bash", CLUSTER / "slurm_shards.sbatch", config, env=commands | variables, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = execute("bash", CLUSTER / "slurm_merge.sbatch", config, tmp_path / "run", env=commands, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cai("run", config, "--set", f"run={tmp_path / 'straight'}")
    assert ledger(tmp_path / "run") == ledger(tmp_path / "straight")
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_torchrun_starts_one_shard_for_each_process(tmp_path: Path, commands: dict[str, str]) -> None:
    config = write_scripted_run(tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = execute(*torchrun, CLUSTER / "torchrun_shard.sh", config, env=commands, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = cai("merge", tmp_path / "run", *(tmp_path / "run").glob("shard-*-of-2"))
    assert done.returncode == 0, done.stderr
    assert len(ledger(tmp_path / "run")) == 60


@pytest.mark.slow
def test_ray_maps_the_shards_over_its_actors_and_they_are_merged(tmp_path: Path, commands: dict[str, str]) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    config = write_scripted_run(tmp_path)
    flags = ("--shards", 3, "--actors", 2, "--gpus-per-actor", 0)
    done = execute(sys.executable, CLUSTER / "ray_generate.py", config, *flags, env=commands, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "60 input rows from 3 shards" in done.stdout
    cai("label", config, "--set", f"run={tmp_path / 'straight'}")
    assert ledger(tmp_path / "run") == ledger(tmp_path / "straight")
