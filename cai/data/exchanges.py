"""Rows whose replies are to be judged: in any form that training reads, and several samples of a prompt in one row.

Nothing is left out: a row without a reply that can be judged stands in its place, with why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.data.rows import exchange_columns
from cai.data.tables import container_of, raw_rows
from cai.data.text_files import BadRow, RawRow
from cai.data.training_rows import preference_of, problem_of, samples_of, supervised_of, uid_of
from cai.records import PreferenceRecord, SFTRecord
from constitution.messages import Conversation


@dataclass(frozen=True, slots=True)
class Exchanges:
    """The replies of a row to one prompt.

    Args:
        place: Where the row stands.
        uid: What it is called.
        values: All of its columns.
        prompt: That is answered.
        replies: One or more.
        several: The row holds a list of samples.
        pair: The labelled pair, where `replies` are its chosen and its rejected one.
    """

    place: str
    uid: str
    values: dict[str, Any]
    prompt: Conversation
    replies: tuple[str, ...]
    several: bool = False
    pair: PreferenceRecord | None = None


@dataclass(frozen=True, slots=True)
class NoExchange:
    """A row without replies, or one that cannot be read; `values` is then its place alone, as `uid`."""

    place: str
    values: dict[str, Any]
    cause: str
    detail: str


def exchanges_in(path: Path | str) -> Iterator[Exchanges | NoExchange]:
    """The rows of a data set, one by one.

    Raises:
        DataError: If the file as a whole cannot be read.
    """
    for row in raw_rows(str(path), container_of(str(path))):
        yield NoExchange(row.place, {"uid": row.place}, row.cause, row.detail) if isinstance(row, BadRow) else _exchanges(row)


def exchange_of(record: SFTRecord) -> Exchanges:
    """A reply of a run."""
    values = exchange_columns(record.messages, record.reply) | {"uid": record.uid, "replica": record.replica}
    return Exchanges(record.uid, record.uid, values, record.messages, (record.reply,))


def _exchanges(row: RawRow) -> Exchanges | NoExchange:
    try:
        if {"chosen", "rejected"} & row.values.keys():
            pair = preference_of(row)
            return Exchanges(row.place, pair.uid, row.values, pair.prompt, (pair.chosen, pair.rejected), pair=pair)
        if row.values.get("completions") is not None:
            prompt, replies = samples_of(row)
            return Exchanges(row.place, uid_of(row), row.values, prompt, replies, several=True)
        record = supervised_of(row)
    except ValueError as error:
        return NoExchange(row.place, row.values, "no_conversation", problem_of(error))
    return Exchanges(row.place, record.uid, row.values, record.messages, (record.reply,))
