"""Records → token rows, with every row that cannot be trained on counted and named.

Knows records and a tokenizer; knows no tensors. Nothing is ever cut: a reply without its end teaches the model not to stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cai.errors import CaiError, ProblemList, TrainingError
from cai.records import PreferenceRecord, SFTRecord
from cai.training.packing import TokenGroup
from cai.training.results import DroppedRow
from cai.training.settings import TrainingSettings
from constitution.messages import Conversation

SHOWN_PROBLEMS = 20


class ReplyEncoder(Protocol):
    """The part of `cai.models.chat.ChatTokenizer` that training needs."""

    def encode_reply(self, messages: Conversation, reply: str) -> tuple[list[int], list[int]]: ...


@dataclass(frozen=True, slots=True)
class PairRow:
    """A preference pair as tokens. `group.replies` is (chosen, rejected); `reference` their log-probabilities, in nats."""

    uid: str
    replica: int
    group: TokenGroup
    p_chosen: float
    reference: tuple[float, ...] = ()

    @property
    def known_reference(self) -> tuple[float, float]:
        chosen, rejected = self.reference
        return chosen, rejected


@dataclass(frozen=True, slots=True)
class ReplyRow:
    """A supervised row as tokens: one reply."""

    uid: str
    replica: int
    group: TokenGroup


TrainingRow: TypeAlias = PairRow | ReplyRow


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    reason: str
    detail: str


def encode_pairs(
    pairs: Iterable[PreferenceRecord],
    encoder: ReplyEncoder,
    settings: TrainingSettings,
    longest: int,
    *,
    max_p_chosen: float = 1.0,
) -> tuple[list[PairRow], list[DroppedRow]]:
    """Pairs as tokens, and those left out: longer than `longest` tokens, empty, or with both replies the same.

    Raises:
        ProblemList: Rows too long and `overlong` is "refuse": all of them, each with its uid and length.
    """
    rows: list[PairRow] = []
    dropped: list[DroppedRow] = []
    for pair in pairs:
        try:
            group = _encode(encoder, pair.prompt, (pair.chosen, pair.rejected), longest)
        except _Refused as refused:
            dropped.append(_dropped(pair, "pair", refused))
        else:
            rows.append(PairRow(pair.uid, pair.replica, group, min(pair.p_chosen, max_p_chosen)))
    _refuse_overlong(dropped, settings)
    return rows, dropped


def encode_replies(
    records: Iterable[SFTRecord], encoder: ReplyEncoder, settings: TrainingSettings, longest: int, *, kind: str
) -> tuple[list[ReplyRow], list[DroppedRow]]:
    """Supervised rows as tokens, and those left out; errors as `encode_pairs`. `kind` is "row" or "anchor"."""
    rows: list[ReplyRow] = []
    dropped: list[DroppedRow] = []
    for record in records:
        try:
            group = _encode(encoder, record.messages, (record.reply,), longest)
        except _Refused as refused:
            dropped.append(_dropped(record, kind, refused))
        else:
            rows.append(ReplyRow(record.uid, record.replica, group))
    _refuse_overlong(dropped, settings)
    return rows, dropped


def _encode(encoder: ReplyEncoder, messages: Conversation, replies: Sequence[str], max_length: int) -> TokenGroup:
    if not all(reply.strip() for reply in replies):
        raise _Refused("empty_reply", "a reply has no text")
    try:
        encoded = [encoder.encode_reply(messages, reply) for reply in replies]
    except CaiError as error:
        raise _Refused("unrenderable", error.problem) from error
    prompts = {tuple(prompt) for prompt, _ in encoded}
    if len(prompts) != 1 or not all(ids for _, ids in encoded) or not encoded[0][0]:
        raise _Refused("unrenderable", "the chat template gives no prompt that the replies share")
    group = TokenGroup(prompts.pop(), tuple(tuple(ids) for _, ids in encoded))
    if len(group.replies) > 1 and len(set(group.replies)) == 1:
        raise _Refused("identical", "chosen and rejected are the same text")
    if group.longest > max_length:
        raise _Refused("overlong", f"{group.longest} tokens, {max_length} allowed")
    return group


def _dropped(record: PreferenceRecord | SFTRecord, kind: str, refused: _Refused) -> DroppedRow:
    data = {"uid": record.uid, "replica": record.replica, "kind": kind, "reason": refused.reason, "detail": refused.detail}
    return DroppedRow.model_validate(data)


def _refuse_overlong(dropped: Sequence[DroppedRow], settings: TrainingSettings) -> None:
    long = [row for row in dropped if row.reason == "overlong"]
    if not long or settings.overlong != "refuse":
        return
    problems: list[CaiError] = [TrainingError(f"{row.uid}/{row.replica}: {row.detail}") for row in long[:SHOWN_PROBLEMS]]
    more = len(long) - len(problems)
    title = f"{len(long)} rows are longer than max_length_tokens" + (f" (the first {len(problems)})" if more else "")
    problems.append(TrainingError("Nothing was trained", 'raise max_length_tokens, or set overlong to "drop"'))
    raise ProblemList(title, problems)


def describe_dropped(dropped: Sequence[DroppedRow]) -> str:
    """For example " (12 rows were left out: 9 overlong, 3 identical)"; "" for none."""
    counts: dict[str, int] = {}
    for row in dropped:
        counts[row.reason] = counts.get(row.reason, 0) + 1
    parts = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    return f" ({len(dropped)} rows were left out: {parts})" if dropped else ""
