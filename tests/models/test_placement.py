"""Where weights go: one device, all of them, or split over processes; what does not go together is said before loading."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from checkpoints import make_checkpoint

from cai.engines.base import Generation, GenerationRequest, SamplingParams
from cai.engines.local import LocalEngine
from cai.errors import ModelError
from cai.models.checking import check_model, check_trainable
from cai.models.loading import load_model, open_model
from cai.models.placement import choose_device, devices_of
from cai.models.spec import ModelSpec
from constitution.messages import user

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPTS = ("Hi", "What is the capital of France, and why is the moon made of cheese?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("placement") / "model", "llama")


def spec(folder: Path, **settings: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": str(folder), "dtype": "float32"} | settings)


def texts(model: ModelSpec) -> list[str]:
    params = SamplingParams(temperature=0.8, max_tokens=64)
    requests = [GenerationRequest((user(text),), params, f"0/{row}/0/draft/0") for row, text in enumerate(PROMPTS)]
    answers = dict(LocalEngine(load_model(model)).generate(requests))
    return [cast("Generation", answers[row]).text for row in range(len(requests))]


def test_spread_over_the_devices_there_are_it_writes_the_same(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="cai.models")
    devices = {"device": "auto"} if not torch.cuda.is_available() else {"device": "cpu"}
    assert texts(spec(folder, placement="auto", **devices)) == texts(spec(folder, device="cpu"))
    assert caplog.messages == [f"{folder}: 107k parameters, float32, cpu, 427 kB of weights."] * 2


def test_where_it_runs_does_not_change_the_fingerprint(folder: Path) -> None:
    assert open_model(spec(folder, placement="auto")).fingerprint == open_model(spec(folder)).fingerprint


def test_weights_that_are_spread_are_named_device_by_device() -> None:
    """As accelerate notes them: GPUs by number."""
    model = torch.nn.Linear(2, 2)
    assert devices_of(model) == ["cpu"]
    cast("Any", model).hf_device_map = {"embed": 0, "layers.0": 0, "layers.1": 1, "layers.2": "cpu", "head": 0}
    assert devices_of(model) == ["cuda:0", "cuda:1", "cpu"]


@pytest.mark.parametrize(
    ("settings", "environment", "words"),
    [
        ({"placement": "auto", "device": "cuda:1"}, {}, "device cuda:1: placement auto chooses the devices itself"),
        ({"placement": "tensor_parallel"}, {}, "this is one process"),
        ({"placement": "tensor_parallel", "adapter": "ADAPTER"}, {"WORLD_SIZE": "2"}, "adapter: placement tensor_parallel"),
        ({"placement": "auto"}, {"WORLD_SIZE": "2"}, "2 processes were started, and each would take all devices"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    folder: Path,
    tmp_path: Path,
    settings: dict[str, str],
    environment: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "adapter" in settings:
        settings = settings | {"adapter": str(tmp_path)}
    problems = [each for each in check_model(spec(folder, **settings)) if str(tmp_path) not in str(each)]
    assert len(problems) == 1
    assert words in problems[0].problem
    assert problems[0].hint


def test_a_policy_spread_over_devices_is_refused_for_training(folder: Path) -> None:
    (problem,) = check_trainable(spec(folder, placement="auto"))
    assert "training takes one device" in problem.problem


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_beyond_those_there_are_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="counted from 0"):
        choose_device(spec(folder, device="cuda:99"))


@pytest.mark.slow
def test_split_over_two_processes_it_writes_what_one_process_writes(folder: Path, tmp_path: Path) -> None:
    """The shipped example, on two CPU processes over gloo: half the split weights in each, the same texts."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(REPOSITORY / "examples" / "tensor_parallel.py"), str(folder), str(prompts), "--dtype", "float32"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    replies = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [reply["reply"] for reply in replies] == texts(spec(folder, device="cpu"))
    assert "107k parameters, float32, cpu, process 0 of 2, 214 kB of weights" in ran.stderr
