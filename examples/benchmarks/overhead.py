"""What this program costs beside the model: `python examples/benchmarks/overhead.py`.

The same rows go three times through draft, critique and revision on a script, which answers in microseconds:

    engine      the script alone, given the very requests of the loop
    loop        principles drawn, prompts rendered, calls scheduled, records built; nothing stored
    run         the stage as `cai generate` does it: every call looked up and kept, records, outcomes, commits

Processor time is what a row takes away from a model on the same cores; wall time holds the waiting for the disk besides. The
share is that of a run at `--rows-per-second`, as if nothing went on beside each other. Smallest of several rounds, and spread.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from scale import SCRIPT, write_prompts

from cai.config import read_config
from cai.engines.base import GenerationRequest
from cai.engines.scripts import Script
from cai.loop import run_loop
from cai.pipeline import Inputs, open_session, read_inputs
from cai.pipeline.generating import generate


@dataclass(frozen=True, slots=True)
class Took:
    """Microseconds a row."""

    cpu_us: float
    wall_us: float


def measure(folder: Path, rows: int) -> dict[str, Took]:
    """One round, in an empty folder."""
    write_prompts(folder / "prompts.jsonl", rows)
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT, sort_keys=False), encoding="utf-8")
    config = {
        "run": str(folder / "run"),
        "constitution": ["shipped:style"],
        "policy": {"name": f"scripted:{folder / 'script.yaml'}"},
        "prompts": {"path": str(folder / "prompts.jsonl")},
        "dpo": None,
        "holdout_share": 0.0,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    inputs = read_inputs(read_config(folder / "run.yaml", (), {}).config)
    requests = _requests(inputs)
    took: dict[str, Took] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        work()
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        took[name] = Took(cpu_s / rows * 1e6, wall_s / rows * 1e6)

    timed("engine", lambda: _answer(requests))
    timed("loop", lambda: _exhaust(_loop(inputs)))
    with open_session(inputs) as session:
        timed("run", lambda: generate(session))
    return took


def _answer(requests: Sequence[GenerationRequest]) -> None:
    engine = Script.model_validate(SCRIPT).engine()
    _exhaust(engine.generate(requests))


def _loop(inputs: Inputs) -> Iterator[object]:
    engine, config = Script.model_validate(SCRIPT).engine(), inputs.config
    return run_loop(inputs.training_items, inputs.constitution, engine, engine, config.loop, seed=config.seed)


def _requests(inputs: Inputs) -> list[GenerationRequest]:
    """What the loop asks, in its order."""
    script, config = Script.model_validate(SCRIPT), inputs.config
    engine = script.engine(keep_asked=True)
    _exhaust(run_loop(inputs.training_items, inputs.constitution, engine, engine, config.loop, seed=config.seed))
    return [each for each in engine.asked if isinstance(each, GenerationRequest)]


def _exhaust(rows: Iterator[object]) -> None:
    for _ in rows:
        pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the three figures, what loop and store add, and their share of the wall time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows-per-second", type=float, default=1000.0)
    wanted = parser.parse_args(arguments)
    found: list[dict[str, Took]] = []
    for _ in range(wanted.rounds):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(Path(folder), wanted.rows))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
    print(f"{'us per row':<12}{'cpu':>8}{'worst':>8}{'wall':>8}{'worst':>8}")
    best: dict[str, Took] = {}
    for name in ("engine", "loop", "run"):
        cpu, wall = sorted(each[name].cpu_us for each in found), sorted(each[name].wall_us for each in found)
        best[name] = Took(cpu[0], wall[0])
        print(f"{name:<12}{cpu[0]:>8.0f}{cpu[-1]:>8.0f}{wall[0]:>8.0f}{wall[-1]:>8.0f}")
    for name, more, less in (("rendering, scheduling, records", "loop", "engine"), ("store", "run", "loop")):
        print(f"{name}: {best[more].cpu_us - best[less].cpu_us:.0f} us of processor a row")
    overhead = Took(best["run"].cpu_us - best["engine"].cpu_us, best["run"].wall_us - best["engine"].wall_us)
    per_row_us = 1e6 / wanted.rows_per_second
    print(
        f"in all {overhead.cpu_us:.0f} us of processor, {overhead.wall_us:.0f} us of wall time a row: at "
        f"{wanted.rows_per_second:g} rows/s {overhead.cpu_us / per_row_us:.1%} and {overhead.wall_us / per_row_us:.1%}"
    )


if __name__ == "__main__":
    main()
