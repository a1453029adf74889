"""Kills real runs with SIGKILL at random moments, again and again, until so many kills have been made; every run is finished.

Usage: kill_driver.py FOLDER MODEL PROMPTS KILLS. `FOLDER/straight` is one run that nobody interrupts, `FOLDER/killed-N` are runs
that were. Prints which stage the kills fell into.

Starting Python and torch takes longer than the whole run, so the processes that are killed are forked from this one, which has
imported everything and computed nothing. What is killed is a process with its own database connection, lock and model all the
same.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from whole_runs import write_config

import cai.report
import cai.training.dpo
import cai.training.sft
from cai.config import read_config
from cai.pipeline import StageProgress, open_session, read_inputs, run

assert cai.report, "imported before the forks"
assert cai.training.dpo, "imported before the forks"
assert cai.training.sft, "imported before the forks"

SEED = 11
WORK_SHARE = 1 / 6
"""Mean time that a start works before it is killed, as a share of an uninterrupted run: so that each run is killed often."""


class Start:
    """A forked process at work on a run, which tells the stages it comes to."""

    def __init__(self, config: Path) -> None:
        self._told, writing = os.pipe()
        self.stage = "imports"
        self.pid = os.fork()
        if self.pid == 0:
            _work(config, writing)
        os.close(writing)

    def follow(self, until: float, *, stop_at: str = "") -> bool:
        """Listen until a moment (of `time.monotonic`) or a stage. Returns whether the process is still there."""
        while (left := until - time.monotonic()) > 0:
            if select.select([self._told], [], [], left)[0]:
                told = os.read(self._told, 65536)
                if not told:
                    return False
                self.stage = told.decode().splitlines()[-1]
                if stop_at and stop_at in told.decode().splitlines():
                    return True
        return True

    def end(self, *, kill: bool) -> int:
        """Its return code, negative for a signal."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._told)
        return os.waitstatus_to_exitcode(status)


def _work(config: Path, told: int) -> None:
    code = 1
    try:
        torch.set_num_threads(1)
        inputs = read_inputs(read_config(config, (), {}).config)
        os.write(told, b"opening\n")

        def tell(event: StageProgress) -> None:
            os.write(told, f"{event.stage}\n".encode())

        with open_session(inputs, tell) as session:
            os.write(told, b"opened\n")
            run(session)
            os.write(told, b"closing\n")
        code = 0
    except BaseException as error:
        print(f"{config}: {error!r}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(folder: Path, model: Path, prompts: Path, kills: int) -> None:
    chance = random.Random(SEED)

    def prepared(name: str) -> Path:
        (folder / name).mkdir()
        return write_config(folder / name, model, prompts)

    began = time.monotonic()
    straight = Start(prepared("straight"))
    straight.follow(began + 600)
    assert straight.end(kill=False) == 0, "the run that nobody interrupts"
    straight_s = time.monotonic() - began
    hit: Counter[str] = Counter()
    runs = starts = 0
    while hit.total() < kills:
        config = prepared(f"killed-{runs}")
        runs += 1
        finished = False
        while not finished:
            starts += 1
            start = Start(config)
            if hit.total() >= kills:  # the last run is finished in peace
                start.follow(time.monotonic() + 600)
            elif chance.random() < 0.2:
                start.follow(time.monotonic() + chance.random() * straight_s / 4)  # perhaps before the run is open
            elif start.follow(time.monotonic() + 600, stop_at="opened"):
                start.follow(time.monotonic() + chance.expovariate(1 / (WORK_SHARE * straight_s)))
            code = start.end(kill=hit.total() < kills)
            if code == -signal.SIGKILL:
                hit[start.stage] += 1
            elif code != 0:
                raise SystemExit(f"killed-{runs - 1}: a start ended with {code} in stage {start.stage}")
            finished = code == 0
    facts = {
        "kills": hit.total(),
        "runs": runs,
        "starts": starts,
        "uninterrupted_s": round(straight_s, 2),
        "all_s": round(time.monotonic() - began, 1),
        "hit": dict(hit.most_common()),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
