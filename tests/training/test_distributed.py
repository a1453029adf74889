"""Several processes train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed_training
import pytest
from checkpoints import make_checkpoint
from safetensors.torch import load_file
from training_runs import metrics_of

pytestmark = pytest.mark.slow

SCRIPT = Path(distributed_training.__file__)
REPOSITORY = SCRIPT.parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def in_processes(world: int, kind: str, model: Path, folder: Path) -> list[dict[str, Any]]:
    """What each process found."""
    folder.mkdir()
    paths = f"{REPOSITORY}:{SCRIPT.parent}:{SCRIPT.parents[1]}"
    environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(world), kind, str(model), str(folder)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def references(folder: Path) -> list[str]:
    (cache,) = (folder / "reference").glob("*.jsonl")
    return sorted(cache.read_text().splitlines())


def assert_same_weights(start: Path, one: Path, two: Path) -> None:
    """A head that `start` lacks (a reward model's, or one that was tied) is left out of how far weights have moved."""
    before, mine, theirs = (load_file(folder / "model.safetensors") for folder in (start, one, two))
    assert mine.keys() == theirs.keys()
    assert mine.keys() - before.keys() <= {"score.weight", "lm_head.weight"}
    moved = sum(float((mine[key] - before[key]).square().sum()) for key in before.keys() & mine.keys()) ** 0.5
    apart = sum(float((mine[key] - theirs[key]).square().sum()) for key in mine) ** 0.5
    assert apart < 0.002 * moved, (one.name, apart / moved)
    assert (one / "adapter").exists() == (two / "adapter").exists()


def test_two_processes_train_as_one(model: Path, tmp_path: Path) -> None:
    """With unequal shares of the rows, with an adapter and without, on pairs and on chains that are larger than a pass."""
    first, second = in_processes(2, "train", model, tmp_path / "two")
    alone = distributed_training.train(model, tmp_path / "one", distributed_training.RUNS)
    for name in distributed_training.RUNS:
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        assert first[name] == second[name], "forward passes are equal in number, and all know the same result"
        assert first[name]["passes"] < alone[name]["passes"] or name == "single"
        assert references(one) == references(two), "bit for bit: passes are the same, whoever makes them"
        assert len(metrics_of(one)) == len(metrics_of(two)) > 0
        for line, other in zip(metrics_of(one), metrics_of(two), strict=True):
            assert line == pytest.approx(other, rel=2e-4, abs=2e-5)
        assert_same_weights(model, one, two)


def test_two_processes_train_a_reward_model_as_one(model: Path, tmp_path: Path) -> None:
    """Two heads with samples of their own, with an adapter and without; what held-out pairs say is measured once, for all."""
    first, second = in_processes(2, "rewards", model, tmp_path / "two")
    alone = distributed_training.rewards(model, tmp_path / "one")
    assert first.keys() == alone.keys() == distributed_training.REWARDS.keys()
    for name, found in first.items():
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        assert found == second[name]
        assert found["passes"] < alone[name]["passes"]
        assert len(metrics_of(one)) == len(metrics_of(two)) > 0
        for line, other in zip(metrics_of(one), metrics_of(two), strict=True):
            assert line == pytest.approx(other, rel=2e-4, abs=2e-5)
        assert_same_weights(model, one, two)
    quality, theirs = alone["reward"]["quality"], first["reward"]["quality"]
    assert quality["pairs"] == theirs["pairs"] == first["reward"]["result"]["held_out"] > 0
    assert quality["overall"]["mean_margin"] == pytest.approx(theirs["overall"]["mean_margin"], abs=1e-4)


def test_a_sharded_reward_model_is_trained_as_a_whole_one(model: Path, tmp_path: Path) -> None:
    """Story: with an adapter, its head was trained in the first step alone. The outermost unit of FSDP2 stays whole after a
    pass without gradients, peft switched gradients on in the whole weights, and the shares never heard of it.
    """
    first, second = in_processes(2, "shard-rewards", model, tmp_path / "two")
    alone = distributed_training.rewards(model, tmp_path / "one")
    assert first.keys() == alone.keys()
    for name, found in first.items():
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        assert found == second[name]
        assert found["path"] == "blocks"
        assert found["passes"] < alone[name]["passes"]
        for line, other in zip(metrics_of(one), found["lines"], strict=True):
            assert line == pytest.approx(other, rel=2e-4, abs=2e-5)
        assert_same_weights(model, one, two)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_sharded_weights_are_trained_as_whole_ones(tied: bool, tmp_path: Path) -> None:
    """The reference pass, training steps of unequal shares, the check for broken weights and the saving, under FSDP2."""
    model = make_checkpoint(tmp_path / "model", tie_word_embeddings=tied)
    first, second = in_processes(2, "shard", model, tmp_path / "two")
    alone = {name: distributed_training.train(model, tmp_path / "one", [name]) for name in ("full", "lora", "adapted head")}
    assert len(first) == 5
    for sharded, found in first.items():
        name = sharded.partition("-")[0]
        one, two = tmp_path / "one" / name, tmp_path / "two" / sharded
        assert found == second[sharded]
        assert found["path"] == "blocks"
        assert found["plain_head"] == (name != "adapted head"), "no logits of every position"
        assert found["passes"] < alone[name][name]["passes"]
        assert references(one) == references(two)
        for line, other in zip(metrics_of(one), found["lines"], strict=True):
            assert line == pytest.approx(other, rel=2e-4, abs=2e-5)
        assert_same_weights(model, one, two)
