"""Rows whose replies are to be judged."""

from __future__ import annotations

import json
from pathlib import Path

from cai.data.exchanges import Exchanges, NoExchange, exchange_of, exchanges_in
from cai.data.rows import TOOLS
from cai.records import SFTRecord
from constitution.messages import assistant, tools_of, user

DELETE = {
    "type": "function",
    "function": {
        "name": "delete_file",
        "description": "Delete a file.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}


def call(path: object) -> dict[str, object]:
    calls = [{"id": "a", "type": "function", "function": {"name": "delete_file", "arguments": {"path": path}}}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def rows(folder: Path, *values: object) -> list[Exchanges | NoExchange]:
    file = folder / "rows.jsonl"
    file.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in values))
    return list(exchanges_in(file))


def test_samples_of_a_row_with_tools_are_read_with_these_tools(tmp_path: Path) -> None:
    """They were rendered without, and judged in another context than the one they were written in."""
    asked = {"prompt": "Tidy up.", TOOLS: [DELETE]}
    several, one, wrong = rows(
        tmp_path,
        {**asked, "completions": [[call("a.txt")], "Shall I?"]},
        {**asked, "completion": [call("a.txt")]},
        {**asked, "completions": ["Shall I?", [call(7)]]},
    )
    assert isinstance(several, Exchanges)
    assert isinstance(one, Exchanges)
    assert [tool.name for tool in tools_of(several.prompt)] == ["delete_file"]
    assert several.prompt == one.prompt
    assert several.replies == (one.replies[0], "Shall I?")
    assert isinstance(wrong, NoExchange)
    assert wrong.detail.startswith("completion 2")


def test_every_row_has_its_place_and_what_it_held(tmp_path: Path) -> None:
    good, named, other, torn = rows(tmp_path, {"prompt": "Hi.", "completion": "No."}, {"uid": 0, "text": "x"}, [1], "{")
    assert isinstance(good, Exchanges)
    assert (good.place, good.uid, good.replies) == ("rows.jsonl:1", "rows.jsonl:1", ("No.",))
    for at, each in enumerate((named, other, torn), start=2):
        assert isinstance(each, NoExchange)
        assert each.place == f"rows.jsonl:{at}"
    assert isinstance(named, NoExchange)
    assert (named.values, named.cause) == ({"uid": 0, "text": "x"}, "no_conversation")
    assert isinstance(torn, NoExchange)
    assert torn.values == {"uid": "rows.jsonl:4"}


def test_a_reply_of_a_run_is_written_as_trainers_take_it() -> None:
    made = exchange_of(SFTRecord(uid="a", replica=1, messages=(user("Hi."),), reply="No."))
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "No."}]
    assert made.values == {"messages": turns, "uid": "a", "replica": 1}
    assert (*made.prompt, assistant(*made.replies)) == (user("Hi."), assistant("No."))
