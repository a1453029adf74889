"""Rows of exports: in the form that each project publishes, with all texts, and loadable."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported_rows import ALL, exported, rows_in
from labelled_runs import PAIRS

ORIGIN = {"p_chosen": float, "label_source": str, "uid": str, "replica": int, "number": int}
TURN = {"role": str, "content": str}
SCHEMAS: dict[str, dict[str, Any]] = {
    # TRL, "Dataset formats and types": preference with an explicit prompt, with an implicit one, prompt-completion.
    "trl/preferences": {"prompt": [TURN], "chosen": [TURN], "rejected": [TURN], **ORIGIN, "margin_nats": float}
    | {"chosen_source": str, "rejected_source": str, "method": str, "principle_ids": [str]},
    "trl/reward": {"chosen": [TURN], "rejected": [TURN], "margin": float, **ORIGIN},
    "trl/sft": {"prompt": [TURN], "completion": [TURN], "uid": str, "replica": int},
    "trl-standard/preferences": {"prompt": str, "chosen": str, "rejected": str, **ORIGIN},
    "trl-standard/sft": {"prompt": str, "completion": str, "uid": str, "replica": int},
    # axolotl, "RLHF": `chat_template.default`; "Conversation": `chat_template` with `message_field_training`.
    "axolotl/preferences": {"messages": [TURN], "chosen": TURN, "rejected": TURN, **ORIGIN},
    "axolotl/sft": {"messages": [{**TURN, "train": bool}], "uid": str, "replica": int},
    # LLaMA-Factory, data/README.md: "Preference Dataset" and "Supervised Fine-Tuning Dataset" of the sharegpt format.
    "llama-factory/preferences": {"conversations": [{"from": str, "value": str}]}
    | {"chosen": {"from": str, "value": str}, "rejected": {"from": str, "value": str}, **ORIGIN},
    "llama-factory/sft": {"conversations": [{"from": str, "value": str}], "uid": str, "replica": int},
    # alignment-handbook, scripts/README.md.
    "alignment-handbook/preferences": {"chosen": [TURN], "rejected": [TURN], **ORIGIN},
    "alignment-handbook/sft": {"messages": [TURN], "uid": str, "replica": int},
    # hh-rlhf's own rows.
    "hh-rlhf/preferences": {"chosen": str, "rejected": str},
    # Inverse CAI, annotated pairs 2.0.
    "inverse-cai/annotated_pairs": {"id": str, "prompt": str, "response_a": {"text": str}, "response_b": {"text": str}}
    | {"annotations": None, "metadata": {"p_chosen": str, "label_source": str, "uid": str, "replica": str, "number": str}},
}
PLAIN = {
    "preferences": SCHEMAS["trl/preferences"],
    "sft": {"messages": [TURN], "uid": str, "replica": int, "changed": bool, "principle_ids": [str]},
}
for plain in ("jsonl", "parquet", "datasets"):
    SCHEMAS |= {f"{plain}/{name}": schema for name, schema in PLAIN.items()}


def fits(value: Any, schema: Any) -> bool:
    """Whether a value has exactly this form, no key more and none less."""
    if schema is None:
        return True
    if isinstance(schema, dict):
        return isinstance(value, dict) and set(value) == set(schema) and all(fits(value[key], schema[key]) for key in schema)
    if isinstance(schema, list):
        return isinstance(value, list) and bool(value) and all(fits(each, schema[0]) for each in value)
    return type(value) is schema


@ALL
def test_every_row_has_the_published_form_and_no_null(name: str, run: Path, tmp_path: Path) -> None:
    outcome = exported(run, name, tmp_path / "out")
    assert outcome.written()
    for each in outcome.written():
        (path,) = each.files.values()
        rows = rows_in(tmp_path / "out" / path)
        assert len(rows) == each.total > 0
        for row in rows:
            assert fits(row, SCHEMAS[f"{name}/{each.table.name}"]), row
        assert "null" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", json.dumps(rows))


@ALL
def test_every_column_is_described_and_nothing_else_is(name: str, run: Path, tmp_path: Path) -> None:
    for each in exported(run, name, tmp_path / "out").written():
        (file,) = each.files.values()
        described = {column for names in each.table.columns for column in names.split(", ")}
        assert described == set(rows_in(tmp_path / "out" / file)[0])


@ALL
def test_every_pair_of_an_item_is_written_with_its_texts(name: str, run: Path, tmp_path: Path) -> None:
    outcome = exported(run, name, tmp_path / "out")
    pairs = outcome.written()[0]
    text = json.dumps(rows_in(tmp_path / "out" / next(iter(pairs.files.values()))), ensure_ascii=False)
    assert pairs.total == (3 if name == "hh-rlhf" else 4)
    for pair in PAIRS if name != "hh-rlhf" else PAIRS[1:]:
        for reply in (pair.chosen, pair.rejected):
            assert json.dumps(reply, ensure_ascii=False)[1:-1] in text


@ALL
def test_equal_records_are_equal_bytes(name: str, run: Path, tmp_path: Path) -> None:
    """Of `datasets` folders too, but for the fingerprints that the library draws."""
    for folder in ("a", "b"):
        exported(run, name, tmp_path / folder, test_share=0.4)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 2
    for each in files:
        if each.suffix != ".arrow" and (name != "datasets" or each.name == "README.md"):
            assert (tmp_path / "a" / each).read_bytes() == (tmp_path / "b" / each).read_bytes(), each


@ALL
def test_datasets_loads_each_configuration_that_the_card_names(name: str, run: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    outcome = exported(run, name, tmp_path / "out")
    front = yaml.safe_load((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert [each["config_name"] for each in front["configs"]] == [each.table.name for each in outcome.written()]
    for each in outcome.written():
        loaded: Any = load_dataset(str(tmp_path / "out"), each.table.name, cache_dir=str(tmp_path / "cache"))
        rows = sum(len(part) for part in loaded.values())
        assert rows == (1 if name == "inverse-cai" else each.total)  # one object, as that format is


@pytest.mark.parametrize("name", ["jsonl", "parquet", "datasets", "trl"])
def test_our_own_commands_read_the_pairs_back_with_their_soft_labels(name: str, run: Path, tmp_path: Path) -> None:
    from cai.data.training_rows import read_preference_rows

    outcome = exported(run, name, tmp_path / "out")
    back = read_preference_rows(tmp_path / "out" / outcome.written()[0].files["train"])
    assert [(p.prompt, p.chosen, p.rejected, p.p_chosen) for p in back] == [
        (p.prompt, p.chosen, p.rejected, p.p_chosen) for p in PAIRS
    ]
