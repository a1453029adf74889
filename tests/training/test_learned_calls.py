"""Training on replies that call tools, by a template that knows them: each learns the tokens of the template's own calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_tool_checkpoint
from training_runs import DPO, SFT, metrics_of, spec_of
from transformers import AutoTokenizer

from cai.models.loading import load_tokenizer
from cai.models.tool_turns import definitions, template_turns
from cai.records import PreferenceRecord, SFTRecord
from cai.training.dpo import train_dpo
from cai.training.rows import encode_replies
from cai.training.sft import train_sft
from constitution.messages import Message, Tool, tool_call, user, with_tools
from constitution.tool_text import call_text, read_reply

DELETE = Tool(name="delete", parameters=json.dumps({"type": "object", "properties": {"path": {"type": "string"}}}))


def prompt(number: int) -> Any:
    return with_tools(
        (
            user(f"Clean up folder {number}."),
            Message(role="assistant", content="", tool_calls=(tool_call("delete", {"path": f"{number}/a"}),)),
            Message(role="tool", content="gone", name="delete"),
        ),
        (DELETE,),
    )


def called(number: int) -> str:
    return call_text(tool_call("delete", {"path": f"{number}/b"}))


ROWS = [SFTRecord(uid=f"r{n}", messages=prompt(n), reply=called(n) if n % 2 else "Shall I go on?") for n in range(8)]
PAIRS = [
    PreferenceRecord(
        uid=f"p{n}", prompt=prompt(n), chosen="Shall I go on?", rejected=called(n), chosen_source="revision",
        rejected_source="draft", p_chosen=0.9, margin_nats=2.0, method="pointwise", principle_ids=("ask",),
    )
    for n in range(8)
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tool_checkpoint(tmp_path_factory.mktemp("m"))


def test_each_row_is_the_templates_own_tokens_last_turn_or_all(checkpoint: Path) -> None:
    coder, own = load_tokenizer(spec_of(checkpoint)), AutoTokenizer.from_pretrained(checkpoint)
    turns: Any
    for turns, learned in (("last", 1), ("all", 2)):
        rows, dropped = encode_replies(ROWS, coder, SFT, 2048, kind="row", turns=turns)
        assert dropped == []
        for row, record in zip(rows, ROWS, strict=True):
            whole: Any = own.apply_chat_template(
                template_turns((*record.messages, read_reply(record.reply).message)),
                tools=definitions((DELETE,)), tokenize=True, return_dict=False,
            )  # fmt: skip
            (reply,) = row.group.replies
            ids = [*row.group.prompt_ids, *reply]
            assert ids == whole[: len(ids)]
            unscored = sum(end - start for start, end in row.group.unscored[0]) if row.group.unscored else 0
            assert len(reply) - unscored == sum(
                len(each) for _, each in coder.encode_turns(record.messages, record.reply)[-learned:]
            )


def test_models_learn_from_calls(checkpoint: Path, tmp_path: Path) -> None:
    made = [
        train_sft(spec_of(checkpoint), ROWS, SFT, tmp_path / "sft"),
        train_dpo(spec_of(checkpoint), PAIRS, (), DPO, tmp_path / "dpo"),
    ]
    for result in made:
        lines = metrics_of(result.folder)
        losses = [each["loss"] for each in lines if "loss" in each]
        assert losses
        assert all(0 < loss < 20 for loss in losses)
        assert result.dropped == ()
