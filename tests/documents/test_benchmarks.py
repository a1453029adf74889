"""The benchmarks run, and measure what they say."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from checkpoints import CORPUS, make_checkpoint, make_tokenizer

from cai.lab.suite import LabSuite
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from constitution.loading import load_constitution

BENCHMARKS = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"


@pytest.fixture(autouse=True)
def parts_lie_beside_their_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


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
    other = result.model_copy(update={"rows": tuple(row.model_copy(update={"after": 0.25}) for row in result.rows)})
    low, high = sorted((result.rows[0].after, 0.25))
    lines = list(benchmark.spread([result, other]))
    assert len(lines) == 7 * 3
    assert f"→ {(low + high) / 2:.1%}  ({low:.1%} to {high:.1%}, 2 trainings)" in lines[0]


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


def test_every_way_of_scoring_a_pair_gives_the_same_log_probabilities() -> None:
    benchmark = load("shared_prefix_scoring")
    model = benchmark.made("sliding", num_hidden_layers=2, hidden_size=64, vocab_size=512, intermediate_size=64)
    with torch.inference_mode():
        one, three = benchmark.measure(model, [1, 3], prompts_at_once=2, rounds=1, batches=[2])
    assert (one["principles"], one["pairs"], three["principles"], three["pairs"]) == (1, 1, 3, 1)
    assert one["tokens"] == 1
    assert three["tokens"] == pytest.approx(3 * 660 / (600 + 3 * 60), rel=0.05)
    for found in (one, three):
        assert {name.split()[0] for name in found["ways"]} == {"separate", "cache", "ours"}
        assert max(way["largest_nats"] for way in found["ways"].values()) < 1e-4


def test_real_pairs_are_compared_under_the_shipped_principles(tmp_path: Path) -> None:
    benchmark = load("shared_prefix_scoring")
    same = "\n\nHuman: Is the moon of cheese?\n\nAssistant: "
    rows = [
        {"chosen": f"{same}No.", "rejected": f"{same}Yes."},
        {"chosen": "\n\nHuman: Other.\n\nAssistant: A.", "rejected": f"{same}B."},
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    principles = load_constitution([benchmark.PRINCIPLES]).principles[:3]
    requests = benchmark.comparisons(file, 2, principles, 500)
    assert len(requests) == 2 * 3, "the second row's dialogues differ before their last reply"
    make_tokenizer(corpus=(CORPUS, " A B" * 50)).save_pretrained(tmp_path / "tokenizer")  # each letter is a token
    folder = make_checkpoint(tmp_path / "model", tokenizer_from=tmp_path / "tokenizer")
    loaded = load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu"))
    with torch.inference_mode():
        found = benchmark.measure_real(loaded, requests, rounds=1, batches=[2])
    assert found["prompts"] == 6
    assert found["tokens"] > 1
    assert found["ways"]["ours"]["largest_nats"] < 1e-4


@pytest.fixture
def training_benchmark() -> ModuleType:
    return load("preference_training")


def measured(benchmark: ModuleType, *arguments: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's, of its own settings
        return benchmark.main(["--shape", "tiny", "--rounds", "1", *arguments])


@pytest.mark.slow
def test_training_is_measured_beside_trl_and_gives_the_same_numbers(training_benchmark: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    found = measured(training_benchmark, "--json", str(file))
    assert json.loads(file.read_text())[0]["pairs"] == found["pairs"]
    assert found["pairs"]["path"] == "blocks"
    assert set(found["memory"]) == set(training_benchmark.MEMORY_WAYS)
    for section in (found["pairs"], found["sft"], *found["chains"].values()):
        assert section["losses_apart"] < 1e-5
        assert min(way["seconds"] for way in section["ways"].values()) > 0
    same = found["equality"]
    assert max(same["runs"]["metrics_apart"].values()) < 1e-5
    assert same["runs"]["weights_apart_share_of_way"] < 1e-2
    assert max(same["float32"].values()) < 1e-5
    assert max(same["float64"]["loss"], same["float64"]["gradients"]) < 1e-9
    assert found["growth"]["replies"][3]["TRL, tuned"]["seconds"] > 0
    assert 0 < found["profile"]["share_of_gemm_rate"] < 1


@pytest.mark.slow
def test_the_part_for_gpus_runs_on_a_cpu(training_benchmark: ModuleType) -> None:
    found = measured(training_benchmark, "--lora", "--dtype", "bfloat16", "--sections", "gemm", "pairs", "chains", "profile")
    assert found["model"] == "tiny, bfloat16, LoRA"
    assert found["pairs"]["losses_apart"] < 0.01
    assert found["profile"]["operations"] < found["pairs"]["last_round"]["operations"] * 2


def test_the_arithmetic_of_layers_and_head_is_what_torch_counts(training_benchmark: ModuleType) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    shape = training_benchmark.SHAPES["tiny"]
    model = shape.model(torch.device("cpu"), torch.float32)
    with FlopCounterMode(display=False) as counted:
        model(torch.randint(3, shape.vocabulary, (1, 24)), use_cache=False).logits.sum().backward()
    without_attention = training_benchmark.Arithmetic(shape, tokens=24, slots=24, seen=0)
    assert without_attention.both == counted.get_total_flops()
