"""Numbers that are none and disks that are full: no broken model is saved, and the run goes on afterwards."""

from __future__ import annotations

import json
import math
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import DPO, make_pairs, metrics_of, spec_of

from cai.errors import TrainingError
from cai.training.checkpoint_files import refuse_broken_weights
from cai.training.course import memory_errors
from cai.training.dpo import train_dpo
from cai.training.results import TrainingResult


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_rows(llama: Path, tmp_path: Path) -> None:
    settings = DPO.model_copy(update={"reference_cache": str(tmp_path / "cache"), "batch_pairs": 2})
    train_dpo(spec_of(llama), make_pairs(2), [], settings, tmp_path / "first")
    (cache,) = (tmp_path / "cache").glob("*.jsonl")
    rows = [json.loads(line) for line in cache.read_text().splitlines()]
    cache.write_text("".join(json.dumps([key, sign * 1e308]) + "\n" for (key, _), sign in zip(rows, (1, -1) * 2, strict=True)))
    with pytest.raises(TrainingError, match=r"step 1: the loss is (inf|nan); rows in it: pair-0, pair-1"):
        train_dpo(spec_of(llama), make_pairs(2), [], settings, tmp_path / "out")
    assert not (tmp_path / "out" / "training.json").exists()


def test_weights_that_are_no_numbers_are_never_saved() -> None:
    model = torch.nn.Linear(2, 2)
    refuse_broken_weights(model, 7)
    model.weight.data[1, 0] = math.inf
    with pytest.raises(TrainingError, match="step 7: weight is no longer finite"):
        refuse_broken_weights(model, 7)
    model.weight.requires_grad_(False)
    refuse_broken_weights(model, 7)


def test_a_damaged_reference_is_refused_before_training(llama: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = math.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="not finite"):
        train_dpo(spec_of(model), make_pairs(8), [], DPO, tmp_path / "out")


def test_memory_that_runs_out_on_a_cpu_is_told_with_what_to_lower() -> None:
    """There it is a plain RuntimeError, which came out as a traceback; another one is no matter of memory."""
    with pytest.raises(TrainingError, match="machine's memory ran out") as caught, memory_errors():
        torch.empty(2**60, dtype=torch.uint8)
    assert "tokens_per_forward" in caught.value.hint
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))


@pytest.fixture(scope="module")
def undisturbed(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, TrainingResult]:
    """Runs with and without an adapter on a disk with room."""
    every_step = DPO.model_copy(update={"save_every_steps": 1})
    folder = tmp_path_factory.mktemp("undisturbed")
    return {
        adapted: train_dpo(
            spec_of(llama),
            make_pairs(8),
            [],
            every_step.model_copy(update={} if adapted else {"lora": None}),
            folder / str(adapted),
        )
        for adapted in (True, False)
    }


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of a file fail, as on a disk that is full."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.parametrize(
    ("limit", "adapted"),
    [(200, True), (2_000, True), (20_000, True), (100_000, True), (100_000, False), (500_000, False)],
    ids=["manifest", "metrics", "checkpoint", "merged model", "weights", "optimizer"],
)
def test_a_full_disk_is_told_at_every_stage_and_the_run_goes_on_afterwards(
    limit: int, adapted: bool, llama: Path, undisturbed: dict[bool, TrainingResult], tmp_path: Path
) -> None:
    """safetensors and torch do not raise OSError when they cannot write."""
    settings = DPO.model_copy(update={"save_every_steps": 1, "lora": DPO.lora if adapted else None})
    with pytest.raises(TrainingError) as caught, largest_file(limit):
        train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "out")
    assert "run again" in caught.value.hint
    assert "large" in caught.value.problem or "could not be written" in caught.value.problem
    assert not (tmp_path / "out" / "training.json").exists()
    result = train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "out")
    straight = undisturbed[adapted]
    assert metrics_of(result.folder) == metrics_of(straight.folder)
    assert (result.folder / "model.safetensors").read_bytes() == (straight.folder / "model.safetensors").read_bytes()
