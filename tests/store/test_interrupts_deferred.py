"""Ctrl-C while a run is closed loses nothing: it waits until what is finished is on the disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cai.store import RunFolder, StoredCall
from cai.store.interrupts import deferred_interrupts


def test_an_interrupt_waits_until_the_block_is_left_and_is_raised_then() -> None:
    reached: list[str] = []

    def interrupted() -> None:
        with deferred_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end of the block")
        reached.append("what comes after it")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == ["the end of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_calls_that_wait_are_written_although_ctrl_c_comes_while_the_run_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cai.store.calls.COMMIT_SECONDS", 600.0)  # they wait for the end, however slow the machine is
    run = RunFolder.open(tmp_path / "run")
    flush = run.calls.flush

    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        flush()
        os.kill(os.getpid(), signal.SIGINT)

    run.calls.flush = interrupted
    run.calls.add(StoredCall("key", "generate", "draft", '"finished"'))
    with pytest.raises(KeyboardInterrupt):
        run.close()
    with RunFolder.open(tmp_path / "run") as again:
        assert set(again.calls.find(["key"])) == {"key"}
