"""What a step takes: seconds of ways that take turns, and memory above what was there."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from training_steps import Bench

from cai.models.memory import memory_use, return_free_memory

Result: TypeAlias = dict[str, Any]
Way: TypeAlias = Callable[[], float]


def seconds_of(bench: Bench, way: Way) -> tuple[float, float]:
    """Seconds, and what the way returned."""
    if bench.device.type != "cuda":
        began = time.process_time()
        found = way()
        return time.process_time() - began, found
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(bench.device)
    start.record()
    found = way()
    end.record()
    torch.cuda.synchronize(bench.device)
    return start.elapsed_time(end) / 1000, found


def in_turns(
    bench: Bench, rounds: Sequence[dict[str, Way]], models: Sequence[nn.Module], base: str, *, other_losses: Sequence[str] = ()
) -> Result:
    """Each way's seconds in each round beside those of `base`, and how far apart losses are that should be the same.

    Gradients are cleared before each. On a GPU a first round does not count: kernels are compiled and chosen in it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rounds[0]}
    apart = 0.0
    for turn, ways in enumerate([rounds[0], *rounds] if bench.device.type == "cuda" else rounds):
        losses: dict[str, float] = {}
        for name, way in ways.items():
            for model in models:
                model.zero_grad()
            took, losses[name] = seconds_of(bench, way)
            print(f"    {name:36} {took:9.3f} s  loss {losses[name]:.6f}", file=sys.stderr, flush=True)
            if turn or bench.device.type != "cuda":
                seconds[name].append(took)
        same = [loss for name, loss in losses.items() if name not in other_losses]
        apart = max(apart, *(abs(loss - losses[base]) / max(1e-6, abs(losses[base])) for loss in same))
    return {"ways": {name: compared(took, seconds[base]) for name, took in seconds.items()}, "losses_apart": apart}


def compared(seconds: Sequence[float], of_base: Sequence[float]) -> Result:
    """`gain`: how many times as long the way takes as the base."""
    gains = [own / base for own, base in zip(seconds, of_base, strict=True)]
    return {
        "seconds": round(statistics.median(seconds), 4),
        "gain": round(statistics.median(gains), 2),
        "range": [round(min(gains), 2), round(max(gains), 2)],
    }


@contextmanager
def peak_above(bench: Bench, found: list[int]) -> Iterator[None]:
    """Appends the bytes by which memory rose above what it was at the beginning."""
    return_free_memory()
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
        before = torch.cuda.memory_allocated(bench.device)
        yield
        found.append(torch.cuda.max_memory_allocated(bench.device) - before)
        return
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = memory_use().rss_bytes
    yield
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    found.append(peak - before)


def timed(bench: Bench, way: Way) -> Result:
    peak: list[int] = []
    with peak_above(bench, peak):
        took, _ = seconds_of(bench, way)
    print(f"    {took:9.3f} s  {peak[0] / 2**20:9.0f} MiB", file=sys.stderr, flush=True)
    return {"seconds": round(took, 3), "peak_mib": round(peak[0] / 2**20)}
