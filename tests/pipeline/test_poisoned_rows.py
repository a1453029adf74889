"""One poisoned row, of whatever kind and in whatever file, is one counted failure, and the run goes on with the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkpoints import make_checkpoint
from whole_runs import write_config

from cai.config import read_config
from cai.pipeline import open_session, read_inputs, run
from cai.records import Outcome, Stage

GOOD = [f"Tell me about number {n}." for n in range(6)]
LONG = "All work and no play. " * 400
MEGABYTE = "x y z " * 175_000
CONTROL = "<|im_start|><|im_end|>"
NOT_UTF8 = b"caf\xe9"


def as_jsonl(path: Path) -> dict[str, int]:
    """Poisoned lines among good ones; returns how often each failure is due."""
    answered = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    poison = [
        json.dumps({"prompt": LONG}).encode(),
        json.dumps({"prompt": MEGABYTE}).encode(),
        b'{"prompt": ""}',
        b'{"prompt": "' + NOT_UTF8 + b'"}',
        json.dumps({"prompt": answered}).encode(),
        json.dumps({"prompt": CONTROL}).encode(),
        b'{"prompt": "half a pair \\ud83d"}',
        b'["no", "object"]',
        b"42",
        b'{"prompt": "cut sho',
    ]
    good = [json.dumps({"prompt": each}).encode() for each in GOOD]
    path.write_bytes(b"\n".join([*good[:3], *poison, *good[3:], b""]))
    return {
        "draft: prompt_too_long": 2,
        "read: empty_prompt": 1,
        "read: not_utf8": 1,
        "read: ends_with_assistant": 1,
        "read: only_control_tokens": 1,
        "read: bad_text": 1,
        "read: wrong_type": 2,
        "read: broken_json": 1,
    }


def as_csv(path: Path) -> dict[str, int]:
    poison = [LONG.encode(), MEGABYTE.encode(), b'" "', NOT_UTF8, CONTROL.encode(), b"two,cells", b'"broken"quote']
    path.write_bytes(b"\n".join([b"prompt", *(each.encode() for each in GOOD[:3]), *poison, *(g.encode() for g in GOOD[3:])]))
    return {
        "draft: prompt_too_long": 2,
        "read: empty_prompt": 1,
        "read: not_utf8": 1,
        "read: only_control_tokens": 1,
        "read: wrong_number_of_cells": 1,
        "read: broken_csv": 1,
    }


def as_parquet(path: Path) -> dict[str, int]:
    conversations = [[("user", each.encode())] for each in GOOD]
    poison = [
        [("user", LONG.encode())],
        [("user", MEGABYTE.encode())],
        [("user", b"")],
        [("user", NOT_UTF8)],
        [("user", b"Hi."), ("assistant", b"Hello.")],
        [("user", CONTROL.encode())],
        [],
        None,
    ]
    rows = [
        None if each is None else [{"role": role, "content": content} for role, content in each]
        for each in [*conversations[:3], *poison, *conversations[3:]]
    ]
    # Written as bytes and declared to be text, as careless programs do.
    raw = pa.array(rows, pa.list_(pa.struct([("role", pa.string()), ("content", pa.binary())])))
    texts = pa.StructArray.from_arrays(
        [raw.values.field("role"), pa.Array.from_buffers(pa.string(), len(raw.values), raw.values.field("content").buffers())],
        ["role", "content"],
    )
    column = pa.ListArray.from_arrays(raw.offsets, texts, mask=raw.is_null())
    pq.write_table(pa.table({"messages": column}), path)
    return {
        "draft: prompt_too_long": 2,
        "read: empty_prompt": 3,
        "read: not_utf8": 1,
        "read: ends_with_assistant": 1,
        "read: only_control_tokens": 1,
    }


@pytest.mark.parametrize(("name", "write"), [("p.jsonl", as_jsonl), ("p.csv", as_csv), ("p.parquet", as_parquet)])
def test_each_poisoned_row_is_one_counted_failure_and_the_others_are_finished(
    tmp_path: Path, name: str, write: Callable[[Path], dict[str, int]]
) -> None:
    due = write(tmp_path / name)
    prompts = {"path": str(tmp_path / name), "max_bad_share": 0.9, "tags": ["claims", "questions"]}
    config = write_config(tmp_path, make_checkpoint(tmp_path / "model"), prompts, holdout_share=0.0, dpo=None)
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        summary = run(session, until=Stage.EXPORT)
    failed = {reason: count for (outcome, reason), count in summary.reasons.items() if outcome is Outcome.FAILED}
    assert failed == due
    assert summary.ledger[Outcome.PAIR] + summary.ledger[Outcome.KEPT] == len(GOOD)
    assert summary.ledger[Outcome.PENDING] == summary.ledger[Outcome.FILTERED] == 0
