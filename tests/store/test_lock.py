"""One writer per run folder: the second is refused at once and told who the first is; the dead are no obstacle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cai.errors import StoreError
from cai.store import RunFolder
from cai.store.lock import Holder

REPOSITORY = Path(__file__).resolve().parents[2]
NOTE = ".run.holder.json"
HOLD = (
    "import sys, time; from pathlib import Path; from cai.store import RunFolder\n"
    "run = RunFolder.open(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
)


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the run open."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_second_is_refused_within_a_second_and_told_who_since_when_and_doing_what(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as first:
        began = time.monotonic()
        with pytest.raises(StoreError, match=rf"process {first.pid} on {socket.gethostname()} ") as caught:
            RunFolder.open(tmp_path / "run")
        assert time.monotonic() - began < 1
        assert "is using this run folder since 20" in caught.value.problem
        assert str(tmp_path / "run") in caught.value.problem.partition("since")[2], "its command"
        assert f"kill {first.pid}" in caught.value.hint


def test_where_the_systems_lock_keeps_nobody_out_the_note_does(tmp_path: Path) -> None:
    """On some network and container file systems, a lock counts for the machine, not for the process.

    Here the newcomer gets the system's lock because the lock file was replaced under the holder.
    """
    with holder(tmp_path / "run") as first:
        (tmp_path / "run" / ".run.lock").unlink()
        for _ in range(2):
            with pytest.raises(StoreError, match=f"process {first.pid} on "):
                RunFolder.open(tmp_path / "run")
            assert Holder.read(tmp_path / "run" / NOTE) is not None, "the holder's note is left alone"
        first.send_signal(signal.SIGKILL)
        # Not waited for: a process that has ended and whose parent has not looked is dead all the same.
        deadline = time.monotonic() + 10
        while Path(f"/proc/{first.pid}/stat").exists() and Holder.read(tmp_path / "run" / NOTE).is_alive:  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        RunFolder.open(tmp_path / "run").close()
    assert not (tmp_path / "run" / NOTE).exists()


def test_of_many_that_come_at_once_where_the_systems_lock_keeps_nobody_out_one_gets_in(tmp_path: Path) -> None:
    """All find the note of a dead process; taking it away must not take away the first one's."""
    folder = tmp_path / "run"
    RunFolder.open(folder).close()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / NOTE).write_text(Holder(pid=dead.pid, host=socket.gethostname(), started="1").model_dump_json())
    code = (
        "import sys, time; from pathlib import Path\n"
        "from cai.errors import StoreError; from cai.store.lock import RunLock\n"
        "folder, number, begin = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])\n"
        "lock = RunLock(folder)\n"
        "lock._lock = type(lock._lock)(folder / f'.lock-{number}')  # a lock that keeps nobody out\n"
        "time.sleep(max(0.0, begin - time.monotonic()))\n"
        "try: lock.acquire(); print('in', flush=True); sys.stdin.read()\n"
        "except StoreError: print('refused', flush=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    begin = str(time.monotonic() + 3)
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(n), begin], env=environment, stdin=pipe, stdout=pipe, text=True
        )
        for n in range(6)
    ]
    said = [process.stdout.readline().strip() for process in processes if process.stdout is not None]
    for process in processes:
        process.communicate()
    assert sorted(said) == ["in", *["refused"] * 5]


@pytest.mark.parametrize(
    "note",
    [
        {"pid": os.getppid(), "host": socket.gethostname(), "started": "1"},  # the number is another process's now
        {"pid": 2**22 - 3, "host": socket.gethostname(), "started": "1"},
        {"pid": 1, "host": "another-machine"},  # the system's lock was free: it is not at work
        {"pid": 1, "host": socket.gethostname(), "namespace": "pid:[1]", "started": "1"},  # a container that is gone
        {"pid": os.getppid(), "host": socket.gethostname()},  # as the first version wrote it
        {"pid": "?"},
        [],
    ],
)
def test_a_note_of_the_dead_is_no_obstacle(tmp_path: Path, note: object) -> None:
    RunFolder.open(tmp_path).close()
    (tmp_path / NOTE).write_text(json.dumps(note))
    with RunFolder.open(tmp_path):
        mine = Holder.read(tmp_path / NOTE)
        assert mine is not None
        assert mine.pid == os.getpid()
        assert mine.is_alive
        assert not mine.is_dead
    assert not (tmp_path / NOTE).exists()


def test_a_command_in_the_note_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path):
        mine = Holder.read(tmp_path / NOTE)
        assert mine is not None
        other = mine.model_copy(update={"pid": os.getppid(), "command": "cai \x1b[2J run", "since": "\x1b[31m"})
        (tmp_path / NOTE).write_text(other.model_dump_json())
        with pytest.raises(StoreError) as caught:
            RunFolder.open(tmp_path)
    assert "\x1b" not in str(caught.value)
