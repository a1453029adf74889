"""Pushes to a hub on this machine, through huggingface_hub's own code: one commit, or none and in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from labelled_runs import write_labelled_run
from small_hub_writer import TOKEN, Hub, serve_writable_hub

from cai.data.exporting import format_named
from cai.data.hub import check_push
from cai.errors import DataError
from cai.pipeline.run_exports import export_run


def surroundings(address: str, home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_OFFLINE"))}
    return {**kept, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def pushed(folder: Path, hub: Hub, home: Path, *asked: dict[str, Any]) -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("push_client.py")), str(folder)],
        input="".join(f"{json.dumps(each)}\n" for each in asked),
        env=surroundings(hub.address, home, PYTHONPATH=str(Path(__file__).resolve().parents[2])),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def command(*arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "cai.cli", "export", *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_pushes_the_folder_in_one_commit_and_never_says_the_token(tmp_path: Path) -> None:
    run = write_labelled_run(tmp_path / "run")
    with serve_writable_hub() as hub:
        environment = surroundings(hub.address, tmp_path / "home", HF_TOKEN=TOKEN)
        out = tmp_path / "out"
        done = command(run, "--to", "trl", "-o", out, "--push", "me/pairs", "--private", environment=environment)
        assert done.returncode == 0, done.stderr
    assert hub.repositories["me/pairs"]["type"] == "dataset"
    assert hub.repositories["me/pairs"]["visibility"] == "private"
    assert hub.commits == [("me/pairs", {path.name: path.read_bytes() for path in out.iterdir()})]
    assert f"Pushed: {hub.address}/datasets/me/pairs/commit/" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


def test_what_the_hub_refuses_is_said_and_no_file_is_there(tmp_path: Path) -> None:
    run = write_labelled_run(tmp_path / "run")
    export_run(run, format_named("trl"), tmp_path / "out")
    with serve_writable_hub() as hub:
        hub.failing = 400
        wrong, others, broken = pushed(
            tmp_path / "out",
            hub,
            tmp_path / "home",
            {"repository": "me/pairs", "token": "hf_" + "x" * 34},
            {"repository": "others/pairs", "token": TOKEN},
            {"repository": "me/pairs", "token": TOKEN},
        )
    assert "hf auth login" in wrong["problem"]
    assert "may not write there" in others["problem"]
    assert "the hub refuses it" in broken["problem"]
    assert not hub.commits
    assert list(hub.repositories) == ["me/pairs"]


def test_what_is_to_be_private_does_not_go_into_a_repository_that_all_can_see(tmp_path: Path) -> None:
    run = write_labelled_run(tmp_path / "run")
    export_run(run, format_named("jsonl"), tmp_path / "out")
    again = {"repository": "me/pairs", "token": TOKEN}
    with serve_writable_hub() as hub:
        first, second, private = pushed(tmp_path / "out", hub, tmp_path / "home", again, again, {**again, "private": True})
    assert first["address"] == second["address"]
    assert "is there already, and everybody can see it" in private["problem"]
    assert len(hub.commits) == 2


def test_an_unreachable_hub_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = write_labelled_run(tmp_path / "run")
    with serve_writable_hub() as hub:
        address = hub.address
    environment = surroundings(address, tmp_path / "home", HF_TOKEN=TOKEN)
    done = command(run, "--to", "trl", "-o", tmp_path / "out", "--push", "me/pairs", environment=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("cai: --push me/pairs: the hub cannot be reached"), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_offline_and_impossible_names_are_refused_without_a_word_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set; nothing was written or sent"):
        check_push("me/pairs")
    with pytest.raises(DataError, match="not a name of the hub"):
        check_push("me/pairs/more")
