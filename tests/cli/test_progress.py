"""Progress as people and programs see it: real runs on a pseudo-terminal, in a pipe, as JSON, and from another process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from cli.conftest import Cai
from rich.console import Console
from whole_runs import cai as cai_process
from whole_runs import environment, write_config, write_prompts

from cai.cli.progress_lines import JsonLines, PlainLines
from cai.cli.quantities import between, duration, memory
from cai.cli.stage_table import stage_table
from cai.pipeline.events import Ended, Estimate, Figures, StageProgress
from cai.store import RunFolder
from cai.store.standing import Standing, read_standing

OVERLONG = "word " * 3000
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;5;\d+)(?:;\d+)*m")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Terminal:
    """A command with a terminal of 80 × 24 on stderr; stdout is a pipe."""

    process: subprocess.Popen[bytes]
    screen: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        return self.screen.decode(errors="replace")


@contextlib.contextmanager
def on_a_terminal(*arguments: object, **extra: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    variables = environment() | {"TERM": "xterm-256color", **extra}
    variables.pop("COLUMNS", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "cai.cli", *map(str, arguments)], env=variables, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    terminal = Terminal(process)

    def read() -> None:
        with contextlib.suppress(OSError):  # the last end was closed
            while some := os.read(ours, 65536):
                terminal.screen.extend(some)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        reader.join(10)
        os.close(ours)


def until(wanted: Callable[[], Any], seconds: float = 240.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := wanted():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {wanted}")


def looked_at(run: Path) -> Standing | None:
    return read_standing(run) if (run / "run.sqlite").is_file() and (run / "progress.json").is_file() else None


def write_run(folder: Path, rows: int) -> Path:
    """A run whose second prompt is too long for the model, so that one row fails for a known cause."""
    model = make_checkpoint(folder / "model")
    prompts = write_prompts(folder / "prompts.jsonl", rows)
    lines = prompts.read_text().splitlines(keepends=True)
    lines[1:1] = [json.dumps({"prompt": OVERLONG}) + "\n"]
    prompts.write_text("".join(lines))
    long = {"max_tokens": 48}
    loop = {"draft": long, "critique": {"temperature": 0.0, **long}, "revision": {"temperature": 0.7, **long}}
    return write_config(folder, model, prompts, dpo=None, holdout_share=0.0, loop=loop)


@pytest.mark.slow
def test_a_run_is_watched_from_outside_killed_and_goes_on_with_events_that_add_up_to_the_ledger(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, 150), tmp_path / "run"
    with on_a_terminal("run", config) as terminal:
        until(
            lambda: (
                (s := looked_at(run))
                and s.heartbeat
                and s.heartbeat.stages
                and "draft" in s.calls
                and "tokens/s" in terminal.text
            )
        )
        terminal.process.send_signal(signal.SIGSTOP)  # so that all that looks at it sees the same
        standing = read_standing(run)
        assert standing.activity == "working"
        assert standing.heartbeat is not None
        assert standing.holder is not None
        assert standing.holder.pid == standing.heartbeat.pid == terminal.process.pid
        stages = standing.heartbeat.stages
        assert stages
        assert standing.quiet_s is not None
        assert standing.quiet_s < 30
        assert standing.committed_s_ago < 30
        assert sum(standing.rows.values()) == 151
        told = cai_process("status", run)
        assert told.returncode == 0, told.stderr
        assert f"process {terminal.process.pid} on" in told.stdout
        assert all(re.search(rf"{each.stage} .*{each.done}", told.stdout) for each in stages), told.stdout
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
        assert read_standing(run).activity == "killed"
    assert "draft" in terminal.text

    done = cai_process("run", config, "--json")
    assert done.returncode == 3, done.stderr  # one row has failed
    result = json.loads(done.stdout)
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    stages = {event["stage"]: event for event in events if event["event"] == "stage"}
    rows = [event for event in events if event["event"] == "rows"]
    assert events[-1]["event"] == "end"
    assert events[-1]["state"] == "finished"
    assert rows[-1]["phase"] == "label"
    assert rows[-1]["rows"] == result["ledger"]
    assert sum(rows[-1]["rows"].values()) == 151
    assert {"outcome": "failed", "reason": "draft: prompt_too_long", "rows": 1} in rows[-1]["reasons"]
    figures = [event for event in events if event["event"] == "figures"][-1]
    assert figures["failed_calls"] == {"draft: prompt_too_long": 1}
    assert stages["draft"]["done"] == stages["draft"]["total"] == 151
    assert stages["critique"]["done"] == 151 - 1  # the failed row has none
    assert all(event["ended"] and event["done"] == event["total"] for event in stages.values())
    with RunFolder.open(run, read_only=True) as folder:
        stored = folder.usage()
    calls = figures["calls"]
    assert calls["draft"]["calls"] + calls["draft"]["reused"] == 151
    assert calls["draft"]["reused"] > 0  # what the killed process had finished
    assert {name: each["calls"] + each["reused"] for name, each in calls.items() if name in {"draft", "critique"}} == {
        name: stored[name].calls for name in ("draft", "critique")
    }
    after = json.loads(cai_process("status", run, "--json").stdout)
    assert after["activity"] == "finished"
    assert after["rows"] == result["ledger"]
    assert after["calls"]["draft"]["calls"] == stored["draft"].calls
    assert after["holder"] is None


def test_on_a_terminal_the_table_keeps_to_its_width_and_results_stay_on_stdout(tmp_path: Path) -> None:
    config = write_run(tmp_path, 20)
    with on_a_terminal("generate", config, NO_COLOR="1") as terminal:
        assert terminal.process.stdout is not None
        out = terminal.process.stdout.read().decode()
        assert terminal.process.wait(240) == 3
        until(lambda: "21/21" in terminal.text)
    assert "What became of 21 input rows" in out
    assert "\x1b" not in out
    assert not COLOUR.search(terminal.text)
    assert "1 draft: prompt_too_long" in terminal.text
    lines = [CONTROL.sub("", line) for line in re.split(r"[\r\n]+", terminal.text)]
    assert max(map(len, lines)) <= 80
    # Drawn over, not cleared: no frame blanks the screen.
    assert "\x1b[2J" not in terminal.text
    assert terminal.text.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_without_a_terminal_there_are_plain_lines(tmp_path: Path, cai: Cai) -> None:
    done = cai("generate", write_run(tmp_path, 20))
    assert done.code == 3
    assert "\x1b" not in done.err
    assert re.search(r"^draft +21/21  \d+ s", done.err, re.MULTILINE), done.err
    assert re.search(r"^generate: rows 1 failed, 20 pending$", done.err, re.MULTILINE), done.err
    assert re.search(r"^finished: memory .*, calls \d+ made, 0 remembered", done.err, re.MULTILINE), done.err
    assert "failed: 1 draft: prompt_too_long" in done.err


HOSTILE = StageProgress("judge \x1b[31m[bold]", 3, 9, "\x1b]0;title\x07 \r", eta=Estimate(50, 200), per_second=0.4)
FIGURES = Figures(
    prompt_tokens=100,
    reused_tokens=300,
    prompt_tokens_per_s=1234.5,
    completion_tokens_per_s=5.6,
    occupancy=0.83,
    waiting=3,
    running=8,
    rss_bytes=2**31,
    gpu_bytes=2**33,
    gpu_total_bytes=2**37,
    failed_calls={"draft: \x1b[2Jbad": 2},
)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 140])
def test_hostile_names_steer_no_terminal_and_narrow_ones_are_not_overrun(width: int) -> None:
    out = Console(file=StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    out.print(stage_table([HOSTILE] * 40, FIGURES, width, 24))
    assert isinstance(out.file, StringIO)
    text = out.file.getvalue()
    assert not set(CONTROL.findall(text)) - {"\x1b[1m", "\x1b[2m", "\x1b[0m"}
    assert "\x07" not in text
    assert "\r" not in text
    lines = [CONTROL.sub("", line) for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24 + (4 if width == 20 else 0)  # so narrow, the figures take more lines
    assert "3/9" in text
    assert ("1–3 min left" in text) is (width >= 40)
    assert ("━" in text) is (width >= 60)
    if width >= 80:
        assert "0.4/s" in text
        assert "tokens/s in 1,234 out 5.6, batch 83% full, 8 in work, 3 waiting" in text
        assert "75% of prompt tokens reused" in text
        assert "GPU 8.0 GiB of 128.0 GiB" in text.replace("\n", " ")


def test_lines_for_people_and_programs_hold_no_control_characters() -> None:
    for form in (PlainLines, JsonLines):
        lines: list[str] = []
        shown = form(lines.append)
        shown.show(FIGURES)
        shown.show(HOSTILE)
        shown.message("\x1b[31m")
        shown.show(Ended("failed", "\x1b[31m"))
        assert lines
        assert all(line.isprintable() for line in lines)


def test_json_tells_a_busy_stage_seldom_and_its_end_always() -> None:
    lines: list[str] = []
    shown = JsonLines(lines.append)
    for done in range(1, 1001):
        shown.show(StageProgress("draft", done, 1000))
        shown.show(Figures(completion_tokens=done))
    shown.show(StageProgress("draft", 1000, 1000, ended=True))
    shown.show(Ended("finished"))
    events = [json.loads(line) for line in lines]
    assert len(events) < 20
    assert [event["event"] for event in events[-3:]] == ["stage", "figures", "end"]
    assert events[-3]["done"] == events[-2]["completion_tokens"] == 1000


@pytest.mark.parametrize(
    ("low_s", "high_s", "words"),
    [
        (12 * 60, 15 * 60, "12–15 min"),
        (8, 12, "8–12 s"),
        (50, 200, "1–3 min"),
        (20, 130, "20 s – 2 min"),
        (720, 730, "12 min"),
        (3000, 9000, "0.8–2.5 h"),
        (40, None, "over 40 s"),
        (0.2, 0.3, "0 s"),
    ],
)
def test_an_estimate_is_told_with_both_ends(low_s: float, high_s: float | None, words: str) -> None:
    assert between(Estimate(low_s, high_s)) == words


def test_times_and_amounts_are_told_shortly() -> None:
    assert [duration(s) for s in (0.4, 59, 60, 125, 3600, 12_000, 200_000)] == [
        "0 s",
        "59 s",
        "1 min",
        "2 min 5 s",
        "1 h",
        "3 h 20 min",
        "2 d 7 h",
    ]
    assert [memory(b) for b in (0, 2048, 3 * 2**20, 5 * 2**29)] == ["0 B", "2 KiB", "3.0 MiB", "2.5 GiB"]


def test_a_folder_without_a_run_has_no_status(tmp_path: Path, cai: Cai) -> None:
    done = cai("status", tmp_path)
    assert done.code == 1
    assert "no run in this folder" in done.err


def test_a_refusal_before_anything_was_begun_leaves_the_last_word_to_the_error() -> None:
    lines: list[str] = []
    PlainLines(lines.append).show(Ended("failed", "no such file"))
    assert lines == []
