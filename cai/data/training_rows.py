"""Training rows back from files: ours, and those of others in the usual forms.

Preference rows with an explicit prompt (`prompt`, `chosen`, `rejected`), with the prompt inside both conversations, or as
hh-rlhf transcripts; supervised rows with `messages`, or `prompt` and `completion`. Strict: data to train on has no bad rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from cai.data.prompts import parse_messages
from cai.data.rows import TOOLS
from cai.data.tables import container_of, raw_rows
from cai.data.text_files import BadRow, RawRow, kind_of
from cai.data.tool_messages import looks_like_tools, parse_tools, with_checked_tools
from cai.data.transcripts import looks_like_transcript, parse_transcript, split_exchange
from cai.errors import DataError
from cai.records import PreferenceRecord, SFTRecord
from cai.tool_calls import checked_reply
from constitution.messages import Conversation, Message, user
from constitution.tool_text import reply_text

_ASKING = frozenset({"user", "tool"})
"""Who speaks last before a reply."""
LARGEST_MARGIN = 20.0
"""Nats that stand for certainty, when a file says how sure it is of a label but not by what margin."""

SHOWN_PROBLEMS = 10
Made = TypeVar("Made")


def read_preference_rows(path: Path | str) -> tuple[PreferenceRecord, ...]:
    """Pairs to train on. A row without `p_chosen` is a certain label (1.0); one without `uid` is named by its place.

    Raises:
        DataError: For a missing, unreadable or empty file, and for bad rows, all of them with place and cause.
    """
    return tuple(_read(path, preference_of))


def read_sft_rows(path: Path | str) -> Iterator[SFTRecord]:
    """Supervised rows to train on, one by one: the last assistant turn is the reply, what is before it the prompt.

    Raises:
        DataError: As `read_preference_rows`; for bad rows when all rows have been read.
    """
    return _read(path, supervised_of)


def rows_in_stream(path: Path) -> Iterator[tuple[RawRow, PreferenceRecord | SFTRecord] | BadRow]:
    """Rows of either kind as they stand in a file, each beside what it means, or why it means nothing; read one by one.

    Raises:
        DataError: If the file as a whole cannot be read.
    """
    for row in raw_rows(str(path), container_of(str(path))):
        if isinstance(row, BadRow):
            yield row
            continue
        make = preference_of if {"chosen", "rejected"} & row.values.keys() else supervised_of
        try:
            yield row, make(row)
        except ValueError as error:
            yield BadRow(row.place, "no_training_row", problem_of(error))


def samples_of(row: RawRow) -> tuple[Conversation, tuple[str, ...]]:
    """Prompt and replies of a row that holds several samples: `prompt`, and `completions` as texts or assistant messages.

    Raises:
        ValueError: If the row is in another form.
    """
    prompt, completions = row.values.get("prompt"), row.values.get("completions")
    if prompt is None or not isinstance(completions, list) or not completions:
        raise ValueError("several samples are a prompt and a list of completions, one at least")
    turns = _conversation("prompt", prompt)
    if not turns or turns[-1].role not in _ASKING:
        raise ValueError("the prompt does not end with a user turn")
    replies = [_reply("completions", each) for each in cast("list[Any]", completions)]
    named = {f"completion {at}": reply for at, reply in enumerate(replies, start=1)}
    return _with_tools(turns, row.values, named), tuple(replies)


def problem_of(error: ValueError) -> str:
    """What is wrong with a row, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _read(path: Path | str, make: Callable[[RawRow], Made]) -> Iterator[Made]:
    made = bad = 0
    problems: list[str] = []

    def refuse(place: str, problem: str) -> None:
        nonlocal bad
        bad += 1
        if len(problems) < SHOWN_PROBLEMS:
            problems.append(f"- {place}: {problem}")

    for row in raw_rows(str(path), container_of(str(path))):
        if isinstance(row, BadRow):
            refuse(row.place, row.detail)
            continue
        try:
            record = make(row)
        except ValueError as error:
            refuse(row.place, problem_of(error))
            continue
        made += 1
        yield record
    if bad:
        more = [f"- … and {bad - len(problems)} more"] if bad > len(problems) else []
        text = "\n".join([f"{path}: {bad} of {bad + made} rows cannot be trained on:", *problems, *more])
        raise DataError(text, "Mend or remove these rows.")
    if not made:
        raise DataError(f"{path}: no rows in it.", "Give a file with at least one row.")


def json_line(values: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON."""
    try:
        return json.dumps(values, ensure_ascii=False, default=str).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair has no UTF-8 form; JSON can escape it
        return json.dumps(values, default=str).encode() + b"\n"


def preference_of(row: RawRow) -> PreferenceRecord:
    """A pair, in any of the usual forms.

    Raises:
        ValueError: If the row is none.
    """
    values = row.values
    prompt, chosen, rejected = answers_of(values)
    p_chosen = number_of(values, "p_chosen", 1.0)
    if not 0 <= p_chosen <= 1:
        raise ValueError(f"p_chosen is {p_chosen:g}, and no probability")
    if p_chosen < 0.5:  # swapped in silence, a column that means something else would turn all labels round
        raise ValueError(
            f"p_chosen {p_chosen:g} says that the rejected reply is the better one: swap both, with p_chosen {1 - p_chosen:g}"
        )
    log_odds = LARGEST_MARGIN if p_chosen == 1 else min(LARGEST_MARGIN, math.log(p_chosen / (1 - p_chosen)))
    return PreferenceRecord(
        uid=uid_of(row),
        replica=values.get("replica") or 0,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        number=values.get("number") or 0,
        chosen_source=values.get("chosen_source") or "sample",
        rejected_source=values.get("rejected_source") or "sample",
        p_chosen=p_chosen,
        margin_nats=number_of(values, "margin_nats", log_odds),
        method=values.get("method") or "letters",
        principle_ids=tuple(values.get("principle_ids") or ()),
    )


def answers_of(values: dict[str, Any]) -> tuple[Conversation, str, str]:
    """Prompt, chosen and rejected answer of a preference row, in whichever of the usual forms it is.

    Raises:
        ValueError: If it is in none of them.
    """
    missing = [name for name in ("chosen", "rejected") if values.get(name) is None]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)}; the row has {', '.join(values) or 'nothing'}")
    prompt, chosen, rejected = _pair(values)
    if not prompt or prompt[-1].role not in _ASKING:
        raise ValueError("the prompt does not end with a user turn")
    return _with_tools(prompt, values, {"chosen": chosen, "rejected": rejected}), chosen, rejected


def _pair(values: dict[str, Any]) -> tuple[Conversation, str, str]:
    if values.get("prompt") is not None:
        prompt = _conversation("prompt", values["prompt"])
        return prompt, _reply("chosen", values["chosen"]), _reply("rejected", values["rejected"])
    chosen, rejected = (split_exchange(_conversation(name, values[name])) for name in ("chosen", "rejected"))
    if chosen.prompt != rejected.prompt:
        raise ValueError("chosen and rejected do not share their prompt")
    if chosen.reply is None or rejected.reply is None:
        raise ValueError("chosen or rejected does not end with an assistant turn")
    return chosen.prompt, chosen.reply, rejected.reply


def supervised_of(row: RawRow) -> SFTRecord:
    """A supervised row, in any of the usual forms.

    Raises:
        ValueError: If the row is none.
    """
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
    if not prompt or prompt[-1].role not in _ASKING:
        raise ValueError("no user turn stands before the reply")
    prompt = _with_tools(prompt, values, {"reply": reply})
    return SFTRecord(
        uid=uid_of(row),
        replica=values.get("replica") or 0,
        messages=prompt,
        reply=reply,
        source=row.place,
    )


def _with_tools(prompt: Conversation, values: dict[str, Any], replies: Mapping[str, str]) -> Conversation:
    """The prompt with the tools of its row; replies, by what they are called, call these with arguments that fit."""
    tools = parse_tools(values[TOOLS]) if looks_like_tools(values.get(TOOLS)) else ()
    found = with_checked_tools(prompt, tools)
    for name, reply in replies.items():
        checked = checked_reply(reply, tools) if tools else None
        if checked is not None and checked.problem:
            raise ValueError(f"{name}: {checked.problem}")
    return found


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
    return reply_text(messages[0])


def number_of(values: dict[str, Any], name: str, default: float) -> float:
    """A value that is a finite number, or the default where there is none.

    Raises:
        ValueError: If it is anything else.
    """
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, not a finite number")
    return float(value)


def uid_of(row: RawRow) -> str:
    """What the row is called, or its place where it has no name."""
    value = row.values.get("uid")
    return row.place if value is None or value == "" else str(value)
