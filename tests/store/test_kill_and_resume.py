"""A real process, killed with SIGKILL at random moments: nothing finished is lost, and the outcome is the same to the byte."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import killed_run

SCRIPT = Path(killed_run.__file__)
REPOSITORY = SCRIPT.parents[2]
KILLS = 18


def start(folder: Path, log: Path, number: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(SCRIPT), str(folder), str(log), str(number)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def committed_keys(folder: Path) -> set[str]:
    if not (folder / "run.sqlite").exists():
        return set()
    connection = sqlite3.connect(folder / "run.sqlite")
    try:
        return {row[0] for row in connection.execute("SELECT key FROM calls")}
    except sqlite3.OperationalError:
        return set()  # killed before there was a schema
    finally:
        connection.close()


def wait_for_calls(process: subprocess.Popen[bytes], log: Path, number: int, calls: int) -> None:
    """Until this start has computed so many calls, or has ended."""
    while process.poll() is None:
        lines = log.read_text().split("\n") if log.exists() else []
        if sum(line.startswith(f"{number} ") for line in lines) >= calls:
            return
        time.sleep(0.005)


def files_of(folder: Path) -> dict[str, bytes]:
    skipped = ("run.sqlite", ".run")
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(skipped)}


def test_killed_at_random_moments_the_run_ends_as_if_never_interrupted(tmp_path: Path) -> None:
    straight, killed, log = tmp_path / "straight", tmp_path / "killed", tmp_path / "log"
    killed_run.run(straight, tmp_path / "straight-log", "0", seconds_per_batch=0)
    chance = random.Random(7)
    finished_when_killed: list[tuple[int, set[str]]] = []
    number = 0
    while len(finished_when_killed) < KILLS and number < 3 * KILLS:
        process = start(killed, log, number)
        assert process.stdout is not None
        process.stdout.readline()  # imports are done; how long they take says nothing
        # A few batches of work and a moment more, so that every phase is hit: the memo, the records, the output files.
        wait_for_calls(process, log, number, chance.choice((0, 0, 1, killed_run.BATCH, 2 * killed_run.BATCH)))
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            finished_when_killed.append((number, committed_keys(killed)))
        number += 1
    last = start(killed, log, number)
    _, errors = last.communicate(timeout=60)
    assert last.returncode == 0, errors.decode()

    assert files_of(killed) == files_of(straight)
    computed: dict[int, set[str]] = {}
    for line in log.read_text().split("\n"):
        if line:
            started, key = line.split()
            computed.setdefault(int(started), set()).add(key)
    assert len({len(finished) for _, finished in finished_when_killed}) > 5, "the kills did not fall into the work"
    for killed_start, finished in finished_when_killed:
        later = set().union(*(keys for started, keys in computed.items() if started > killed_start), set())
        assert not finished & later, "a finished call was computed again"
    with sqlite3.connect(killed / "run.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone()[0] == 2 * killed_run.ITEMS


def test_a_finished_call_is_on_the_disk_within_two_seconds_also_while_the_engine_is_busy(tmp_path: Path) -> None:
    """The tail of a burst of results used to wait for the next burst, which may be minutes away."""
    folder, log = tmp_path / "run", tmp_path / "log"
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import killed_run as k\n"
        "from pathlib import Path; from cai.store import *; from cai.engines.base import *\n"
        "from constitution.messages import user\n"
        "class Slow(k.HashEngine):\n"
        "    def generate(self, requests):\n"
        "        for n, result in enumerate(super().generate(requests)):\n"
        "            if n == 3: print('busy', flush=True); time.sleep(60)\n"
        "            yield result\n"
        "run = RunFolder.open(Path(sys.argv[2]))\n"
        "engine = MemoisedEngine(Slow(Path(sys.argv[3]), '0', 0), run, commit_every=100)\n"
        "list(engine.generate([GenerationRequest((user(str(n)),), SamplingParams(), f'0/{n}/0/draft/0') for n in range(8)]))\n"
    )
    command = [sys.executable, "-c", code, str(SCRIPT.parent), str(folder), str(log)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"busy\n"
    time.sleep(1.7)
    process.kill()
    process.communicate()
    assert len(committed_keys(folder)) == 3
