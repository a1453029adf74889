"""Supervised training as a stage of a run: all rounds, rows of one's own mixed in, and what the plan says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from whole_runs import write_config, write_prompts

from cai.config import read_config
from cai.data.rows import sft_records
from cai.errors import ProblemList
from cai.pipeline import open_session, plan, read_inputs, run
from cai.pipeline.exporting import review_of
from cai.pipeline.preflight import Inputs
from cai.records import Stage

SFT: dict[str, Any] = {"epochs": 1, "batch_rows": 8, "learning_rate": 1e-3, "lora": {"r": 4, "alpha": 8}, "rounds": "all"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def write_rows(path: Path, *prompts: str) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt, "completion": "So it is."}) + "\n" for prompt in prompts))
    return path


def inputs_of(config: Path) -> Inputs:
    return read_inputs(read_config(config, (), {}).config)


def test_all_rounds_and_ones_own_rows_are_trained_on_and_planned(tmp_path: Path, llama: Path) -> None:
    """The prompts of the run are among the rows to mix in: those held out may not be learned, the others may."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 16)
    asked = [row["prompt"] for row in map(json.loads, prompts.open()) if isinstance(row["prompt"], str)]
    helpful = write_rows(tmp_path / "helpful.jsonl", *dict.fromkeys(asked))
    loop = {"rounds": 2, "draft": {"max_tokens": 8}, "critique": {"max_tokens": 8}, "revision": {"max_tokens": 8}}
    mix = [{"path": str(helpful), "share": 0.9}]
    config = write_config(tmp_path, llama, prompts, loop=loop, dpo=None, sft=SFT | {"mix": mix})

    (before,) = [stage for stage in plan(inputs_of(config), until=Stage.SFT).stages if stage.stage is Stage.SFT]
    assert f"90.0% of what is learned will be from {helpful}" in before.why
    with open_session(inputs_of(config)) as session:
        summary = run(session, until=Stage.SFT)
        records = list(review_of(session).records_of(session.folder, rounds="all"))
        own = list(sft_records(records, rounds="all"))
        held_out = {item.messages[-1].content for item in session.inputs.held_out_items}
        held_out |= set(session.inputs.config.evaluation.showcase)
    result = summary.training[Stage.SFT]
    (mixed,) = result.mixed
    assert len({(row.uid, row.replica, row.round) for row in own}) == len(own) > len(records)
    assert result.trained_rows + sum(row.kind == "row" for row in result.dropped) == len(own) + mixed.rows
    refused = [row for row in result.dropped if row.kind == "mixed"]
    assert {row.reason for row in refused} == {"held_out"}
    lines = helpful.read_text().splitlines()
    told = {json.loads(lines[int(row.uid.rpartition(":")[2]) - 1])["prompt"] for row in refused}
    assert told == held_out & set(asked)
    assert told
    assert mixed.exhausted
    (after,) = [stage for stage in plan(inputs_of(config), until=Stage.SFT).stages if stage.stage is Stage.SFT]
    assert after.state == "finished"
    assert f"{mixed.rows} rows mixed in are {mixed.share:.1%} of what is learned: {helpful}" in after.why
    page = summary.report.read_text()
    assert f"mixed in from {helpful}" in page

    with helpful.open("a") as file:
        file.write('{"prompt": "Another?", "completion": "Yes."}\n')
    (changed,) = [stage for stage in plan(inputs_of(config), until=Stage.SFT).stages if stage.stage is Stage.SFT]
    assert (changed.state, changed.why.partition(";")[0]) == ("to do", "rows or settings changed")


def test_bad_rows_of_ones_own_stop_a_run_before_it_starts(tmp_path: Path, llama: Path) -> None:
    rows = write_rows(tmp_path / "helpful.jsonl", "q")
    with rows.open("a") as file:
        file.write('{"prompt": "no reply"}\n')
    mix = [{"path": str(rows), "share": 0.2}, {"path": str(tmp_path / "none.jsonl"), "share": 0.2}]
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "prompts.jsonl"), sft=SFT | {"mix": mix})
    with pytest.raises(ProblemList) as caught:
        inputs_of(config)
    text = str(caught.value)
    assert "sft.mix[0]" in text
    assert "helpful.jsonl:2" in text
    assert "sft.mix[1]" in text
    assert "none.jsonl: no such file" in text
