"""alignment-handbook (checked against 0.3.0): whole conversations in splits `train_prefs`, `test_prefs`, `train_sft` …

There is no `prompt` column: beside a list of messages its recipes take `chosen` for the bare reply, beside a text TRL does.
Without one, both find the prompt that the two conversations share.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from cai.data.exporting.formats import (
    CONVERSATION_COLUMNS,
    ROW_ORIGIN_COLUMNS,
    ExportFormat,
    Limit,
    Notes,
    SoftLabels,
    Table,
    row_origin,
    whole_conversations,
)
from cai.data.rows import Row
from cai.records import PreferenceRecord


def _preference(pair: PreferenceRecord, _: Notes) -> Row:
    return whole_conversations(pair)


def _supervised(row: Row, _: Notes) -> Row:
    return {"messages": row["messages"], **row_origin(row)}


def _recipes(files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    head = "# Paste into a recipe of the alignment-handbook; PATH is this folder, or its name on the hub.\n"
    return {
        f"recipe-{table}.yaml": head
        + yaml.safe_dump(
            {"dataset_mixer": {"PATH": 1.0}, "dataset_configs": [table], "dataset_splits": list(parts)}, sort_keys=False
        )
        for table, parts in files.items()
    }


ALIGNMENT_HANDBOOK = ExportFormat(
    name="alignment-handbook",
    title="alignment-handbook: whole conversations in its splits",
    container="jsonl",
    pairs=(
        Table(
            "preferences",
            _preference,
            CONVERSATION_COLUMNS,
            "paste `recipe-preferences.yaml` into the recipe; the file is {file}",
            Limit("the handbook's DPOTrainer (TRL's)", "max_length", 1024, "cut at their end"),
            SoftLabels.BESIDE,
        ),
    ),
    supervised=(
        Table(
            "sft",
            _supervised,
            {"messages": "the conversation with the reply to learn as its last turn", **ROW_ORIGIN_COLUMNS},
            "paste `recipe-sft.yaml` into the recipe; the file is {file}",
            Limit("the handbook's SFTTrainer (TRL's)", "max_length", 1024, "cut at their end"),
        ),
    ),
    options=(
        "Its supervised recipe learns whole conversations, the users' turns included.",
        "Its recipes expect a test split: give `--split`, or name the training split alone as here.",
    ),
    split_names={"preferences": ("train_prefs", "test_prefs"), "sft": ("train_sft", "test_sft")},
    extras=_recipes,
)
