"""The folder of an export: whole or not there, and never in place of anything else."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from exported_rows import direct, exported
from labelled_runs import labelled_pair

from cai.data.exporting import Choices, Source, format_named, write_export
from cai.data.exporting.folders import LIST_NAME
from cai.errors import StoreError
from cai.records import PreferenceRecord


def test_an_earlier_export_is_replaced_and_nothing_else_is(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(run, "trl", out)
    exported(run, "hh-rlhf", out)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", LIST_NAME, "preferences.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (out / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(StoreError, match=r"somebody else's \(mine.txt\)"):
        exported(run, "trl", out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    other = tmp_path / "other"
    other.mkdir()
    exported(run, "hh-rlhf", other)
    assert (other / "preferences.jsonl").is_file()


@pytest.mark.parametrize("there", ["file", "folder", "run"])
def test_what_is_not_ours_is_left_alone(there: str, run: Path, tmp_path: Path) -> None:
    out = run if there == "run" else tmp_path / "out"
    if there == "file":
        out.write_text("text")
    elif there == "folder":
        (out / "deep").mkdir(parents=True)
        (out / "deep" / "data.jsonl").write_text("{}")
    with pytest.raises(StoreError, match=r"a file, not a folder|not an export of this program"):
        exported(run, "trl", out)
    assert not list(out.parent.glob(".*cai-part"))


def _killed_export(run: Path, out: Path) -> None:
    def pairs() -> Iterator[PreferenceRecord]:
        yield labelled_pair("one")
        os.kill(os.getpid(), signal.SIGKILL)

    write_export(Source(pairs, lambda: iter(())), format_named("trl"), out, Choices(), lambda _: "")


def _export_with_limit(run: Path, out: Path, limit_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        direct([labelled_pair(str(n), chosen="x" * 1000) for n in range(500)], "trl", out)
    except StoreError as error:
        os._exit(7 if "no space left" in str(error) else 8)
    os._exit(0)


def test_a_kill_leaves_nothing_under_the_name_and_the_next_export_clears_up(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fork = multiprocessing.get_context("fork")
    exported(run, "hh-rlhf", out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    killed = fork.Process(target=_killed_export, args=(run, out))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert len(list(tmp_path.glob(".out.*"))) == 1
    exported(run, "trl", out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_said_and_leaves_the_earlier_export(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(run, "hh-rlhf", out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    process = multiprocessing.get_context("fork").Process(target=_export_with_limit, args=(run, out, 100_000))
    process.start()
    process.join()
    assert process.exitcode == 7
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
