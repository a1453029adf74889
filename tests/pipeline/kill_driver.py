"""Kills real runs with SIGKILL at random moments, again and again, until so many kills have been made; every run is finished.

Usage: kill_driver.py FOLDER MODEL PROMPTS KILLS. `FOLDER/straight` is one run that nobody interrupts, `FOLDER/killed-N` are
runs that were. Prints which stage the kills fell into.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from forked_runs import Start
from whole_runs import write_config

SEED = 11
WORDS = 6
"""Mean number of progress events that a start lives on after the run is open: so that kills fall into all stages."""


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
                words = round(chance.expovariate(1 / WORDS))
                if not words or start.follow(time.monotonic() + 600, lines=words):
                    start.follow(time.monotonic() + chance.random() * straight_s / 50)
            code = start.end(kill=hit.total() < kills)
            if code == -signal.SIGKILL:
                hit[start.stage] += 1
            elif code != 0:
                raise SystemExit(f"killed-{runs - 1}: a start ended with {code} in stage {start.stage}: {start.said}")
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
