"""axolotl (checked against 0.19): `rl: dpo` with `chat_template.default`, and `type: chat_template` for supervised rows."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import yaml

from cai.data.exporting.formats import (
    REPLY_COLUMNS,
    ROW_ORIGIN_COLUMNS,
    ExportFormat,
    Limit,
    Notes,
    SoftLabels,
    Table,
    Unfit,
    origin,
    row_origin,
    turn,
    turns,
)
from cai.data.rows import Row
from cai.records import PreferenceRecord

SEARCHED_BEFORE_THE_REPLY = "user\n[[dummy_message]]\nassistant\nmodel"
"""axolotl renders a reply after a user turn of its own, `[[dummy_message]]`, and searches it in the text: what stands in that
text before the reply, it finds there."""
STRIPPED = "space around a reply taken off: templates that trim would keep axolotl from finding the reply again"
_LIMIT = Limit("axolotl", "sequence_len", 512, "left out")


def _preference(pair: PreferenceRecord, notes: Notes) -> Row:
    chosen, rejected = pair.chosen.strip(), pair.rejected.strip()
    for reply in (chosen, rejected):
        if not reply:
            raise Unfit("an empty reply, for which axolotl would train on its own dummy turn")
        if reply in SEARCHED_BEFORE_THE_REPLY:
            raise Unfit("a reply that axolotl would find in the chat template's own text")
    if (chosen, rejected) != (pair.chosen, pair.rejected):
        notes[STRIPPED] += 1
    return {
        "messages": turns(pair.prompt),
        "chosen": turn("assistant", chosen),
        "rejected": turn("assistant", rejected),
        **origin(pair),
    }


def _supervised(row: Row, _: Notes) -> Row:
    messages = row["messages"]
    marked = [{**each, "train": number == len(messages) - 1} for number, each in enumerate(messages)]
    return {"messages": marked, **row_origin(row)}


def _snippets(files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    shared: dict[str, Any] = {
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
    }
    settings: dict[str, dict[str, Any]] = {
        "preferences": {
            "type": "chat_template.default",
            **shared,
            "field_chosen": "chosen",
            "field_rejected": "rejected",
        },
        "sft": {
            "type": "chat_template",
            **shared,
            "roles_to_train": [],
            "message_field_training": "train",
            "train_on_eos": "turn",
        },
    }
    head = "# Paste into your axolotl configuration. Paths are relative to where axolotl is started.\n"
    snippets: dict[str, str] = {}
    for table, parts in files.items():
        content: dict[str, Any] = {"rl": "dpo"} if table == "preferences" else {}
        for split, key in (("train", "datasets"), ("test", "test_datasets")):
            if split in parts:
                content[key] = [{"path": parts[split], "split": "train", **deepcopy(settings[table])}]
        snippets[f"axolotl-{table}.yml"] = head + yaml.safe_dump(content, sort_keys=False)
    return snippets


AXOLOTL = ExportFormat(
    name="axolotl",
    title="axolotl: DPO and supervised rows by the chat template",
    container="jsonl",
    pairs=(
        Table(
            "preferences",
            _preference,
            {"messages": "the conversation so far", **REPLY_COLUMNS},
            "paste `axolotl-preferences.yml` into the configuration; its `path` is {file}",
            _LIMIT,
            SoftLabels.BESIDE,
        ),
    ),
    supervised=(
        Table(
            "sft",
            _supervised,
            {
                "messages": "the conversation; `train` says of each turn whether it is learned: the last one is",
                **ROW_ORIGIN_COLUMNS,
            },
            "paste `axolotl-sft.yml` into the configuration; its `path` is {file}",
            _LIMIT,
        ),
    ),
    options=(
        "axolotl leaves out what is longer than `sequence_len` (512 when it is not set): set it, or `excess_length_strategy`.",
    ),
    extras=_snippets,
)
