"""LLaMA-Factory (checked against 0.9.5): `sharegpt` rows, `ranking: true` for preferences, and their `dataset_info.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

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
    turns,
)
from cai.data.rows import Row
from cai.records import PreferenceRecord

_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
_CUTOFF = Limit("LLaMA-Factory", "cutoff_len", 2048, "cut, prompt and reply in proportion")


def _preference(pair: PreferenceRecord, _: Notes) -> Row:
    return {
        "conversations": _spoken(turns(pair.prompt)),
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        **origin(pair),
    }


def _supervised(row: Row, _: Notes) -> Row:
    return {"conversations": _spoken(row["messages"]), **row_origin(row)}


def _spoken(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    body = messages[1:] if messages[0]["role"] == "system" else messages
    if any(each["role"] != ("user", "assistant")[number % 2] for number, each in enumerate(body)):
        raise Unfit("turns do not alternate user and assistant after one system turn at most: LLaMA-Factory would skip it")
    return [{"from": _SPEAKERS[each["role"]], "value": each["content"]} for each in messages]


def _dataset_info(files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    about: dict[str, Any] = {}
    for table, parts in files.items():
        for split, path in parts.items():
            name = f"cai_{table}" if split == "train" else f"cai_{table}_{split}"
            about[name] = {"file_name": path, "formatting": "sharegpt", "columns": {"messages": "conversations"}}
            if table == "preferences":
                about[name]["ranking"] = True
                about[name]["columns"] |= {"chosen": "chosen", "rejected": "rejected"}
    return {"dataset_info.json": json.dumps(about, indent=2, sort_keys=True) + "\n"}


LLAMA_FACTORY = ExportFormat(
    name="llama-factory",
    title="LLaMA-Factory: sharegpt rows with `dataset_info.json`",
    container="jsonl",
    pairs=(
        Table(
            "preferences",
            _preference,
            {
                "conversations": "the conversation so far, as `from` (human, gpt, system) and `value`",
                **REPLY_COLUMNS,
            },
            "`stage: dpo` (or `rm`), `dataset_dir: THIS FOLDER`, `dataset: cai_preferences`; the file is {file}",
            _CUTOFF,
            SoftLabels.BESIDE,
        ),
    ),
    supervised=(
        Table(
            "sft",
            _supervised,
            {
                "conversations": "the conversation with the reply to learn as its last turn, as `from` and `value`",
                **ROW_ORIGIN_COLUMNS,
            },
            "`stage: sft`, `dataset_dir: THIS FOLDER`, `dataset: cai_sft`, `mask_history: true`; the file is {file}",
            _CUTOFF,
        ),
    ),
    system_turns="kept where it is the first turn; another one leaves the row out",
    options=("With `mask_history: true` LLaMA-Factory learns the last reply only; without, all of the assistant's turns.",),
    extras=_dataset_info,
)
