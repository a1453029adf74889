"""Prompts from whatever people have: every row becomes an `Item` or a counted `FailureRecord`.

Text is data here: control tokens, `{{ }}` and markup pass through as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from cai.data.corpus import Corpus, StoredRows
from cai.data.rows import TOOLS
from cai.data.source import COLUMNS, PromptsSource
from cai.data.tables import container_of, nearest, raw_rows
from cai.data.text_files import BadRow, RawRow, kind_of
from cai.data.tool_messages import ToolError, looks_like_tools, parse_calls, parse_tools, with_checked_tools
from cai.data.transcripts import Exchange, common_prompt, looks_like_transcript, parse_transcript, split_exchange
from cai.errors import DataError
from cai.records import FailureRecord, Item
from cai.store.canonical import fingerprint
from constitution.messages import Message, Role, spelt, system, tools_of, with_tools

__all__ = ["PromptsSource", "ReadResult", "parse_messages", "read_items"]

STAGE = "read"
SHOWN_FAILURES = 5
ID_COLUMNS = ("uid", "id")
PEEKED_ROWS = 20
"""Columns are decided on the names found in so many first rows."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}

_CONTROL_TOKENS = re.compile(r"<\|[^<>|]*\|>|</?s>|\[/?INST\]|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>")
"""As the families of models write them. Among other words they are text (`cai.models.chat`); alone they ask for nothing."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a source gave. Rows read = items + failures (without `limit`; a shuffled limit leaves good rows aside).

    `prompts_differ` counts preference rows whose two transcripts do not share their whole prompt: they are items, with the
    part that is shared.
    """

    corpus: Corpus
    rows: int
    prompts_differ: int = 0

    @property
    def items(self) -> StoredRows[Item]:
        return self.corpus.items

    @property
    def failures(self) -> StoredRows[FailureRecord]:
        return self.corpus.failures


class RowError(ValueError):
    """What is wrong with one row: a slug and a sentence."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


def read_items(source: PromptsSource) -> ReadResult:
    """Read `source` once, row by row, into a corpus.

    A broken row becomes a failure with its place and cause, and reading goes on. Without `shuffle_seed`, `limit` ends reading.

    Raises:
        DataError: At once for a missing or empty file, a missing column, an encoding other than UTF-8; at the end if more than
            `max_bad_share` of the rows are broken.
    """
    wanted = None if source.format in {"auto", "transcripts"} else source.format
    container = container_of(source.path, wanted=cast("Any", wanted))
    rows = raw_rows(source.path, container, split=source.split)
    first = list(islice(rows, PEEKED_ROWS))
    if not first:
        raise DataError(f"{source.path}: no rows in it.", "Give a file with at least one prompt.")
    corpus = Corpus()
    reader = _Reader(source, _decided_columns(source, first), corpus)
    items = 0
    for row in reader.read(chain(first, rows)):
        corpus.add(row)
        items += isinstance(row, Item)
        if source.shuffle_seed is None and items == source.limit:
            break
    _refuse_too_many_failures(source, reader)
    if not items:
        raise DataError(f"{source.path}: none of its {reader.rows} rows is a usable prompt.", "Mend the rows listed as failed.")
    if source.shuffle_seed is not None:
        corpus.shuffle(source.shuffle_seed, source.limit)
    return ReadResult(corpus, reader.rows, reader.prompts_differ)


def parse_messages(value: Any) -> tuple[Message, ...]:
    """A list of `{role, content}` (or `{from, value}`) objects as messages, with the calls of tools in them.

    Raises:
        ValueError: If the value has another shape, or a message an unknown role, no text, or calls of no known form.
    """
    if not isinstance(value, list):
        raise RowError("wrong_type", f"a conversation is a list of messages, this is {kind_of(value)}")
    if not value:
        raise RowError("empty_prompt", "the list of messages is empty")
    return tuple(_message(number, message) for number, message in enumerate(cast("list[Any]", value), start=1))


@dataclass(frozen=True, slots=True)
class _Columns:
    prompt: str
    id: str | None
    transcript: bool


@dataclass(slots=True)
class _Reader:
    source: PromptsSource
    columns: _Columns
    corpus: Corpus
    rows: int = 0
    prompts_differ: int = 0
    causes: Counter[str] = field(default_factory=Counter[str])

    def read(self, rows: Iterator[RawRow | BadRow]) -> Iterator[Item | FailureRecord]:
        for row in rows:
            self.rows += 1
            if isinstance(row, RawRow):
                try:
                    item = self._item(row)
                except ValidationError as error:
                    row = BadRow(row.place, "bad_text", error.errors()[0]["msg"])  # noqa: PLW2901 (the row proved to be a bad one)
                except RowError as error:
                    row = BadRow(row.place, error.cause, str(error))  # noqa: PLW2901
                else:
                    yield item
                    continue
            self.causes[row.cause] += 1
            yield FailureRecord(
                uid=self.corpus.unique(row.place), stage=STAGE, cause=row.cause, detail=f"{row.place}: {_printable(row.detail)}"
            )

    def _item(self, row: RawRow) -> Item:
        # Without a column of that name in the first rows, a later row may still have an id of its own.
        id_name = self.columns.id or next((name for name in ID_COLUMNS if name in row.values), None)
        facts = {name: value for name, value in row.values.items() if name not in {self.columns.prompt, id_name, "tags"}}
        if self.columns.prompt not in row.values:
            raise RowError("missing_column", f"no {self.columns.prompt!r}; the row has {', '.join(row.values) or 'nothing'}")
        messages = self._messages(row.values, facts)
        if looks_like_tools(row.values.get(TOOLS)):
            del facts[TOOLS]
        messages = _with_tools(messages, row.values)
        _check(messages)
        own_id = _own_id(row.values.get(id_name) if id_name else None)
        # The hash is of the row's own turns: a system message set for the whole source does not change who the item is.
        uid = own_id or fingerprint([spelt(m) for m in messages])[:16]
        if self.source.system is not None and messages[0].role != "system":
            messages = with_tools((system(self.source.system), *messages), tools_of(messages))
        tags = tuple(dict.fromkeys([*self.source.tags, *_tags(row.values.get("tags"))]))
        plain = {name: _plain(value) for name, value in facts.items() if value is not None}
        item = Item(uid=uid, messages=messages, tags=tags, facts=plain, source=row.place)
        _refuse_without_utf8(item)
        unique = self.corpus.unique(uid)
        return item if unique == uid else item.model_copy(update={"uid": unique})

    def _messages(self, values: Mapping[str, Any], facts: dict[str, Any]) -> tuple[Message, ...]:
        value = values[self.columns.prompt]
        if self.columns.prompt == "chosen":
            return self._pair_prompt(values, facts)
        if isinstance(value, str):
            if self.columns.transcript:
                return split_exchange(_transcript(value)).prompt
            return (Message(role="user", content=_with_input(self.columns.prompt, value, facts)),)
        if value is None:
            raise RowError("empty_prompt", f"{self.columns.prompt!r} is null")
        if not isinstance(value, list):
            raise RowError("wrong_type", f"{self.columns.prompt!r} is {kind_of(value)}, neither text nor a list of messages")
        messages = parse_messages(value)
        return split_exchange(messages).prompt if self.source.last_reply == "drop" else messages

    def _pair_prompt(self, values: Mapping[str, Any], facts: dict[str, Any]) -> tuple[Message, ...]:
        """The prompt that a chosen and a rejected conversation share; the two replies become facts (what people preferred)."""
        chosen = _exchange(values["chosen"])
        if values.get("rejected") is None:
            facts.pop("rejected", None)
            return chosen.prompt
        rejected = _exchange(values["rejected"])
        del facts["rejected"]
        if chosen.prompt == rejected.prompt:
            facts |= {"chosen": chosen.reply, "rejected": rejected.reply}
            return chosen.prompt
        shared = common_prompt(chosen.prompt, rejected.prompt)
        if not shared:
            raise RowError("prompts_differ", "chosen and rejected share no prompt")
        self.prompts_differ += 1
        return shared


def _decided_columns(source: PromptsSource, first: list[RawRow | BadRow]) -> _Columns:
    rows = [row for row in first if isinstance(row, RawRow)]
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    if not rows:
        shown = "\n".join(f"- {row.place}: {row.detail}" for row in first[:5] if isinstance(row, BadRow))
        raise DataError(
            f"{source.path}: none of the first {len(first)} rows can be read:\n{shown}", "Check the format of the file."
        )
    there = f"There are: {', '.join(names) or 'none'}."
    for wanted in (source.column, source.id_column):
        if wanted is not None and wanted not in names:
            raise DataError(f"{source.path}: no column {wanted!r}.{nearest(wanted, names)}", there)
    prompt = source.column or next((name for name in COLUMNS if name in names), None)
    if prompt is None:
        raise DataError(f"{source.path}: no column of the name {', '.join(COLUMNS)}.", f"Set `column`. {there}")
    start = next((row.values[prompt] for row in rows if row.values.get(prompt)), None)
    transcript = source.format == "transcripts" or (
        source.format == "auto" and isinstance(start, str) and looks_like_transcript(start)
    )
    return _Columns(prompt, source.id_column or next((name for name in ID_COLUMNS if name in names), None), transcript)


def _refuse_too_many_failures(source: PromptsSource, reader: _Reader) -> None:
    failures = reader.causes.total()
    if failures <= source.max_bad_share * reader.rows:
        return
    causes = ", ".join(f"{cause} {count}" for cause, count in reader.causes.most_common())
    shown = [f"- {failure.detail} ({failure.cause})" for failure in reader.corpus.failures[:SHOWN_FAILURES]]
    if failures > SHOWN_FAILURES:
        shown.append(f"- … and {failures - SHOWN_FAILURES} more")
    raise DataError(
        "\n".join([f"{source.path}: {failures} of {reader.rows} rows are broken ({causes}):", *shown]),
        f"Mend them, or allow more with `max_bad_share` (now {source.max_bad_share:g}).",
    )


def _check(messages: tuple[Message, ...]) -> None:
    if not any(m.role == "user" for m in messages):
        raise RowError("no_user_turn", "no user turn to answer")
    if any(m.role == "system" for m in messages[1:]):
        raise RowError("system_not_first", "a system message stands after the first turn")
    if messages[-1].role == "assistant":
        raise RowError(
            "ends_with_assistant", "the conversation ends with the assistant; set `last_reply: drop` to drop that turn"
        )
    last = messages[-1].content
    if messages[-1].role == "tool":
        return
    if not last.strip():
        raise RowError("empty_prompt", "the last user turn is empty")
    if not _CONTROL_TOKENS.sub("", last).strip():
        raise RowError("only_control_tokens", "the last user turn is made of control tokens only")


def _with_tools(messages: tuple[Message, ...], values: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation with the tools that its row offers.

    Raises:
        RowError: With all that is wrong with them, and with the calls in the conversation.
    """
    value = values.get(TOOLS)
    try:
        tools = parse_tools(value) if looks_like_tools(value) else ()
    except ToolError as error:
        raise RowError("tools", str(error)) from error
    try:
        return with_checked_tools(messages, tools)
    except ToolError as error:
        raise RowError("tool_calls", str(error)) from error


def _refuse_without_utf8(item: Item) -> None:
    try:
        item.model_dump_json()
    except PydanticSerializationError as error:
        raise RowError("bad_text", "half a surrogate pair: the row has no UTF-8 form") from error


def _message(number: int, value: Any) -> Message:
    if isinstance(value, str) and value.startswith("{"):  # a Parquet column of JSON, which `datasets` would decode
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, dict):
        raise RowError("wrong_type", f"message {number} is {kind_of(value)}, not an object with role and content")
    fields = cast("dict[str, Any]", value)
    name, content = fields.get("role", fields.get("from")), fields.get("content", fields.get("value"))
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise RowError("unknown_role", f"message {number} has the role {name!r}; known are {', '.join(_ROLES)}")
    try:
        calls = parse_calls(fields.get("tool_calls"))
    except ToolError as error:
        raise RowError("tool_calls", f"message {number}: {error}") from error
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise RowError("wrong_type", f"the content of message {number} is {kind_of(content)}, not text")
    if role != "tool":
        return Message(role=role, content=content, tool_calls=calls)
    tool, answered = str(fields.get("name") or ""), str(fields.get("tool_call_id") or "")
    return Message(role=role, content=content, tool_calls=calls, name=tool, tool_call_id=answered)


def _exchange(value: Any) -> Exchange:
    return split_exchange(_transcript(value) if isinstance(value, str) else parse_messages(value))


def _transcript(text: str) -> tuple[Message, ...]:
    if not text.strip():
        raise RowError("empty_prompt", "an empty text")
    try:
        return parse_transcript(text)
    except ValidationError:
        raise
    except ValueError as error:
        raise RowError("broken_transcript", str(error)) from error


def _with_input(column: str, text: str, facts: dict[str, Any]) -> str:
    """Instruction data keeps a part of the prompt in a column `input`; without it the question would be another."""
    if column == "instruction" and isinstance(facts.get("input"), str):
        more = facts.pop("input")
        return f"{text}\n\n{more}" if more.strip() else text
    return text


def _own_id(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool | float) or not isinstance(value, str | int):
        raise RowError("wrong_type", f"the id is {kind_of(value)}, neither text nor a whole number")
    return str(value)


def _tags(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [tag for tag in (part.strip() for part in re.split("[,;]", value)) if tag]
    if not isinstance(value, list):
        raise RowError("wrong_type", f"`tags` is {kind_of(value)}, neither text nor a list of texts")
    tags = cast("list[object]", value)
    if not all(isinstance(tag, str) for tag in tags):
        raise RowError("wrong_type", "`tags` holds something that is not text")
    return cast("list[str]", tags)


def _plain(value: Any) -> Any:
    """A value that JSON can hold, so that a fact read back from the store equals the one put in."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(element) for element in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {str(key): _plain(element) for key, element in cast("dict[Any, Any]", value).items()}
    return str(value)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
