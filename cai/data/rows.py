"""Data set rows as trainers take them: supervised rows with `messages`, preference rows with an explicit prompt.

Conversational form throughout (TRL's and `datasets`'): `prompt` is a list of messages, `chosen` and `rejected` are lists with
one assistant message each. No key is ever null. Each row says where it comes from. Conversations with tools are in OpenAI's
form: `tool_calls` with objects as arguments, results of the role `tool`, and definitions in a column `tools`, as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cai.models.tool_turns import definitions, template_turns
from cai.records import PreferenceRecord, RevisionRecord, SFTRecord
from cai.store.files import PART_SUFFIX, atomic_file
from constitution.messages import Message, tools_of
from constitution.tool_text import as_reply

Row: TypeAlias = dict[str, Any]
RowKind: TypeAlias = Literal["sft", "preferences"]
FileSuffix: TypeAlias = Literal["jsonl", "parquet"]
Rounds: TypeAlias = Literal["final", "all"]

ROWS_PER_GROUP = 10_000
TOOLS = "tools"
"""The column with what the assistant may call."""
_MESSAGES = frozenset({"messages", "prompt", "chosen", "rejected"})


def sft_records(records: Iterable[RevisionRecord], *, rounds: Rounds = "final") -> Iterator[SFTRecord]:
    """What supervised training learns from: the final reply of each item, or the revision of every round.

    The paper trains on those of all rounds (arXiv 2212.08073, section 3). An item without a revision gives its draft, once,
    unless a fault was found in it and stayed (`RevisionRecord.unmended`): what the gate turned down is learned by nobody, nor
    is what it would have mended.
    """
    for record in records:
        for reply in _replies(record, rounds):
            yield SFTRecord(
                uid=record.uid,
                replica=record.replica,
                round=reply.round,
                messages=record.messages,
                reply=reply.text,
                tags=record.tags,
            )


def sft_rows(records: Iterable[RevisionRecord], *, rounds: Rounds = "final") -> Iterator[Row]:
    """Supervised rows: `messages` (the reply last), `uid`, `replica`, `changed`, `principle_ids` (those of its critiques).

    The same replies as `sft_records`.
    """
    for record in records:
        for reply in _replies(record, rounds):
            yield {
                **exchange_columns(record.messages, reply.text),
                "uid": record.uid,
                "replica": record.replica,
                "changed": record.changed,
                "principle_ids": reply.principle_ids,
            }


def preference_rows(records: Iterable[PreferenceRecord]) -> Iterator[Row]:
    """Preference rows (see `preference_row`)."""
    return map(preference_row, records)


def preference_row(record: PreferenceRecord) -> Row:
    """A pair: `prompt`, `chosen`, `rejected`, the label's strength `p_chosen` and `margin_nats`, and its origin."""
    return {
        "prompt": template_turns(record.prompt),
        "chosen": [reply_turn(record.prompt, record.chosen)],
        "rejected": [reply_turn(record.prompt, record.rejected)],
        **tools_column(record.prompt),
        "p_chosen": record.p_chosen,
        "margin_nats": record.margin_nats,
        "label_source": record.label_source,
        "uid": record.uid,
        "replica": record.replica,
        "number": record.number,
        "chosen_source": record.chosen_source,
        "rejected_source": record.rejected_source,
        "method": record.method,
        "principle_ids": list(record.principle_ids),
    }


def exchange_columns(prompt: Sequence[Message], reply: str) -> Row:
    """`messages`, the reply last, and the tools that it may call."""
    return {"messages": template_turns((*prompt, as_reply(reply, tools_of(prompt)))), **tools_column(prompt)}


def reply_turn(prompt: Sequence[Message], reply: str) -> dict[str, Any]:
    """A reply as the message that goes on from its prompt, with its calls where the prompt has tools."""
    return template_turns((*prompt, as_reply(reply, tools_of(prompt))))[-1]


def tools_column(messages: Sequence[Message]) -> Row:
    """The column with the tools of a conversation, as JSON text: tables would pad objects. None without tools."""
    tools = tools_of(messages)
    return {TOOLS: json.dumps(definitions(tools), ensure_ascii=False)} if tools else {}


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows one a line, keys sorted, UTF-8: equal rows, equal bytes. Whole or not at all. Returns how many.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
    """
    count = 0
    with atomic_file(path) as file:
        for row in rows:
            file.write(f"{json.dumps(row, sort_keys=True, ensure_ascii=False)}\n".encode())
            count += 1
    return count


def write_parquet(path: Path, rows: Iterable[Row], kind: RowKind) -> int:
    """Write rows as Parquet: fixed schema and compression, no time stamps: equal rows, equal bytes. Returns how many.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
    """
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    schema = _schema(pa, kind)
    source, count = iter(rows), 0
    with atomic_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(source, ROWS_PER_GROUP)):
            if any(TOOLS in row for row in group):
                break
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    return _write_with_tools(path, chain(group, source), kind) if group else count


def _write_with_tools(path: Path, rows: Iterable[Row], kind: RowKind) -> int:
    """Go on from a file of rows without tools: messages become JSON, the one column type that pads no arguments."""
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    schema = _schema(pa, kind, of_messages=pa.list_(pa.json_()))
    as_texts = _schema(pa, kind, of_messages=pa.list_(pa.string()))
    count = 0
    with pq.ParquetFile(path) as plain, atomic_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        before = (row for batch in plain.iter_batches() for row in batch.to_pylist())
        source = chain(before, rows)
        while group := list(islice(source, ROWS_PER_GROUP)):
            encoded = [{name: _encoded(name, value) for name, value in row.items()} for row in group]
            writer.write_table(pa.Table.from_pylist(encoded, schema=as_texts).cast(schema))
            count += len(group)
    return count


def _encoded(name: str, value: Any) -> Any:
    return [json.dumps(each, sort_keys=True, ensure_ascii=False) for each in value] if name in _MESSAGES else value


def write_rows(path: Path, rows: Iterable[Row], kind: RowKind) -> int:
    """Write rows in the format that the file's name asks for: `.jsonl` or `.parquet`."""
    return write_parquet(path, rows, kind) if path.suffix == ".parquet" else write_jsonl(path, rows)


def write_files(
    folder: Path, kind: RowKind, suffix: FileSuffix, rows: Iterable[Row], rows_per_file: int | None = None
) -> tuple[tuple[str, ...], int]:
    """Write rows as `KIND.SUFFIX`; more than `rows_per_file` of them as `KIND-00001-of-00003.SUFFIX` … Equal rows, equal bytes.

    Rows are not kept in memory. The files get their names when all are written; those of an earlier export that are none of
    them are removed.

    Returns:
        Names of the files, and how many rows there are in all.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
    """
    source, parts, total = iter(rows), list[Path](), 0
    while True:
        part = folder / f".{kind}-{len(parts) + 1:05}.{suffix}{PART_SUFFIX}"
        some = source if rows_per_file is None else islice(source, rows_per_file)
        count = write_parquet(part, some, kind) if suffix == "parquet" else write_jsonl(part, some)
        total += count
        if parts and not count:
            part.unlink()
        else:
            parts.append(part)
        if rows_per_file is None or count < rows_per_file:
            break
    names = [f"{kind}.{suffix}"]
    if len(parts) > 1:
        names = [f"{kind}-{number:05}-of-{len(parts):05}.{suffix}" for number in range(1, len(parts) + 1)]
    for part, name in zip(parts, names, strict=True):
        part.replace(folder / name)
    for other in [folder / f"{kind}.{suffix}", *folder.glob(f"{kind}-?????-of-?????.{suffix}")]:
        if other.name not in names:
            other.unlink(missing_ok=True)
    return tuple(names), total


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply to learn, its round (None: a draft), and the principles that led to it."""

    text: str
    round: int | None
    principle_ids: list[str]


def _replies(record: RevisionRecord, rounds: Rounds) -> list[_Reply]:
    """None of an item whose draft has a fault that stayed."""
    if record.unmended:
        return []
    ids = [r.principle_id for r in record.rounds]
    revisions = [_Reply(r.revision, r.round, ids[: n + 1]) for n, r in enumerate(record.rounds) if r.revision is not None]
    if not revisions:
        return [_Reply(record.draft, None, ids)]
    # The last revision may be followed by rounds that found nothing to change: their principles agreed to it.
    return revisions if rounds == "all" else [replace(revisions[-1], principle_ids=ids)]


def _schema(pa: Any, kind: RowKind, *, of_messages: Any = None) -> Any:
    text = pa.string()
    messages = of_messages or pa.list_(pa.struct([("content", text), ("role", text)]))
    fields: dict[str, Any] = {"uid": text, "replica": pa.int64(), "principle_ids": pa.list_(text)}
    if of_messages is not None:
        fields[TOOLS] = text
    if kind == "sft":
        fields |= {"messages": messages, "changed": pa.bool_()}
    else:
        fields |= {"prompt": messages, "chosen": messages, "rejected": messages, "p_chosen": pa.float64()}
        fields |= {"margin_nats": pa.float64(), "number": pa.int64(), "method": text, "label_source": text}
        fields |= {"chosen_source": text, "rejected_source": text}
    return pa.schema(sorted(fields.items()))
