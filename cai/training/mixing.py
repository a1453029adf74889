"""Rows of the user's own files in supervised training, at a stated share of all that is learned.

A loss that is a mean over tokens weighs tokens: hence the share is one of tokens, and not of rows.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cai.data.filters.held_out_prompts import HeldOutPrompts
from cai.data.training_rows import read_sft_rows
from cai.records import SFTRecord
from cai.training.results import DroppedRow, MixedRows
from cai.training.rows import ReplyEncoder, ReplyRow, SharedIds, encode_record
from cai.training.settings import MixSettings, SFTSettings


@dataclass(frozen=True, slots=True)
class Mixed:
    """What was drawn from all files: rows to train on, rows that cannot be trained on, and the figures of each file."""

    rows: Sequence[ReplyRow]
    dropped: Sequence[DroppedRow]
    of_files: tuple[MixedRows, ...]


def mix_in(
    own_tokens: int,
    encoder: ReplyEncoder,
    settings: SFTSettings,
    longest: int,
    evaluation_prompts: HeldOutPrompts | None = None,
) -> Mixed:
    """Draw rows from the files of `settings.mix` until each has its share of the tokens, or has no more rows.

    A file gets its share to within its last row, which is never cut.

    Args:
        own_tokens: Learned tokens of the rows that others are mixed into.
        encoder: Of the policy.
        settings: Of the stage.
        longest: Tokens that a row may have.
        evaluation_prompts: May not be learned.

    Raises:
        DataError: As `read_sft_rows`.
    """
    of_all = own_tokens / (1 - sum(each.share for each in settings.mix))
    ids = SharedIds()

    def encode(record: SFTRecord) -> ReplyRow | DroppedRow:
        found = evaluation_prompts.find(record) if evaluation_prompts is not None else None
        if found is None:
            return encode_record(record, encoder, longest, kind="mixed", turns=settings.turns, ids=ids)
        detail = f"{record.source}: {found}"
        return DroppedRow(uid=record.uid, replica=record.replica, kind="mixed", reason="held_out", detail=detail)

    drawn = [_draw(each, of_all * each.share, encode) for each in settings.mix]
    total = own_tokens + sum(each.tokens for each in drawn)
    figures = tuple(
        MixedRows(
            path=mix.path,
            rows=len(each.rows),
            tokens=each.tokens,
            share=each.tokens / total,
            wanted_share=mix.share,
            exhausted=each.tokens < of_all * mix.share,
        )
        for mix, each in zip(settings.mix, drawn, strict=True)
    )
    rows = [row for each in drawn for row in each.rows]
    return Mixed(rows, [row for each in drawn for row in each.dropped], figures)


@dataclass(frozen=True, slots=True)
class _Drawn:
    rows: Sequence[ReplyRow]
    dropped: Sequence[DroppedRow]

    @property
    def tokens(self) -> int:
        return sum(map(_tokens, self.rows))


def _draw(mix: MixSettings, wanted_tokens: float, encode: Callable[[SFTRecord], ReplyRow | DroppedRow]) -> _Drawn:
    """The first rows, in an order drawn by the seed, that together have the tokens wanted; they are then in the file's order.

    Every row of the file has a number drawn for it, and those with the smallest ones are kept: the file is gone through once,
    and only what is kept is in memory.
    """
    kept: list[tuple[int, int, ReplyRow | DroppedRow]] = []  # a heap: the row with the largest number first
    tokens = 0
    for place, record in enumerate(read_sft_rows(mix.path)):
        number = int.from_bytes(hashlib.blake2b(f"{mix.seed}/{place}".encode(), digest_size=8).digest())
        if tokens >= wanted_tokens and -number < kept[0][0]:
            continue
        row = encode(record)
        heapq.heappush(kept, (-number, place, row))
        tokens += _tokens(row)
        while tokens - _tokens(kept[0][2]) >= wanted_tokens:
            tokens -= _tokens(heapq.heappop(kept)[2])
    rows = [row for _, _, row in sorted(kept, key=lambda each: each[1])]
    return _Drawn([row for row in rows if isinstance(row, ReplyRow)], [row for row in rows if isinstance(row, DroppedRow)])


def _tokens(row: ReplyRow | DroppedRow) -> int:
    return row.group.scored_tokens if isinstance(row, ReplyRow) else 0
