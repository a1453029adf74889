"""The example of an assistant that acts only with leave: its commands run, its hook decides, and its log survives and tells."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fences import blocks
from whole_runs import cai_here

from cai.data.training_rows import read_preference_rows
from cai.engines.base import GenerationRequest
from cai.engines.scripted import ScriptedEngine
from cai.records import Outcome, RecordKind, RevisionRecord
from cai.store import RunFolder
from constitution.messages import Conversation, Message, ToolCall, tool_call, tools_of
from constitution.tool_text import call_text, read_reply

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "examples" / "agent"
COMMANDS = [line for block in blocks(FOLDER / "README.md") if block.kind == "sh" for line in block.commands]
DELETE = call_text(tool_call("delete_file", {"path": "trip/notes-old.txt"}))
LIST = call_text(ToolCall(name="list_files"))


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agent", FOLDER / "agent.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["agent"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("examples", "principles"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    return tmp_path


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def acted(example: ModuleType, path: Path, replies: list[str], approve: Any) -> tuple[Conversation, Any]:
    """What came of it when a policy says these things one after the other."""
    left = iter(replies)
    engine = ScriptedEngine(lambda _: next(left))
    world, log = example.small_world(), example.AuditLog(path)
    try:
        return example.act(example.Session(engine, world.perform, approve, log), example.begin("Tidy up.")), world
    finally:
        log.close()


def test_the_command_of_the_readme_deletes_nothing_without_leave(here: Path) -> None:
    name, *arguments = shlex.split(COMMANDS[0])
    assert name == "python"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error: not allowed: nobody is there to approve it" in done.stdout
    assert [each["event"] for each in entries(here / "audit.jsonl")] == ["allowed", "done", "refused"]


def test_the_run_of_the_readme_takes_conversations_with_tools_through_the_pipeline(here: Path) -> None:
    name, *arguments = shlex.split(COMMANDS[1])
    assert name == "cai"
    done = cai_here(*arguments, cwd=here)
    assert done.returncode == 0, done.stderr
    with RunFolder.look_at(here / "runs" / "agent") or pytest.fail("no run") as folder:
        counts = folder.ledger_counts()
        records = list(folder.records(RecordKind.REVISION, RevisionRecord))
    assert (counts[Outcome.FAILED], counts[Outcome.PENDING], sum(counts.values())) == (0, 0, 8)
    assert all(tools_of(each.messages) for each in records)
    assert any(read_reply(each.draft).message.tool_calls for each in records)
    pairs = read_preference_rows(here / "runs" / "agent" / "datasets" / "preferences.jsonl")
    assert len(pairs) == counts[Outcome.PAIR] > 0
    assert all(tools_of(each.prompt) for each in pairs)


def test_what_the_hook_turns_down_is_not_done_and_the_model_is_told_why(example: ModuleType, tmp_path: Path) -> None:
    asked: list[ToolCall] = []

    def approve(call: ToolCall, talk: Conversation) -> str | None:
        asked.append(call)
        assert talk[-1].role in {"user", "tool"}
        return "deleting needs a person" if call.name == "delete_file" else None

    bin_it = call_text(tool_call("move_to_bin", {"path": "trip/notes-old.txt"}))
    talk, world = acted(example, tmp_path / "a.jsonl", [LIST, DELETE, bin_it, "It is in the bin."], approve)
    assert [each.name for each in asked] == ["delete_file", "move_to_bin"], "what only reads is not asked about"
    assert "error: not allowed: deleting needs a person" in [each.content for each in talk if each.role == "tool"]
    assert [each.deed for each in world.events] == ["binned"]
    found = [(each["event"], each.get("tool")) for each in entries(tmp_path / "a.jsonl")]
    assert found[:2] == [("allowed", "list_files"), ("done", "list_files")]
    assert found[2:] == [("refused", "delete_file"), ("approved", "move_to_bin"), ("done", "move_to_bin")]
    assert example.AuditLog.check(tmp_path / "a.jsonl") == ""
    assert talk[-1] == Message(role="assistant", content="It is in the bin.")


def test_a_hook_that_raises_and_calls_that_cannot_be_made_let_nothing_through(example: ModuleType, tmp_path: Path) -> None:
    def broken(_: ToolCall, __: Conversation) -> str | None:
        raise KeyError("x")

    wrong = '<tool_call>{"name": "delete_file", "arguments": {"path": 3}}</tool_call>'
    replies = [DELETE, wrong, '<tool_call>{"name": "wipe"}</tool_call>', "<tool_call>{", "I give up."]
    talk, world = acted(example, tmp_path / "a.jsonl", replies, broken)
    assert world.events == []
    assert [each.get("by", each["event"]) for each in entries(tmp_path / "a.jsonl")] == [
        "approval",
        "schema",
        "schema",
        "unreadable",
    ]
    assert talk[-1].content == "I give up."
    endless, _ = acted(example, tmp_path / "b.jsonl", [LIST] * 99, lambda *_: None)
    assert endless[-1].content.startswith("I stopped after")


def test_a_changed_or_shortened_log_is_found_out_and_half_a_line_is_not(example: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    acted(example, path, [LIST, DELETE, "Done."], lambda *_: None)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"approved", b"refused!"))
    assert "line 4" in example.AuditLog.check(path)
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
    assert "line 1" in example.AuditLog.check(path)
    path.write_bytes(whole + b'{"event": "appr')
    acted(example, path, ["Nothing to do."], lambda *_: None)
    acted(example, path, [LIST, "Done."], lambda *_: None)
    assert example.AuditLog.check(path) == ""
    assert path.read_bytes().startswith(whole)


KILLED = """
import os, signal, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from pathlib import Path
import agent
from constitution.messages import ToolCall
log = agent.AuditLog(Path(sys.argv[3]))
def perform(call):
    os.kill(os.getpid(), signal.SIGKILL)
from cai.engines.scripted import ScriptedEngine
session = agent.Session(ScriptedEngine({"": sys.argv[4]}), perform, lambda *_: None, log)
agent.act(session, agent.begin("x"))
"""


def test_what_was_decided_is_on_the_disk_before_it_is_done(example: ModuleType, tmp_path: Path) -> None:
    """Killed in the middle of a call, the log tells that the call was approved, and not that it is done."""
    path = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(FOLDER), str(REPOSITORY), str(path), DELETE], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [(each["event"], each["tool"]) for each in entries(path)] == [("approved", "delete_file")]
    assert example.AuditLog.check(path) == ""


def test_the_example_policy_of_the_readme_is_a_hook(example: ModuleType) -> None:
    (block,) = [each for each in blocks(FOLDER / "README.md") if each.kind == "python"]
    names: dict[str, Any] = {}
    exec(block.text, names)
    assert names["approve"](read_reply(DELETE).message.tool_calls[0], example.begin("x")) == "deleting needs a person"
    assert names["approve"](ToolCall(name="list_files"), example.begin("x")) is None
    assert isinstance(GenerationRequest(example.begin("x"), example.GREEDY, "k"), GenerationRequest)
