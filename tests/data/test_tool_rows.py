"""Conversations with tools in rows: read in the forms people have, refused with all that is wrong, and written for trainers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_tool_checkpoint
from datasets import Dataset, load_dataset, load_from_disk
from transformers import AutoTokenizer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from cai.data.exporting import FORMATS, Choices, Source, write_export
from cai.data.prompts import PromptsSource, read_items
from cai.data.rows import preference_row, sft_rows, write_rows
from cai.data.training_rows import read_preference_rows, read_sft_rows
from cai.errors import DataError
from cai.models.chat import ChatTokenizer
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from cai.records import PreferenceRecord, RevisionRecord, Round, Verdict
from constitution.messages import Message, Tool, system, tool_call, tools_of, user, with_tools

DELETE: dict[str, Any] = {
    "name": "delete",
    "description": "Delete for good.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}
MOVE: dict[str, Any] = {
    "name": "move",
    "description": "",
    "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
}
OPENAI = [{"type": "function", "function": DELETE}, {"type": "function", "function": MOVE}]
TOOLS = (
    Tool(name="delete", description="Delete for good.", parameters=json.dumps(DELETE["parameters"])),
    Tool(name="move", parameters=json.dumps(MOVE["parameters"])),
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Clean up."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "delete", "arguments": '{"path": "a"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "gone"},
    {"role": "user", "content": "And b?"},
]
CALLED = Message(role="assistant", content="", tool_calls=(tool_call("delete", {"path": "a"}, "c1"),))
READ = with_tools(
    (
        system("Be brief."),
        user("Clean up."),
        CALLED,
        Message(role="tool", content="gone", name="delete", tool_call_id="c1"),
        user("And b?"),
    ),
    TOOLS,
)
CALL = '<tool_call>\n{"name": "delete", "arguments": {"path": "b"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "move", "arguments": {"to": "bin"}}\n</tool_call>'


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def pair(chosen: str, rejected: str, number: int = 0) -> PreferenceRecord:
    return PreferenceRecord(
        uid=f"p{number}", prompt=READ, chosen=chosen, rejected=rejected, chosen_source="revision", rejected_source="draft",
        margin_nats=1.0, p_chosen=0.75, method="letters", principle_ids=("ask",),
    )  # fmt: skip


PAIRS = [pair("Shall I delete b?", CALL), pair(OTHER, CALL, 1)]
PLAIN = pair("Good morning to you.", "What do you want now?", 2).model_copy(update={"prompt": (user("Hi"),)})
MENDED = Round(round=0, principle_id="ask", critique="Fault: x", verdict=Verdict.FAULT, revision=f"Into the bin.\n\n{OTHER}")
RECORDS = [
    RevisionRecord(
        uid="r",
        messages=READ,
        draft=CALL,
        rounds=(MENDED,),
    ),
    RevisionRecord(uid="q", messages=(user("Hi"),), draft="Hello.", rounds=()),
]


@pytest.mark.parametrize("tools", [OPENAI, [DELETE, MOVE], json.dumps(OPENAI)])
def test_rows_with_tools_are_read_in_the_forms_in_which_people_have_them(tmp_path: Path, tools: Any) -> None:
    ours = [
        TALK[0],
        TALK[1],
        {**TALK[2], "tool_calls": [{"id": "c1", "function": {"name": "delete", "arguments": {"path": "a"}}}]},
        *TALK[3:],
    ]
    for messages in (TALK, ours):
        (item,) = read_items(PromptsSource(path=str(write(tmp_path / "p.jsonl", {"messages": messages, "tools": tools})))).items
        assert item.messages == READ
        assert item.facts == {}


def test_a_system_message_for_all_prompts_keeps_the_tools_and_who_the_item_is(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "Clean up.", "tools": OPENAI}, {"prompt": "Clean up."})
    with_system = read_items(PromptsSource(path=str(path), system="Be kind.")).items
    without = read_items(PromptsSource(path=str(path))).items
    assert tools_of(with_system[0].messages) == TOOLS
    assert with_system[0].messages[0].content == "Be kind."
    assert [each.uid for each in with_system] == [each.uid for each in without]
    assert without[0].uid != without[1].uid


def test_a_column_of_that_name_that_holds_no_tools_is_a_fact_as_ever(tmp_path: Path) -> None:
    for value in ("hammer", ["hammer"], [], {"a": 1}):
        (item,) = read_items(PromptsSource(path=str(write(tmp_path / "p.jsonl", {"prompt": "Hi", "tools": value})))).items
        assert (item.messages, item.facts) == ((user("Hi"),), {"tools": value})


def calling(*calls: Any) -> dict[str, Any]:
    return {**TALK[2], "tool_calls": list(calls)}


WIPE, BARE, BROKEN = (
    {"function": {"name": name, "arguments": given}} for name, given in (("wipe", {}), ("delete", {}), ("delete", "{"))
)
NESTED: Any = {}
for _ in range(400):
    NESTED = {"x": NESTED}
BAD: list[tuple[list[Any], Any, str, list[str]]] = [
    (
        TALK[:2],
        [{"name": "a b"}, {"type": "function", "function": 3}, DELETE, DELETE],
        "tools",
        ["tool 1: name", "tool 2: its `function` is a number", "'delete' is defined twice"],
    ),
    (TALK[:2], [{"name": "f", "parameters": {"type": 3}}], "tools", ["no JSON Schema"]),
    (TALK, None, "tool_calls", ["the row has no `tools`"]),
    (
        [*TALK[:2], calling(WIPE, BARE), TALK[4]],
        OPENAI,
        "tool_calls",
        ["message 3: there is no tool 'wipe'", "message 3: delete: $: 'path' is a required property"],
    ),
    ([*TALK[:2], {"role": "tool", "content": "x"}], OPENAI, "tool_calls", ["message 3: a tool's result that answers no call"]),
    ([*TALK[:3], {**TALK[3], "tool_call_id": "c9"}], OPENAI, "tool_calls", ["message 4: a tool's result"]),
    ([*TALK[:2], calling(BROKEN, 5)], OPENAI, "tool_calls", ["call 1:", "call 2:"]),
    (
        [*TALK[:3], {**TALK[3], "name": "move"}, TALK[4]],
        OPENAI,
        "tool_calls",
        ["a result of 'move' answers a call of 'delete'"],
    ),
    (TALK[:2], [{"name": "f", "parameters": {"properties": NESTED}}], "tools", ["tool 1: nested too deeply"]),
    ([], OPENAI, "empty_prompt", ["empty"]),
    (TALK[:3], OPENAI, "ends_with_assistant", ["ends with the assistant"]),
]


@pytest.mark.parametrize(("messages", "tools", "cause", "words"), BAD)
def test_a_row_with_broken_tools_is_one_failure_that_tells_all_of_it(
    tmp_path: Path, messages: Any, tools: Any, cause: str, words: list[str]
) -> None:
    row = {"messages": messages} | ({"tools": tools} if tools else {})
    path = write(tmp_path / "p.jsonl", *({"messages": TALK[:2]} for _ in range(40)), row)
    (failure,) = read_items(PromptsSource(path=str(path))).failures
    assert (failure.uid, failure.cause) == ("p.jsonl:41", cause)
    for each in words:
        assert each in failure.detail


def test_rows_come_back_from_every_container_as_they_were(tmp_path: Path) -> None:
    """Story: a table gives every call the arguments of all calls, as nulls."""
    pairs = [*PAIRS, PLAIN]
    for suffix in ("jsonl", "parquet"):
        path = tmp_path / f"pairs.{suffix}"
        write_rows(path, map(preference_row, [PLAIN, *pairs]), "preferences")
        back = read_preference_rows(path)
        assert [(each.chosen, each.rejected) for each in back] == [(each.chosen, each.rejected) for each in [PLAIN, *pairs]]
        assert [tools_of(each.prompt) for each in back] == [(), TOOLS, TOOLS, ()]
        assert back[1].prompt[2].tool_calls[0].values == {"path": "a"}
        supervised = tmp_path / f"sft.{suffix}"
        write_rows(supervised, sft_rows(RECORDS), "sft")
        assert [each.reply for each in read_sft_rows(supervised)] == [f"Into the bin.\n\n{OTHER}", "Hello."]
    padded = Dataset.from_list(json.loads(json.dumps([preference_row(each) for each in PAIRS])))
    padded.save_to_disk(str(tmp_path / "d"))
    rows = list(load_from_disk(str(tmp_path / "d")))
    path = write(tmp_path / "padded.jsonl", *rows)
    assert [each.chosen for each in read_preference_rows(path)] == [each.chosen for each in PAIRS]


def test_rows_without_tools_are_written_to_the_byte_as_ever(tmp_path: Path) -> None:
    row = preference_row(PLAIN)
    assert row["prompt"] == [{"role": "user", "content": "Hi"}]
    assert row["chosen"] == [{"role": "assistant", "content": "Good morning to you."}]
    assert "tools" not in row
    write_rows(tmp_path / "a.parquet", [row], "preferences")
    assert str(
        load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path)).features[
            "prompt"
        ]
    ) == ("List({'content': Value('string'), 'role': Value('string')})")


def test_training_rows_whose_replies_call_wrongly_are_refused(tmp_path: Path) -> None:
    row = preference_row(PAIRS[1])
    row["chosen"][0]["tool_calls"][0]["function"] = {"name": "delete", "arguments": {}}
    with pytest.raises(DataError, match=r"chosen: delete: .*'path' is a required property"):
        read_preference_rows(write(tmp_path / "p.jsonl", row))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tool_checkpoint(tmp_path_factory.mktemp("m"))


def test_trl_trains_on_the_exports_with_the_tokens_that_ours_does(tmp_path: Path, checkpoint: Path) -> None:
    """`load_dataset` as the card says, TRL's own tokenising, and our encoder: one and the same."""
    source = Source(pairs=lambda: iter([*PAIRS, PLAIN]), supervised=lambda: sft_rows(RECORDS))
    write_export(source, FORMATS["trl"], tmp_path / "out", Choices(), lambda _: "")
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    chat = ChatTokenizer(tokenizer)
    model: Any = load_model(ModelSpec(name=str(checkpoint), dtype="float32", device="cpu")).model

    def loaded(name: str) -> Any:
        return load_dataset("json", data_files=str(tmp_path / "out" / name), split="train", cache_dir=str(tmp_path / "cache"))

    shared: dict[str, Any] = {
        "output_dir": str(tmp_path / "t"),
        "report_to": "none",
        "use_cpu": True,
        "max_length": None,
        "max_steps": 1,
    }
    dpo: Any = DPOTrainer(
        model, args=DPOConfig(**shared), train_dataset=loaded("preferences.jsonl"), processing_class=tokenizer
    )
    rows = list(dpo.train_dataset)
    for row, record in zip(rows, [*PAIRS, PLAIN], strict=True):
        prompt, chosen = chat.encode_reply(record.prompt, record.chosen)
        assert row["prompt_ids"] == prompt
        assert row["chosen_ids"][: len(chosen)] == chosen
        assert (
            row["rejected_ids"][: len(chat.encode_reply(record.prompt, record.rejected)[1])]
            == chat.encode_reply(record.prompt, record.rejected)[1]
        )
    dpo.train()
    sft: Any = SFTTrainer(model, args=SFTConfig(**shared), train_dataset=loaded("sft.jsonl"), processing_class=tokenizer)
    for row, record in zip(list(sft.train_dataset), RECORDS, strict=True):
        prompt, reply = chat.encode_reply(record.messages, record.final)
        assert row["input_ids"][: len(prompt) + len(reply)] == [*prompt, *reply]
    sft.train()


def test_formats_without_a_place_for_calls_leave_such_rows_out_and_say_so(tmp_path: Path) -> None:
    source = Source(pairs=lambda: iter([*PAIRS, PLAIN]), supervised=lambda: sft_rows(RECORDS))
    for name in ("axolotl", "llama-factory", "trl-standard"):
        outcome = write_export(source, FORMATS[name], tmp_path / name, Choices(), lambda _: "")
        assert [each.total for each in outcome.tables] == [1, 1]
        assert any("2 rows left out: a conversation with tools" in line for line in outcome.told()), list(outcome.told())
