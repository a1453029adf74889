r"""Preference and supervised training: cai's steps beside TRL's on the same tokens, in one run.

    python examples/benchmarks/preference_training.py [--sections pairs chains …] [--rounds 3] [--json FILE]
    python examples/benchmarks/preference_training.py --device cuda --shape 8b --dtype bfloat16 [--lora] \
        --sections gemm pairs chains memory profile

Models have random weights: `small` is a Llama of 26M, `8b` has Llama 3's shape, `tiny` is for trials. The sections:

    gemm      rate of one large matrix product: the limit that shares of arithmetic are told of
    pairs     forward and backward pass of one step of pairs; TRL as it comes, and in its fastest settings (reference
              precomputed, nothing checkpointed; batches as they come, of like lengths, or one pair at a time)
    chains    one prompt, four replies, all six pairs; replies apart, and each keeping half of the one before
    memory    peak above the loaded model, each way in a process of its own (on a GPU: torch's own count)
    sft       supervised rows of lognormal lengths, prompts masked
    labels    soft labels beside hard ones
    equality  whole runs of both trainers with AdamW; gradients of one step; float64 beside plain autograd
    growth    time and memory by length of prompt, number of replies, size of vocabulary
    profile   where one step's time goes

The figure is processor time on a CPU (one thread unless `--threads` says otherwise) and CUDA events on a GPU. Ways take turns;
a gain is the median over the rounds, told with its range, and each round has its own rows. `Arithmetic` has the formula of
operations.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from training_equality import equality
from training_growth import RANGES, Range, growth
from training_peers import dpo_step, pair_ids, sft_step, sft_trainer
from training_shapes import SHAPES, Arithmetic, Drawn
from training_steps import (
    DPO,
    Bench,
    default_peer,
    preference_rows,
    reference_pairs,
    step_trainer,
    trained_step,
    tuned_peer,
    with_end,
)
from training_timing import Result, Way, in_turns, peak_above, seconds_of

from cai.models.memory import return_free_memory
from cai.models.products import multiplied, onednn_is_faster
from cai.training.logps import ReplyScorer
from cai.training.objectives import PreferenceObjective, SupervisedObjective
from cai.training.packing import PackedBatch, TokenGroup
from cai.training.plan import Step
from cai.training.rows import PreferenceRow, ReplyRow

SECTIONS = ("gemm", "pairs", "chains", "memory", "sft", "labels", "equality", "growth", "profile")
GPU_PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second, as their maker states them."""
ALL_OF_FOUR = tuple((later, earlier) for later in range(4) for earlier in range(later))
"""(chosen, rejected): each reply is better than those it was revised from."""


def gemm_rate(bench: Bench) -> float:
    """Operations a second of a product of two matrices of 2048², the best of five times."""
    left, right = (torch.randn(2048, 2048, device=bench.device).to(bench.dtype) for _ in range(2))

    def products() -> float:
        for _ in range(8):
            multiplied(left, right)
        return 0.0

    products()
    return 8 * 2 * 2048**3 / min(seconds_of(bench, products)[0] for _ in range(5))


def gemm(bench: Bench) -> Result:
    rate = gemm_rate(bench)
    found: Result = {"operations_per_s": rate, "by_onednn": bench.device.type == "cpu" and onednn_is_faster()}
    if bench.device.type == "cuda":
        name = torch.cuda.get_device_name(bench.device)
        found["stated_peak_per_s"] = next((peak for model, peak in GPU_PEAKS.items() if model in name), None)
    return found


def _share(operations: float, seconds: float, rate: float) -> float:
    return round(operations / seconds / rate, 3)


def pairs(bench: Bench) -> Result:
    """Each round has a step's pairs of its own. In "like lengths" all rounds' pairs are dealt to steps by length, as TRL does
    with a column of lengths: rounds are then of other rows, and only the medians compare.
    """
    count, drawn = bench.shape.pairs, Drawn(bench.shape, 5)
    rows = preference_rows([with_end(group) for group in drawn.pairs(count * bench.rounds)])
    by_length = sorted(rows, key=lambda row: row.group.longest)
    model = bench.model()
    scorer = bench.scorer(model, [row.group for row in rows])
    some = [with_end(group) for group in drawn.pairs(1)]
    tuned, default = tuned_peer(bench, some), default_peer(bench, some)
    objective, computed = PreferenceObjective(DPO), list[PackedBatch]()

    def ours(rows: Sequence[PreferenceRow]) -> float:
        loss, computed[:] = trained_step(model, scorer, objective, rows, bench)
        return loss

    def by_trainer(turn: int) -> float:
        return float(trainer.training_step(model, {"share": torch.tensor([turn])}))

    def theirs(trainer: Any, rows: Sequence[PreferenceRow], at_once: int) -> float:
        known = reference_pairs(rows) if trainer is tuned else None
        return dpo_step(trainer, pair_ids([row.group for row in rows]), known, at_once=at_once)

    cuts = [slice(start, start + count) for start in range(0, len(rows), count)]
    with tempfile.TemporaryDirectory() as folder:
        steps = [Step(tuple(range(cut.start, cut.stop))) for cut in cuts]
        trainer, _ = step_trainer(bench, model, scorer, lambda *_: (rows, []), steps, Path(folder))
        trainer.open(0)
        found = in_turns(
            bench,
            [
                {
                    "ours": lambda cut=cut: ours(rows[cut]),
                    "ours, StepTrainer": lambda turn=turn: by_trainer(turn),
                    "TRL, tuned": lambda cut=cut: theirs(tuned, rows[cut], count),
                    "TRL, tuned, one pair at a time": lambda cut=cut: theirs(tuned, rows[cut], 1),
                    "TRL, tuned, like lengths": lambda cut=cut: theirs(tuned, by_length[cut], count),
                    "TRL, as it comes": lambda cut=cut: theirs(default, rows[cut], count),
                }
                for turn, cut in enumerate(cuts)
            ],
            [model, tuned.model, default.model],
            "ours",
            other_losses=["TRL, tuned, like lengths", "TRL, as it comes"],
        )
    last = rows[cuts[-1]]
    whole = [len(group.prompt_ids) + len(reply) for group in (row.group for row in last) for reply in group.replies]
    arithmetic = Arithmetic.of_tries(bench.shape, computed, frozen=bench.lora)
    return found | {
        "path": scorer.path,
        "last_round": {"tokens": arithmetic.tokens, "tokens_of_whole_rows": sum(whole), "operations": arithmetic.both},
    }


def chains(bench: Bench) -> Result:
    found: Result = {}
    tuned = tuned_peer(bench, [with_end(group) for group in Drawn(bench.shape, 1).pairs(1)])
    model, objective = bench.model(), PreferenceObjective(DPO)
    for name, kept in (("replies apart", 0.0), ("half kept", 0.5)):
        drawn = Drawn(bench.shape, 9)
        rows = [preference_rows([drawn.chain(4, kept)], ALL_OF_FOUR) for _ in range(bench.rounds)]
        scorer = bench.scorer(model, [row.group for (row,) in rows])

        def ours(some: Sequence[PreferenceRow], scorer: ReplyScorer = scorer) -> float:
            return trained_step(model, scorer, objective, some, bench)[0]

        def theirs(some: Sequence[PreferenceRow]) -> float:
            ids = pair_ids([row.group for row in some], ALL_OF_FOUR)
            return dpo_step(tuned, ids, reference_pairs(some), at_once=len(ids))

        rounds: list[dict[str, Way]] = [
            {
                "ours": lambda some=some: ours(some),
                "TRL, tuned": lambda some=some: theirs(some),
            }
            for some in rows
        ]
        found[name] = in_turns(bench, rounds, [model, tuned.model], "ours")
    return found


MEMORY_WAYS = ("ours", "ours, one pair a pass", "TRL, tuned", "TRL, as it comes")


def memory(command: Sequence[str]) -> Result:
    peaks: dict[str, int] = {}
    for way in MEMORY_WAYS:
        done = subprocess.run([*command, "--memory-of", way], check=True, capture_output=True, text=True)  # noqa: S603 - this script
        peaks[way] = json.loads(done.stdout.splitlines()[-1])
        print(f"    {way:36} {peaks[way] / 2**20:9.0f} MiB", file=sys.stderr, flush=True)
    of_trl = peaks["TRL, tuned"]
    return {name: {"peak_mib": round(peak / 2**20), "times_less": round(of_trl / peak, 2)} for name, peak in peaks.items()}


def memory_of(bench: Bench, way: str) -> int:
    """Bytes above the loaded model, gradients among them."""
    drawn, found = Drawn(bench.shape, 5), list[int]()
    rows = preference_rows([with_end(group) for group in drawn.pairs(bench.shape.pairs)])
    if way.startswith("TRL"):
        trainer = (tuned_peer if "tuned" in way else default_peer)(bench, [rows[0].group])
        ids, known = pair_ids([row.group for row in rows]), reference_pairs(rows) if "tuned" in way else None
        with peak_above(bench, found):
            dpo_step(trainer, ids, known, at_once=len(ids))
        return found[0]
    model = bench.model()
    scorer = bench.scorer(model, [rows[0].group])
    at_once = replace(bench, tokens_per_forward=1 if "one pair" in way else 2**30)
    with peak_above(bench, found):
        trained_step(model, scorer, PreferenceObjective(DPO), rows, at_once)
    return found[0]


def sft(bench: Bench) -> Result:
    few, drawn = bench.shape.pairs, Drawn(bench.shape, 7)
    model, objective = bench.model(), SupervisedObjective()
    rounds: list[dict[str, Way]] = []
    tokens: list[tuple[int, int]] = []
    peers = {free: sft_trainer(bench.model(), bench.shape, drawn.mixed(1), padding_free=free) for free in (False, True)}

    def theirs(groups: Sequence[TokenGroup], at_once: int, *, padding_free: bool = False) -> float:
        batches = [groups[start : start + at_once] for start in range(0, len(groups), at_once)]
        return sft_step(peers[padding_free], batches)

    for _ in range(bench.rounds):
        groups = drawn.mixed(4 * few)
        rows = [ReplyRow(f"{n}", 0, group) for n, group in enumerate(groups)]
        scorer = bench.scorer(model, groups)
        alike = sorted(groups, key=lambda group: group.longest)
        tokens.append((sum(g.longest for g in groups), sum(g.sequence_lengths[0] for g in groups)))
        rounds.append(
            {
                "ours": lambda rows=rows, scorer=scorer: trained_step(model, scorer, objective, rows, bench)[0],
                "TRL, as they come": lambda groups=groups: theirs(groups, few),
                "TRL, like lengths": lambda alike=alike: theirs(alike, few),
                "TRL, one at a time": lambda groups=groups: theirs(groups, 1),
                "TRL, padding-free": lambda groups=groups: theirs(groups, few, padding_free=True),
            }
        )
    found = in_turns(bench, rounds, [model, *(peer.model for peer in peers.values())], "ours")
    return found | {"tokens_of_rounds": [{"all": every, "replies": replies} for every, replies in tokens]}


def labels(bench: Bench) -> Result:
    drawn, model, objective = Drawn(bench.shape, 11), bench.model(), PreferenceObjective(DPO)
    rounds: list[dict[str, Way]] = []
    for turn in range(2 * bench.rounds):
        groups = drawn.pairs(bench.shape.pairs)
        scorer = bench.scorer(model, groups)
        ways: dict[str, Way] = {
            name: lambda p=p, groups=groups, scorer=scorer: trained_step(
                model, scorer, objective, preference_rows(groups, p_chosen=p), bench
            )[0]
            for name, p in (("hard", 1.0), ("soft", 0.8))
        }
        rounds.append(ways if turn % 2 else dict(reversed(ways.items())))
    return in_turns(bench, rounds, [model], "hard", other_losses=["soft"])


def profile(bench: Bench) -> Result:
    """One step of ours: its operations a second beside those of a matrix product, and where its time goes."""
    from torch.profiler import ProfilerActivity, profile

    rows = preference_rows(Drawn(bench.shape, 5).pairs(bench.shape.pairs))
    model, objective = bench.model(), PreferenceObjective(DPO)
    scorer = bench.scorer(model, [row.group for row in rows])
    _, batches = trained_step(model, scorer, objective, rows, bench)
    took = min(seconds_of(bench, lambda: trained_step(model, scorer, objective, rows, bench)[0])[0] for _ in range(3))
    gpu = bench.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiled:
        trained_step(model, scorer, objective, rows, bench)
    events = profiled.key_averages()
    times = {event.key: event.self_device_time_total if gpu else event.self_cpu_time_total for event in events}
    total = sum(times.values())
    top = sorted(times.items(), key=lambda each: -each[1])[:12]
    operations, rate = Arithmetic.of_tries(bench.shape, batches, frozen=bench.lora).both, gemm_rate(bench)
    return {
        "seconds": round(took, 4),
        "operations": operations,
        "operations_per_s": operations / took,
        "share_of_gemm_rate": _share(operations, took, rate),
        "shares_of_time": {name: round(spent / total, 3) for name, spent in top},
    }


def main(argv: Sequence[str] | None = None) -> Result | None:
    parser = argparse.ArgumentParser(description="Preference and supervised training beside TRL.")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--lora", action="store_true", help="rank 16 on all linear layers; else every weight is trained")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens-per-forward", type=int, default=2048)
    parser.add_argument("--json", type=Path, help="a list of runs, to which this one is added")
    parser.add_argument("--memory-of", choices=MEMORY_WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    torch.set_num_threads(asked.threads)
    torch.set_flush_denormal(True)
    bench = Bench(
        SHAPES[asked.shape],
        torch.device(asked.device),
        getattr(torch, asked.dtype),
        asked.rounds,
        lora=asked.lora,
        tokens_per_forward=asked.tokens_per_forward,
    )
    if asked.memory_of:
        print(memory_of(bench, asked.memory_of))
        return None
    command = [sys.executable, __file__, "--shape", asked.shape, "--device", asked.device, "--dtype", asked.dtype]
    command += ["--threads", str(asked.threads), *(["--lora"] if asked.lora else [])]
    ways: dict[str, Callable[[], Result]] = {
        "gemm": lambda: gemm(bench),
        "pairs": lambda: pairs(bench),
        "chains": lambda: chains(bench),
        "memory": lambda: memory(command),
        "sft": lambda: sft(bench),
        "labels": lambda: labels(bench),
        "equality": lambda: equality(bench),
        "growth": lambda: growth(bench, RANGES.get(asked.shape, Range())),
        "profile": lambda: profile(bench),
    }
    gpu = bench.device.type == "cuda"
    about: Result = {
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name(bench.device) if gpu else f"{_processor()}, {os.cpu_count()} cores",
        "threads": asked.threads,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "model": f"{asked.shape}, {asked.dtype}{', LoRA' if asked.lora else ''}",
        "shape": dataclasses.asdict(bench.shape),
    }
    print(json.dumps(about), file=sys.stderr)
    before = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else []
    for name in asked.sections:
        print(f"{name}:", file=sys.stderr, flush=True)
        about[name] = ways[name]()
        print(json.dumps({name: about[name]}), flush=True)
        return_free_memory()
        if asked.json:
            asked.json.write_text(json.dumps([*before, about], indent=2) + "\n")
    return about


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
