"""What this program costs beside the model: `python examples/benchmarks/overhead.py`.

The same rows go three times through draft, critique and revision on a script, which answers in microseconds:

    engine      the script alone, given the very requests of the loop
    loop        principles drawn, prompts rendered, calls scheduled, records built; nothing stored
    run         the stage as `cai generate` does it: every call looked up and kept, records, outcomes, commits

Processor time is what a row takes away from a model on the same cores; wall time holds the waiting for the disk besides. The
first share is that of a run at `--rows-per-second`, if nothing went on beside each other. Smallest of several rounds, spread.

Then the same loop and store work beside a model that answers at that rate on a thread of its own, as one on a GPU or a
server does: the second share is by how much longer the whole takes than the model alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import psutil
from scripted_rows import SCRIPT, write_run

from cai.config import read_config
from cai.engines.base import GenerationRequest, GenerationResult, generate_all
from cai.engines.scripted import ScriptedEngine
from cai.engines.scripts import Script
from cai.loop import run_loop
from cai.pipeline import Inputs, open_session, read_inputs
from cai.pipeline.generating import generate
from cai.records import RecordKind
from cai.store import MemoisedEngine, RunFolder

STEP_S = 0.005


@dataclass(frozen=True, slots=True)
class Took:
    """Microseconds a row."""

    cpu_us: float
    wall_us: float


def _inputs(folder: Path, rows: int) -> Inputs:
    config = write_run(folder, rows, holdout_share=0.0)
    return read_inputs(read_config(config, (), {}).config)


def measure(folder: Path, rows: int) -> dict[str, Took]:
    """One round, in an empty folder."""
    inputs = _inputs(folder, rows)
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


class PacedStream:
    """Answers of a script, so many a second, from a thread that sleeps in between; implements `GenerationStream`."""

    def __init__(self, engine: ScriptedEngine, calls_per_s: float) -> None:
        self._engine = engine
        self._interval_s = 1 / calls_per_s
        self._asked: SimpleQueue[tuple[int, GenerationRequest] | None] = SimpleQueue()
        self._answered: SimpleQueue[tuple[int, GenerationResult]] = SimpleQueue()
        self._tickets = self._told = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def works_unread(self) -> bool:
        return True

    def submit(self, request: GenerationRequest) -> int:
        self._asked.put((self._tickets, request))
        self._tickets += 1
        return self._tickets - 1

    def results(self, patience_s: float | None = None) -> Iterator[tuple[int, GenerationResult]]:  # noqa: ARG002
        while self._told < self._tickets:
            self._told += 1
            yield self._answered.get()

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        due_s = time.perf_counter()
        while (asked := self._asked.get()) is not None:
            ticket, request = asked
            due_s = max(due_s, time.perf_counter() - STEP_S) + self._interval_s
            if due_s - time.perf_counter() > STEP_S:  # a step of a model ends several answers
                time.sleep(due_s - time.perf_counter())
            self._answered.put((ticket, self._engine.answered(request)))


class PacedEngine:
    """A script that takes its time; implements `Engine`."""

    def __init__(self, engine: ScriptedEngine, calls_per_s: float) -> None:
        self._engine = engine
        self._calls_per_s = calls_per_s
        self.fingerprint, self.context_tokens = engine.fingerprint, engine.context_tokens
        self.count_tokens, self.request_key = engine.count_tokens, engine.request_key
        self.score, self.statistics = engine.score, engine.statistics

    def stream(self) -> PacedStream:
        return PacedStream(self._engine, self._calls_per_s)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        return generate_all(self, requests)


def _paced(calls_per_s: float) -> PacedEngine:
    return PacedEngine(Script.model_validate(SCRIPT).engine(), calls_per_s)


def beside(folder: Path, rows: int, rows_per_s: float) -> tuple[float, float]:
    """Wall seconds of a model alone that does `rows_per_s` rows of three calls, and of loop and store on top of it."""
    inputs = _inputs(folder, rows)
    requests, config = _requests(inputs), inputs.config
    calls_per_s = rows_per_s * len(requests) / rows
    began_s = time.perf_counter()
    _exhaust(_paced(calls_per_s).generate(requests))
    alone_s = time.perf_counter() - began_s
    with RunFolder.open(folder / "beside") as run:
        run.put_items(inputs.training_items)
        began_s = time.perf_counter()
        engine = MemoisedEngine(_paced(calls_per_s), run)
        made = run_loop(inputs.training_items, inputs.constitution, engine, engine, config.loop, seed=config.seed)
        while page := list(islice(made, 250)):
            run.add_records(RecordKind.REVISION, page)
        return alone_s, time.perf_counter() - began_s


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
    shares: list[float] = []
    for _ in range(wanted.rounds):
        with tempfile.TemporaryDirectory() as folder:
            alone_s, with_all_s = beside(Path(folder), wanted.rows, wanted.rows_per_second)
            shares.append(with_all_s / alone_s - 1)
    shares.sort()
    print(
        f"beside a model at {wanted.rows_per_second:g} rows/s the whole takes {statistics.median(shares):+.1%} "
        f"({shares[0]:+.1%} to {shares[-1]:+.1%}) of the model's own time"
    )


if __name__ == "__main__":
    main()
