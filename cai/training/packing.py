"""Token groups, and how they lie in the rows of a batch.

Knows integers and tensors; knows no model and no text. A group is one prompt with the replies that answer it: a preference
pair has two, a supervised row one. Two layouts:

- *shared*: one row a group, `trunk | rest of reply 0 | rest of reply 1 …`. The trunk is the prompt and whatever all replies
  begin with; a block mask lets every reply see the trunk and itself, and nothing else. The prompt is computed once.
- *padded*: one row a reply, right-padded, with an ordinary two-dimensional mask. Works with every model.

The last token of a reply is never an input, for it predicts nothing that is scored. Shape suffixes: B rows, T positions,
S slots (positions with a target), M scored tokens (a slot of the trunk counts once for each reply).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

Layout: TypeAlias = Literal["shared", "padded"]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """One prompt and its replies as token ids.

    Raises:
        ValueError: If the prompt or a reply has no token: its log-probability would silently be 0.
    """

    prompt_ids: tuple[int, ...]
    replies: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.replies or not all(self.replies):
            raise ValueError("a group needs a prompt and replies of at least one token each")

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest reply."""
        return len(self.prompt_ids) + max(map(len, self.replies))

    def common_reply_tokens(self) -> int:
        """How many tokens all replies begin with together."""
        shared = 0
        for tokens in zip(*self.replies, strict=False):
            if any(token != tokens[0] for token in tokens):
                break
            shared += 1
        return shared if len(self.replies) > 1 else 0

    def row_lengths(self, layout: Layout) -> list[int]:
        """Positions of each row this group takes."""
        if layout == "padded":
            return [len(self.prompt_ids) + len(reply) - 1 for reply in self.replies]
        shared = self.common_reply_tokens()
        return [len(self.prompt_ids) + shared + sum(max(0, len(reply) - 1 - shared) for reply in self.replies)]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Groups laid out for one forward pass.

    Args:
        input_ids: [B, T] token ids; 0 at padding.
        position_ids: [B, T] place of each token in its own conversation.
        mask: What each position may see: [B, 1, T, T] bool (shared) or [B, T] with 1 for tokens and 0 for padding.
        slots: [S] positions, flattened over B and T, whose output predicts a reply token.
        targets: [S] the token each slot predicts.
        slot_of: [M] slot of each scored token.
        sequence_of: [M] sequence (reply, numbered over all groups in order) of each scored token.
        sequence_lengths: Reply tokens of each sequence.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    slots: Tensor
    targets: Tensor
    slot_of: Tensor
    sequence_of: Tensor
    sequence_lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Positions computed, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device) -> PackedBatch:
        return PackedBatch(
            *(getattr(self, name).to(device, non_blocking=True) for name in _TENSORS), sequence_lengths=self.sequence_lengths
        )


_TENSORS = ("input_ids", "position_ids", "mask", "slots", "targets", "slot_of", "sequence_of")


@dataclass(frozen=True, slots=True)
class _Row:
    """One row before padding. `segments`: 0 for the trunk, i + 1 for the rest of reply i."""

    ids: list[int]
    positions: list[int]
    segments: list[int]
    scored: list[tuple[int, int, int]]
    """(sequence, position in the row that predicts it, target token)"""


def _shared_row(group: TokenGroup, first_sequence: int) -> _Row:
    shared = group.common_reply_tokens()
    prompt = len(group.prompt_ids)
    trunk = prompt + shared
    row = _Row([*group.prompt_ids, *group.replies[0][:shared]], list(range(trunk)), [0] * trunk, [])
    for index, reply in enumerate(group.replies):
        offset = len(row.ids)
        rest = reply[shared:-1]
        row.ids.extend(rest)
        row.positions.extend(range(trunk, trunk + len(rest)))
        row.segments.extend([index + 1] * len(rest))
        for at, target in enumerate(reply):
            inside_trunk = at <= shared
            predictor = prompt + at - 1 if inside_trunk else offset + at - shared - 1
            row.scored.append((first_sequence + index, predictor, target))
    return row


def _padded_rows(group: TokenGroup, first_sequence: int) -> list[_Row]:
    prompt = len(group.prompt_ids)
    rows: list[_Row] = []
    for index, reply in enumerate(group.replies):
        ids = [*group.prompt_ids, *reply[:-1]]
        scored = [(first_sequence + index, prompt + at - 1, target) for at, target in enumerate(reply)]
        rows.append(_Row(ids, list(range(len(ids))), [0] * len(ids), scored))
    return rows


def pack(groups: Sequence[TokenGroup], layout: Layout) -> PackedBatch:
    """Lay groups out for one forward pass; sequences keep the order of groups and, within one, of replies."""
    rows: list[_Row] = []
    lengths: list[int] = []
    for group in groups:
        first = len(lengths)
        rows += [_shared_row(group, first)] if layout == "shared" else _padded_rows(group, first)
        lengths += map(len, group.replies)
    T = max(len(row.ids) for row in rows)
    slots: dict[tuple[int, int], int] = {}
    slot_of: list[int] = []
    sequence_of: list[int] = []
    for b, row in enumerate(rows):
        for sequence, position, target in row.scored:
            slot_of.append(slots.setdefault((b * T + position, target), len(slots)))
            sequence_of.append(sequence)

    def grid(values: Iterable[list[int]], fill: int) -> Tensor:
        return torch.tensor([value + [fill] * (T - len(value)) for value in values])

    segments_BT = grid((row.segments for row in rows), -1)
    return PackedBatch(
        input_ids=grid((row.ids for row in rows), 0),
        position_ids=grid((row.positions for row in rows), 0),
        mask=_block_mask(segments_BT) if layout == "shared" else (segments_BT >= 0).long(),
        slots=torch.tensor([position for position, _ in slots]),
        targets=torch.tensor([target for _, target in slots]),
        slot_of=torch.tensor(slot_of),
        sequence_of=torch.tensor(sequence_of),
        sequence_lengths=tuple(lengths),
    )


def _block_mask(segments_BT: Tensor) -> Tensor:
    """[B, 1, T, T] bool: a position sees itself, and what comes before it in the trunk or in its own segment."""
    query, key = segments_BT[:, :, None], segments_BT[:, None, :]
    T = segments_BT.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    # Padding sees itself alone: a row that sees nothing would be NaN, and NaN times a zero weight is NaN.
    mask = (causal & ((key == 0) | (key == query)) & (query >= 0)) | torch.eye(T, dtype=torch.bool)
    return mask[:, None]


def micro_batches(
    items: Sequence[Item], group_of: Callable[[Item], TokenGroup], layout: Layout, tokens_per_forward: int
) -> list[list[Item]]:
    """Split items into forward passes of at most `tokens_per_forward` positions, padding included (one item at least).

    Longest first, so that rows of a pass are of nearly one length and the largest pass comes first: what does not fit in
    memory fails at once. The order of equal lengths is that of `items`.
    """
    sized = sorted(((group_of(item).row_lengths(layout), item) for item in items), key=lambda pair: -max(pair[0]))
    batches: list[list[Item]] = []
    width = rows = 0
    for lengths, item in sized:
        if batches and (rows + len(lengths)) * width <= tokens_per_forward:
            batches[-1].append(item)
            rows += len(lengths)
        else:
            batches.append([item])
            width, rows = max(lengths), len(lengths)
    return batches
