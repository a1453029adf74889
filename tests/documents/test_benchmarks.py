"""The benchmarks run, and measure what they say."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from checkpoints import make_checkpoint

from cai.lab.suite import LabSuite
from cai.models.loading import load_model
from cai.models.spec import ModelSpec

BENCHMARKS = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("files", [1, 1000])
def test_a_thousand_principles_are_checked_in_a_second(files: int) -> None:
    """Processor time, the best of two, imports apart. The bound leaves room for a machine half as fast."""
    timing = load("check_speed").measure(1000, files=files, times=2)
    assert timing.check < 2.0
    assert timing.load < 2.0


def test_fresh_prompts_are_none_of_those_the_demo_was_chosen_by() -> None:
    benchmark = load("fresh_prompts")
    trials = benchmark.fresh_trials(40, 7)
    seen = {trial.item.messages for trial in LabSuite.draw(benchmark.DEMO_PROMPTS, seed=benchmark.DEMO_SEED).trials}
    assert not seen & {trial.item.messages for trial in trials}
    assert len({trial.item.messages for trial in trials}) == len(trials) == 7 * 40


def test_memory_and_cost_of_a_row_are_measured_on_whole_runs(tmp_path: Path) -> None:
    scale = load("scale")
    few = scale.measure(tmp_path / "scale", 300)
    assert few.rows == 300
    assert 20e6 < few.peak_bytes < 500e6
    overhead = load("overhead")
    alone_s, with_all_s = overhead.beside(tmp_path / "scale", 60, 1000.0)
    assert 0.04 < alone_s < with_all_s + 0.05
    took = overhead.measure(tmp_path, 100)
    assert 0 < took["engine"].cpu_us < took["loop"].cpu_us < took["run"].cpu_us


def test_fresh_prompts_compare_two_models_on_every_trial(tmp_path: Path) -> None:
    benchmark = load("fresh_prompts")
    before, after = (ModelSpec(name=str(make_checkpoint(tmp_path / str(seed), seed=seed)), device="cpu") for seed in (0, 1))
    result = benchmark.measure(before, after, benchmark.fresh_trials(2, 7), seeds=2, seed=7)
    assert sum(row.answers for row in result.rows) + result.failures == 7 * 2 * 3


def test_every_way_of_running_the_chain_writes_the_same_texts() -> None:
    """Random weights, so nearly every token is a near-tie somewhere; all ways are greedy in float32."""
    benchmark = load("cpu_chain")
    found = benchmark.measure(
        benchmark.small_llama(layers=2, width=64), benchmark.Workload.drawn(3, 4096), 1, [2], alone=2, wall=False
    )
    assert {name.split()[0] for name in found} == {"one", "static", "continuous", "slots"}
    assert all(row["same_texts"] == 1.0 for row in found.values()), found


def test_the_chain_benchmark_runs_on_a_cpu_and_both_schedules_write_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = load("gpu_chain")
    size = replace(benchmark.TINY, conversations=5, batches=(4,), batched=4, twice=4)
    result = benchmark.measure(size, torch.device("cpu"))
    work = benchmark.Workload.draw(size, 5)
    ours, plain, static = result["ways"]
    assert ours["statistics"]["completion_tokens"] == plain["statistics"]["completion_tokens"] == round(5 * work.tokens_each)
    assert ours["statistics"]["reused_tokens"] > 0 == plain["statistics"]["reused_tokens"]
    assert min(each["conversations_per_s"] for each in (ours, plain, static)) > 0
    assert result["two_schedules"]["answers"] == 12
    assert result["two_schedules"]["identical_answers"] == 1
    json.dumps(result)
    assert "nothing shared" in capsys.readouterr().err


def test_the_bandwidth_limit_counts_weights_once_and_keys_of_every_row() -> None:
    benchmark = load("gpu_chain")
    bound = benchmark.Limit(10_000, 10, rows_together=4, context_tokens=250, bandwidth_bytes_per_s=200_000)
    assert bound.bytes_per_step == 20_000
    assert bound.tokens_per_s == 40


def test_texts_in_float32_are_the_same_in_any_batch_and_the_difference_that_there_is_is_found(tmp_path: Path) -> None:
    loaded = load_model(ModelSpec(name=str(make_checkpoint(tmp_path / "model")), dtype="float32", device="cpu"))
    found = load("same_texts").measure(loaded, (2, 8), answers=8, max_tokens=12)
    assert found.same == found.answers == 8
    assert 0.0 < found.largest_nats < 1e-4
