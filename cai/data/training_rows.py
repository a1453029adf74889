"""Training rows back from files: ours, and those of others in the usual forms.

Preference rows with an explicit prompt (`prompt`, `chosen`, `rejected`), with the prompt inside both conversations, or as
hh-rlhf transcripts; supervised rows with `messages`, or `prompt` and `completion`. Strict: data to train on has no bad rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from cai.data.prompts import parse_messages
from cai.data.tables import container_of, raw_rows
from cai.data.text_files import BadRow, RawRow, kind_of
from cai.data.transcripts import looks_like_transcript, parse_transcript, split_exchange
from cai.errors import DataError
from cai.records import PreferenceRecord, SFTRecord
from constitution.messages import Message, user

LARGEST_MARGIN = 20.0
"""Nats that stand for certainty, when a file says how sure it is of a label but not by what margin."""

SHOWN_PROBLEMS = 10
Made = TypeVar("Made")


def read_preference_rows(path: Path) -> tuple[PreferenceRecord, ...]:
    """Pairs to train on. A row without `p_chosen` is a certain label (1.0); one without `uid` is named by its place.

    Raises:
        DataError: For a missing, unreadable or empty file, and for bad rows, all of them with place and cause.
    """
    return _read(path, _preference)


def read_sft_rows(path: Path) -> tuple[SFTRecord, ...]:
    """Supervised rows to train on: the last assistant turn is the reply, what is before it the prompt.

    Raises:
        DataError: As `read_preference_rows`.
    """
    return _read(path, _supervised)


def _read(path: Path, make: Callable[[RawRow], Made]) -> tuple[Made, ...]:
    made: list[Made] = []
    problems: list[str] = []
    for row in raw_rows(str(path), container_of(str(path))):
        if isinstance(row, BadRow):
            problems.append(f"{row.place}: {row.detail}")
            continue
        try:
            made.append(make(row))
        except ValidationError as error:
            first = error.errors()[0]
            problems.append(f"{row.place}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
        except ValueError as error:
            problems.append(f"{row.place}: {error}")
    if problems:
        shown = [f"- {problem}" for problem in problems[:SHOWN_PROBLEMS]]
        if len(problems) > SHOWN_PROBLEMS:
            shown.append(f"- … and {len(problems) - SHOWN_PROBLEMS} more")
        text = "\n".join([f"{path}: {len(problems)} of {len(problems) + len(made)} rows cannot be trained on:", *shown])
        raise DataError(text, "Mend or remove these rows.")
    if not made:
        raise DataError(f"{path}: no rows in it.", "Give a file with at least one row.")
    return tuple(made)


def _preference(row: RawRow) -> PreferenceRecord:
    values = row.values
    missing = [name for name in ("chosen", "rejected") if values.get(name) is None]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)}; the row has {', '.join(values) or 'nothing'}")
    prompt, chosen, rejected = _pair(values)
    if not prompt or prompt[-1].role != "user":
        raise ValueError("the prompt does not end with a user turn")
    p_chosen = _number(values, "p_chosen", 1.0)
    certain = p_chosen >= 1.0
    log_odds = LARGEST_MARGIN if certain else min(LARGEST_MARGIN, math.log(p_chosen / (1 - p_chosen)) if p_chosen > 0 else 0.0)
    return PreferenceRecord(
        uid=_uid(row),
        replica=values.get("replica") or 0,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        chosen_source=values.get("chosen_source") or "sample",
        p_chosen=p_chosen,
        margin_nats=_number(values, "margin_nats", log_odds),
        method=values.get("method") or "letters",
        principle_ids=tuple(values.get("principle_ids") or ()),
    )


def _pair(values: dict[str, Any]) -> tuple[tuple[Message, ...], str, str]:
    if values.get("prompt") is not None:
        prompt = _conversation("prompt", values["prompt"])
        return prompt, _reply("chosen", values["chosen"]), _reply("rejected", values["rejected"])
    chosen, rejected = (split_exchange(_conversation(name, values[name])) for name in ("chosen", "rejected"))
    if chosen.prompt != rejected.prompt:
        raise ValueError("chosen and rejected do not share their prompt")
    if chosen.reply is None or rejected.reply is None:
        raise ValueError("chosen or rejected does not end with an assistant turn")
    return chosen.prompt, chosen.reply, rejected.reply


def _supervised(row: RawRow) -> SFTRecord:
    values = row.values
    if values.get("messages") is not None:
        exchange = split_exchange(_conversation("messages", values["messages"]))
        prompt, reply = exchange.prompt, exchange.reply
    elif values.get("prompt") is not None and values.get("completion") is not None:
        prompt, reply = _conversation("prompt", values["prompt"]), _reply("completion", values["completion"])
    else:
        raise ValueError(f"neither messages nor prompt and completion; the row has {', '.join(values) or 'nothing'}")
    if reply is None:
        raise ValueError("the conversation does not end with an assistant turn: there is nothing to learn")
    if not prompt or prompt[-1].role != "user":
        raise ValueError("no user turn stands before the reply")
    return SFTRecord(uid=_uid(row), replica=values.get("replica") or 0, messages=prompt, reply=reply)


def _conversation(name: str, value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        return parse_transcript(value) if looks_like_transcript(value) else (user(value),)
    if isinstance(value, list):
        return parse_messages(cast("Any", value))
    raise ValueError(f"{name} is {kind_of(value)}, neither text nor a list of messages")


def _reply(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    messages = _conversation(name, value)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise ValueError(f"beside a prompt, {name} is one assistant message; here it is {len(messages)} messages")
    return messages[0].content


def _number(values: dict[str, Any], name: str, default: float) -> float:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, not a finite number")
    return float(value)


def _uid(row: RawRow) -> str:
    value = row.values.get("uid")
    return row.place if value is None or value == "" else str(value)
