"""Records → token rows, with every row that cannot be trained on counted and named.

Knows records and a tokenizer; knows no tensors. Nothing is ever cut: a reply without its end teaches the model not to stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from cai.errors import CaiError, ProblemList, TrainingError
from cai.records import PreferenceRecord, SFTRecord
from cai.training.packing import TokenGroup
from cai.training.results import DroppedRow, DropReason, RowKind
from cai.training.settings import LearnedTurns, TrainingSettings
from cai.training.turns import turns_group
from constitution.messages import Conversation

SHOWN_PROBLEMS = 20


class ReplyEncoder(Protocol):
    """The part of `cai.models.chat.ChatTokenizer` that training needs."""

    def encode_reply(self, messages: Conversation, reply: str) -> tuple[list[int], list[int]]: ...

    def encode_turns(self, messages: Conversation, reply: str) -> list[tuple[list[int], list[int]]]: ...


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference between two replies of a group, by their indices; `p_chosen` is the label's strength."""

    uid: str
    replica: int
    chosen: int
    rejected: int
    p_chosen: float


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """One prompt, its replies, and pairs among them as tokens; `reference`: log-probability of each sequence, in nats."""

    group: TokenGroup
    pairs: tuple[Pair, ...]
    reference: tuple[float, ...] = ()
    first_turn: tuple[int, ...] = ()
    """Prompt of the conversation's first turn; (): the group's own."""

    @property
    def first_prompt(self) -> tuple[int, ...]:
        return self.first_turn or self.group.prompt_ids

    @property
    def sequences(self) -> tuple[tuple[int, int], ...]:
        """(chosen, rejected) of each pair, as numbers of the group's sequences."""
        return tuple((pair.chosen, pair.rejected) for pair in self.pairs)

    @property
    def openings(self) -> tuple[tuple[int, int], ...]:
        """The same for what both replies of a pair have to the length of the shorter one; () where it is not scored."""
        first = len(self.group.replies)
        return tuple((first + 2 * at, first + 2 * at + 1) for at in range(len(self.pairs))) if self.group.beginnings else ()

    def only(self, places: Sequence[int]) -> PreferenceRow:
        """The pairs at these places, with the replies that they need and what is known of them."""
        pairs = [self.pairs[at] for at in places]
        kept = sorted({reply for pair in pairs for reply in (pair.chosen, pair.rejected)})
        now = {reply: at for at, reply in enumerate(kept)}
        openings = [sequence for at in places for sequence in self.openings[at]] if self.openings else []
        group = self.group
        return PreferenceRow(
            TokenGroup(
                group.prompt_ids,
                tuple(group.replies[reply] for reply in kept),
                unscored=tuple(group.unscored[reply] for reply in kept) if group.unscored else (),
                beginnings=tuple((now[reply], tokens) for reply, tokens in (group.sequences[at] for at in openings)),
            ),
            tuple(replace(pair, chosen=now[pair.chosen], rejected=now[pair.rejected]) for pair in pairs),
            tuple(self.reference[at] for at in (*kept, *openings)) if self.reference else (),
        )

    @property
    def uid(self) -> str:
        return self.pairs[0].uid

    @property
    def replica(self) -> int:
        return self.pairs[0].replica


@dataclass(frozen=True, slots=True)
class ReplyRow:
    """A supervised row as tokens: one reply, or all turns of the assistant in one conversation (see `cai.training.turns`)."""

    uid: str
    replica: int
    group: TokenGroup
    round: int | None = None
    first_turn: tuple[int, ...] = ()
    """Prompt of the conversation's first turn; (): the group's own."""

    @property
    def first_prompt(self) -> tuple[int, ...]:
        return self.first_turn or self.group.prompt_ids


TrainingRow: TypeAlias = PreferenceRow | ReplyRow


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    reason: DropReason
    detail: str


def encode_pairs(
    pairs: Iterable[PreferenceRecord],
    encoder: ReplyEncoder,
    settings: TrainingSettings,
    longest: int,
    *,
    max_p_chosen: float = 1.0,
    most_pairs: int = 1,
    openings: bool = False,
) -> tuple[list[PreferenceRow], list[DroppedRow]]:
    """Pairs as tokens, and those left out: longer than `longest` tokens, empty, or with both replies the same.

    Pairs on one prompt are put together, `most_pairs` at most, in the order in which they come: what they share is then
    computed once. A row stands where the first of its pairs stood. `openings`: score also the first tokens of both replies of
    a pair, as many as the shorter one has.

    Raises:
        ProblemList: Rows too long and `overlong` is "refuse": all of them, each with its uid and length.
    """
    open_rows: dict[tuple[int, ...], int] = {}
    gathered: list[list[tuple[PreferenceRecord, TokenGroup]]] = []
    dropped: list[DroppedRow] = []
    for pair in pairs:
        try:
            group = _encode(encoder, pair.prompt, (pair.chosen, pair.rejected), longest)
        except _Refused as refused:
            dropped.append(_dropped(pair, "pair", refused))
            continue
        at = open_rows.get(group.prompt_ids)
        if at is None or len(gathered[at]) >= most_pairs:
            at = open_rows[group.prompt_ids] = len(gathered)
            gathered.append([])
        gathered[at].append((pair, group))
    refuse_overlong(dropped, settings)
    return [_preference_row(some, encoder, max_p_chosen, openings=openings) for some in gathered], dropped


def _preference_row(
    gathered: Sequence[tuple[PreferenceRecord, TokenGroup]], encoder: ReplyEncoder, max_p_chosen: float, *, openings: bool
) -> PreferenceRow:
    replies = tuple(dict.fromkeys(reply for _, group in gathered for reply in group.replies))
    index = {reply: at for at, reply in enumerate(replies)}
    pairs = tuple(
        Pair(
            pair.uid,
            pair.replica,
            chosen=index[group.replies[0]],
            rejected=index[group.replies[1]],
            p_chosen=min(pair.p_chosen, max_p_chosen),
        )
        for pair, group in gathered
    )
    beginnings = tuple(
        (reply, min(len(replies[pair.chosen]), len(replies[pair.rejected])))
        for pair in pairs
        for reply in (pair.chosen, pair.rejected)
    )
    group = TokenGroup(gathered[0][1].prompt_ids, replies, beginnings=beginnings if openings else ())
    return PreferenceRow(group, pairs, first_turn=_first_turn(encoder, gathered[0][0].prompt))


def encode_replies(
    records: Iterable[SFTRecord],
    encoder: ReplyEncoder,
    settings: TrainingSettings,
    longest: int,
    *,
    kind: RowKind,
    turns: LearnedTurns = "last",
) -> tuple[list[ReplyRow], list[DroppedRow]]:
    """Supervised rows as tokens, and those left out; errors as `encode_pairs`. Records are not kept."""
    rows: list[ReplyRow] = []
    dropped: list[DroppedRow] = []
    ids = SharedIds()
    for record in records:
        row = encode_record(record, encoder, longest, kind=kind, turns=turns, ids=ids)
        if isinstance(row, ReplyRow):
            rows.append(row)
        else:
            dropped.append(row)
    refuse_overlong(dropped, settings)
    return rows, dropped


def encode_record(
    record: SFTRecord, encoder: ReplyEncoder, longest: int, *, kind: RowKind, turns: LearnedTurns, ids: SharedIds
) -> ReplyRow | DroppedRow:
    """One supervised row as tokens, or why it is left out."""
    try:
        if turns == "last":
            group = _encode(encoder, record.messages, (record.reply,), longest)
        else:
            group = _encode_turns(encoder, record.messages, record.reply, longest)
    except _Refused as refused:
        return _dropped(record, kind, refused)
    return ReplyRow(record.uid, record.replica, ids.shared(group), record.round, ids.ids(_first_turn(encoder, record.messages)))


class SharedIds:
    """Equal token ids as one object: the rows of a large file then take 8 bytes a token, and not 36."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def shared(self, group: TokenGroup) -> TokenGroup:
        return replace(group, prompt_ids=self.ids(group.prompt_ids), replies=tuple(map(self.ids, group.replies)))

    def ids(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(map(self._known.setdefault, ids, ids))


def _encode_turns(encoder: ReplyEncoder, messages: Conversation, reply: str, max_length: int) -> TokenGroup:
    for number, message in enumerate(messages, start=1):
        if message.role == "assistant" and not (message.content.strip() or message.tool_calls):
            raise _Refused("empty_reply", f"message {number}, of the assistant, has no text")
    if not reply.strip():
        raise _Refused("empty_reply", "the reply has no text")
    try:
        group = turns_group(encoder.encode_turns(messages, reply))
    except CaiError as error:
        raise _Refused("unrenderable", error.problem) from error
    except ValueError as error:
        raise _Refused("unrenderable", f"the chat template gives no beginning that all turns share ({error})") from error
    return _short_enough(group, max_length)


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
    return _short_enough(group, max_length)


def _first_turn(encoder: ReplyEncoder, messages: Conversation) -> tuple[int, ...]:
    """Prompt of a conversation's first turn, as a conversation of that turn alone would have it; () where there is one turn."""
    end = next((at for at, message in enumerate(messages, start=1) if message.role == "user"), len(messages))
    if end == len(messages):
        return ()
    try:
        return tuple(encoder.encode_reply(messages[:end], ".")[0])
    except CaiError:  # a template that renders the whole of it, but not its beginning: the whole decides
        return ()


def _short_enough(group: TokenGroup, max_length: int) -> TokenGroup:
    if group.longest > max_length:
        raise _Refused("overlong", f"{group.longest} tokens, {max_length} allowed")
    return group


def _dropped(record: PreferenceRecord | SFTRecord, kind: RowKind, refused: _Refused) -> DroppedRow:
    source, number = (record.source, record.round) if isinstance(record, SFTRecord) else ("", None)
    return DroppedRow(
        uid=record.uid,
        replica=record.replica,
        round=number,
        kind=kind,
        reason=refused.reason,
        detail=f"{source}: {refused.detail}" if source else refused.detail,
    )


def refuse_overlong(dropped: Sequence[DroppedRow], settings: TrainingSettings) -> None:
    """Raise ProblemList if rows are too long and `overlong` is "refuse": all of them, each with its uid and length."""
    long = [row for row in dropped if row.reason == "overlong"]
    if not long or settings.overlong != "refuse":
        return
    problems: list[CaiError] = [TrainingError(f"{row.uid}/{row.replica}: {row.detail}") for row in long[:SHOWN_PROBLEMS]]
    more = len(long) - len(problems)
    title = f"{len(long)} rows are longer than max_length_tokens" + (f" (the first {len(problems)})" if more else "")
    problems.append(TrainingError("Nothing was trained", 'raise max_length_tokens, or set overlong to "drop"'))
    raise ProblemList(title, problems)


def describe_dropped(dropped: Sequence[DroppedRow]) -> str:
    """For example " (12 rows were left out: 9 overlong, 3 identical; the first is pair-7)"; "" for none."""
    counts: dict[str, int] = {}
    for row in dropped:
        counts[row.reason] = counts.get(row.reason, 0) + 1
    parts = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    return f" ({len(dropped)} rows were left out: {parts}; the first is {dropped[0].uid})" if dropped else ""
