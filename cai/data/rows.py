"""Data set rows as trainers take them: supervised rows with `messages`, preference rows with an explicit prompt.

Conversational form throughout (TRL's and `datasets`'): `prompt` is a list of messages, `chosen` and `rejected` are lists with
one assistant message each. No key is ever null. Each row says where it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cai.records import PreferenceRecord, RevisionRecord, SFTRecord
from cai.store.files import PART_SUFFIX, atomic_file
from constitution.messages import Message, assistant

Row: TypeAlias = dict[str, Any]
RowKind: TypeAlias = Literal["sft", "preferences"]
FileSuffix: TypeAlias = Literal["jsonl", "parquet"]
Rounds: TypeAlias = Literal["final", "all"]

ROWS_PER_GROUP = 10_000


def sft_records(records: Iterable[RevisionRecord], *, rounds: Rounds = "final") -> Iterator[SFTRecord]:
    """What supervised training learns from: the final reply of each item, or the revision of every round.

    The paper trains on those of all rounds (arXiv 2212.08073, section 3). An item without a revision gives its draft, once,
    unless a fault was found in it and stayed (`RevisionRecord.unmended`): what the gate turned down is learned by nobody, nor
    is what it would have mended.
    """
    for record in records:
        for reply, _ in _replies(record, rounds):
            yield SFTRecord(uid=record.uid, replica=record.replica, messages=record.messages, reply=reply, tags=record.tags)


def sft_rows(records: Iterable[RevisionRecord], *, rounds: Rounds = "final") -> Iterator[Row]:
    """Supervised rows: `messages` (the reply last), `uid`, `replica`, `changed`, `principle_ids` (those of its critiques).

    The same replies as `sft_records`.
    """
    for record in records:
        for reply, principle_ids in _replies(record, rounds):
            yield {
                "messages": _plain((*record.messages, assistant(reply))),
                "uid": record.uid,
                "replica": record.replica,
                "changed": record.changed,
                "principle_ids": principle_ids,
            }


def preference_rows(records: Iterable[PreferenceRecord]) -> Iterator[Row]:
    """Preference rows: `prompt`, `chosen`, `rejected`, the label's strength `p_chosen` and `margin_nats`, and their origin."""
    for record in records:
        yield {
            "prompt": _plain(record.prompt),
            "chosen": _plain((assistant(record.chosen),)),
            "rejected": _plain((assistant(record.rejected),)),
            "p_chosen": record.p_chosen,
            "margin_nats": record.margin_nats,
            "uid": record.uid,
            "replica": record.replica,
            "chosen_source": record.chosen_source,
            "method": record.method,
            "principle_ids": list(record.principle_ids),
        }


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
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


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


def _replies(record: RevisionRecord, rounds: Rounds) -> list[tuple[str, list[str]]]:
    """Replies to learn, each with the principles that led to it; none of an item whose draft has a fault that stayed."""
    if record.unmended:
        return []
    ids = [r.principle_id for r in record.rounds]
    revisions = [(r.revision, ids[: n + 1]) for n, r in enumerate(record.rounds) if r.revision is not None]
    if rounds == "all" and revisions:
        return [(text, principle_ids) for text, principle_ids in revisions]
    return [(record.final, ids)]


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _schema(pa: Any, kind: RowKind) -> Any:
    text = pa.string()
    messages = pa.list_(pa.struct([("content", text), ("role", text)]))
    fields: dict[str, Any] = {"uid": text, "replica": pa.int64(), "principle_ids": pa.list_(text)}
    if kind == "sft":
        fields |= {"messages": messages, "changed": pa.bool_()}
    else:
        fields |= {"prompt": messages, "chosen": messages, "rejected": messages, "p_chosen": pa.float64()}
        fields |= {"margin_nats": pa.float64(), "chosen_source": text, "method": text}
    return pa.schema(sorted(fields.items()))
