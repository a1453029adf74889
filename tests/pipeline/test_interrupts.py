"""Ctrl-C on a real `cai run`: once, it commits, stops and says how to go on; twice, it stops at once; nothing is lost."""

from __future__ import annotations

import random
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from checkpoints import make_checkpoint
from whole_runs import cai, environment, output_files, write_config, write_prompts

STOPS_WITHIN_S = 5.0
"""Of processor time: on a machine that does other things besides, it takes longer."""


def committed(run: Path) -> set[str]:
    """Keys of the calls on the disk."""
    if not (run / "run.sqlite").exists():
        return set()
    with closing(sqlite3.connect(f"file:{run / 'run.sqlite'}?mode=ro", uri=True)) as connection:
        try:
            return {key for (key,) in connection.execute("SELECT key FROM calls")}
        except sqlite3.OperationalError:
            return set()  # not made yet


def started(config: Path, calls: int) -> subprocess.Popen[str]:
    """A run at work, once it has committed so many calls of its own.

    By the installed command: under `python -m`, the interpreter ends itself by the signal when an interrupt came out of an
    `exec`, as it does during imports, whatever code was asked for.
    """
    earlier = len(committed(config.parent / "run"))
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("cai")), "run", str(config)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and len(committed(config.parent / "run")) < earlier + calls:
        time.sleep(0.02)
    assert process.poll() is None, "it was to be interrupted at work"
    return process


def cpu_s(pid: int) -> float:
    """Processor time of a process so far; 0 when it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


@pytest.mark.slow
def test_ctrl_c_once_and_twice(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    prompts = write_prompts(tmp_path / "prompts.jsonl", 120)
    for name in ("straight", "stopped"):
        (tmp_path / name).mkdir()
    assert cai("run", write_config(tmp_path / "straight", model, prompts)).returncode == 0
    config = write_config(tmp_path / "stopped", model, prompts)
    run, chance = tmp_path / "stopped" / "run", random.Random(4)
    for times, calls in ((1, 1), (2, 30), (1, 50), (2, 1)):
        process = started(config, calls)
        time.sleep(chance.random() * 0.3)
        before = committed(run)
        process.send_signal(signal.SIGINT)
        used = cpu_s(process.pid)
        if times == 2:
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGINT)
        last = used
        while process.poll() is None:
            last = cpu_s(process.pid) or last
            time.sleep(0.02)
        _, said = process.communicate(timeout=60)
        assert last - used < STOPS_WITHIN_S
        assert "Traceback" not in said, said
        assert before <= committed(run)
        assert not (run / ".run.holder.json").exists() or times == 2, "the lock is free"
        if times == 1:
            assert process.returncode == 130, said
            assert f"go on with:\n  cai run {shlex.quote(str(config))}" in said
        else:
            assert process.returncode in (130, -signal.SIGINT), said
    done = cai("run", config)
    assert done.returncode == 0, done.stderr
    assert output_files(run) == output_files(tmp_path / "straight" / "run")
