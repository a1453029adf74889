"""Token groups, and how they lie in a batch.

Knows integers and tensors; knows no model and no text. A group is one prompt with the replies that answer it: a preference
pair has two, a chain of revisions more, a supervised row one. Two layouts:

- *tree*: one row [1, T] for all groups. What sequences begin with together (the prompt, and as much of the replies as agrees)
  is there once: the row is a forest of radix tries in preorder, so that a token's descendants follow it without a gap. The mask
  rule is one comparison: token q sees token k where `k <= q < ends[k]`. Positions count a token's ancestors. No padding.
- *padded*: one row a reply, right-padded, with an ordinary two-dimensional mask. Works with every model.

The last token of a reply is never an input, for it predicts nothing that is scored. Shape suffixes: B rows, T positions,
S slots (positions with a target), M scored tokens (a slot that several replies share counts once for each), R sequences.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from cai.engines.beginnings import common_prefix
from cai.engines.prefixes import TokenTree

Layout: TypeAlias = Literal["tree", "padded"]
Item = TypeVar("Item")

SHARED_TOKENS = 32
"""Groups whose prompts begin with so many tokens in common (a system prompt) are one tree: fewer are not worth a branch. Those
with the same prompt are one tree, however short it is."""


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """One prompt and its replies as token ids.

    Args:
        prompt_ids: The prompt.
        replies: What answers it; a reply may hold other speakers' turns (see `unscored`).
        unscored: For each reply, spans [start, stop) of its tokens that are read but not learnt, in order and apart; empty: all
            are learnt.
        beginnings: (reply, n): also sum the scored ones among the first n tokens of that reply, as a sequence of its own.

    Raises:
        ValueError: If the prompt is empty, spans are out of order, or a reply or beginning has no scored token: its
            log-probability would be 0.
    """

    prompt_ids: tuple[int, ...]
    replies: tuple[tuple[int, ...], ...]
    unscored: tuple[tuple[tuple[int, int], ...], ...] = ()
    beginnings: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.replies or not all(self.replies):
            raise ValueError("a group needs a prompt and replies of at least one token each")
        if self.unscored and len(self.unscored) != len(self.replies):
            raise ValueError("unscored spans are given for each reply or for none")
        for spans in self.unscored:
            ends = [end for span in spans for end in span]
            if ends != sorted(ends) or min(ends, default=0) < 0:
                raise ValueError(f"unscored spans {spans} overlap, or are not in order")
        if not all(self.sequence_lengths):
            raise ValueError("a reply or a beginning of one has no scored token")

    @property
    def sequences(self) -> tuple[tuple[int, int], ...]:
        """(reply, number of its first tokens) of each sequence that is scored: the replies in order, then the beginnings."""
        return (*((index, len(reply)) for index, reply in enumerate(self.replies)), *self.beginnings)

    @property
    def sequence_lengths(self) -> tuple[int, ...]:
        """Scored tokens of each sequence."""
        return tuple(sum(map(len, self.scored_runs(reply, tokens))) for reply, tokens in self.sequences)

    @property
    def scored_tokens(self) -> int:
        """Of all sequences together."""
        return sum(self.sequence_lengths)

    def scored(self, reply: int, tokens: int) -> Iterator[int]:
        """Places of the scored ones among the first `tokens` of a reply."""
        return chain.from_iterable(self.scored_runs(reply, tokens))

    def scored_runs(self, reply: int, tokens: int) -> list[range]:
        """The same as runs without a gap."""
        unscored = self.unscored[reply] if self.unscored else ()
        ends = [0, *(min(end, tokens) for span in unscored for end in span), tokens]
        return [range(start, stop) for start, stop in zip(ends[::2], ends[1::2], strict=True) if start < stop]

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest reply."""
        return len(self.prompt_ids) + max(map(len, self.replies))

    def inputs(self) -> list[tuple[int, ...]]:
        """What the model reads of each reply: the prompt and all of the reply but its last token."""
        return [(*self.prompt_ids, *reply[:-1]) for reply in self.replies]

    def row_lengths(self, layout: Layout) -> list[int]:
        """Positions of each row this group takes; in a tree it takes no row of its own, but so many positions."""
        if layout == "padded":
            return [len(self.prompt_ids) + len(reply) - 1 for reply in self.replies]
        inputs: list[tuple[int, ...]] = []
        return [sum(_insert(inputs, ids) for ids in self.inputs())]


@dataclass(frozen=True, slots=True)
class Part:
    """Where one group's share of a batch lies: its slots, scored tokens and sequences, each without a gap."""

    slots: slice
    tokens: slice
    sequences: slice


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Groups laid out for one forward pass.

    Args:
        input_ids: [B, T] token ids; 0 at padding. B is 1 for trees.
        position_ids: [B, T] place of each token in its own conversation.
        trees: The tries of the row, one behind the other; empty for padded rows.
        mask: [B, T] with 1 for tokens and 0 for padding; None for trees.
        slots: [S] positions, flattened over B and T, whose output predicts a reply token.
        targets: [S] the token each slot predicts.
        slot_of: [M] slot of each scored token.
        sequence_of: [M] sequence (see `TokenGroup.sequences`, numbered over all groups in order) of each scored token.
        sequence_lengths: [R] scored tokens of each sequence.
        parts: Of each group.
    """

    input_ids: Tensor
    position_ids: Tensor
    trees: tuple[TokenTree, ...]
    mask: Tensor | None
    slots: Tensor
    targets: Tensor
    slot_of: Tensor
    sequence_of: Tensor
    sequence_lengths: Tensor
    parts: tuple[Part, ...]

    @property
    def tokens(self) -> int:
        """Positions computed, padding included."""
        return self.input_ids.numel()

    def by_token(self) -> PackedBatch:
        """The same batch with each scored token as a sequence of its own, in the order of sequences and of their tokens.

        For losses of single tokens: R is then M.
        """
        parts = tuple(replace(part, sequences=part.tokens) for part in self.parts)
        tokens = torch.arange(len(self.slot_of), device=self.slot_of.device)
        return replace(self, sequence_of=tokens, sequence_lengths=torch.ones_like(tokens), parts=parts)

    def to(self, device: torch.device) -> PackedBatch:
        moved = {
            name: value.to(device, non_blocking=True)
            for name in PackedBatch.__dataclass_fields__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class _Laid:
    """Inputs of all groups as rows; `places[group][reply][i]` is where, flattened, the i-th token of that input lies."""

    ids: list[list[int]]
    positions: list[list[int]]
    places: list[list[Sequence[int]]]
    trees: tuple[TokenTree, ...]


def _as_trees(groups: Sequence[TokenGroup]) -> _Laid:
    places: list[list[Sequence[int]]] = [[()] * len(group.replies) for group in groups]
    trees: list[TokenTree] = []
    start = 0
    for together in _with_common_prompts(groups):
        tree = TokenTree()
        every = [(ids, at, reply) for at in together for reply, ids in enumerate(groups[at].inputs())]
        for ids, group, reply in sorted(every):
            places[group][reply] = [start + place for place in tree.add(ids)]
        trees.append(tree)
        start += len(tree)
    tokens = [token for tree in trees for token in tree.tokens]
    depths = [depth for tree in trees for depth in tree.depths]
    return _Laid([tokens], [depths], places, tuple(trees))


def _with_common_prompts(groups: Sequence[TokenGroup]) -> list[list[int]]:
    """Groups that are worth one tree, by the beginnings of their prompts."""
    together: list[list[int]] = []
    before: tuple[int, ...] = ()
    for at in sorted(range(len(groups)), key=lambda at: groups[at].prompt_ids):
        prompt = groups[at].prompt_ids
        if together and (prompt == before or common_prefix(before, prompt) >= SHARED_TOKENS):
            together[-1].append(at)
        else:
            together.append([at])
        before = prompt
    return together


def _as_rows(groups: Sequence[TokenGroup]) -> _Laid:
    rows = [[list(ids) for ids in group.inputs()] for group in groups]
    ids = [row for of_group in rows for row in of_group]
    width = max(map(len, ids))
    starts = iter(range(0, len(ids) * width, width))
    places: list[list[Sequence[int]]] = [
        [range(start, start + len(row)) for row, start in zip(of_group, starts, strict=False)] for of_group in rows
    ]
    return _Laid(ids, [list(range(len(row))) for row in ids], places, ())


def pack(groups: Sequence[TokenGroup], layout: Layout, *, multiple: int = 1) -> PackedBatch:
    """Lay groups out for one forward pass; sequences keep the order of groups and, within one, of `TokenGroup.sequences`.

    Args:
        groups: At least one.
        layout: See above.
        multiple: A tree row is padded to a multiple of so many positions, with tokens that see themselves and each other.
    """
    laid = _as_trees(groups) if layout == "tree" else _as_rows(groups)
    if layout == "tree" and (lacking := -len(laid.ids[0]) % multiple):
        padding = TokenTree()
        padding.add([0] * lacking)
        laid = _Laid([laid.ids[0] + padding.tokens], [laid.positions[0] + padding.depths], laid.places, (*laid.trees, padding))
    targets: list[int] = []
    slots: list[int] = []
    slot_of: list[int] = []
    sequence_of: list[int] = []
    lengths: list[int] = []
    parts: list[Part] = []
    for group, places in zip(groups, laid.places, strict=True):
        known: dict[tuple[int, int], int] = {}  # of this group alone: its slots are nobody else's
        before = len(slots), len(slot_of), len(lengths)
        prompt = len(group.prompt_ids)
        for reply, tokens in group.sequences:
            scored = list(group.scored(reply, tokens))
            for at in scored:
                predicted = places[reply][prompt + at - 1], group.replies[reply][at]
                if predicted not in known:
                    known[predicted] = len(slots)
                    slots.append(predicted[0])
                    targets.append(predicted[1])
                slot_of.append(known[predicted])
            sequence_of += [len(lengths)] * len(scored)
            lengths.append(len(scored))
        parts.append(Part(*(slice(*ends) for ends in zip(before, (len(slots), len(slot_of), len(lengths)), strict=True))))

    width = max(map(len, laid.ids))

    def grid(rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])

    return PackedBatch(
        input_ids=grid(laid.ids),
        position_ids=grid(laid.positions),
        trees=laid.trees,
        mask=None if layout == "tree" else grid([[1] * len(row) for row in laid.ids]),
        slots=torch.tensor(slots),
        targets=torch.tensor(targets),
        slot_of=torch.tensor(slot_of),
        sequence_of=torch.tensor(sequence_of),
        sequence_lengths=torch.tensor(lengths),
        parts=tuple(parts),
    )


def micro_batches(
    items: Sequence[Item], group_of: Callable[[Item], TokenGroup], layout: Layout, tokens_per_forward: int
) -> list[list[Item]]:
    """Split items into forward passes of at most `tokens_per_forward` positions, padding included (one item at least).

    Longest first, so that the largest comes first: what does not fit in memory fails at once. Trees fill passes to the brim
    (first fit, decreasing), items with the same prompt side by side as far as they fit, since they are one tree; padded rows
    of a pass are of nearly one length. The order of equal lengths is that of `items`.
    """
    if layout == "tree":
        return _tree_batches(items, group_of, tokens_per_forward)
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


def _tree_batches(items: Sequence[Item], group_of: Callable[[Item], TokenGroup], tokens_per_forward: int) -> list[list[Item]]:
    of_prompt: dict[tuple[int, ...], list[Item]] = {}
    for item in items:
        of_prompt.setdefault(group_of(item).prompt_ids, []).append(item)
    sized = [part for siblings in of_prompt.values() for part in _fitting(siblings, group_of, tokens_per_forward)]
    batches: list[list[Item]] = []
    room: list[int] = []
    for tokens, together in sorted(sized, key=lambda part: -part[0]):
        fits = next((at for at, left in enumerate(room) if tokens <= left), None)
        if fits is None:
            batches.append(list(together))
            room.append(tokens_per_forward - tokens)
        else:
            batches[fits] += together
            room[fits] -= tokens
    return batches


def _fitting(
    siblings: Sequence[Item], group_of: Callable[[Item], TokenGroup], tokens_per_forward: int
) -> Iterator[tuple[int, list[Item]]]:
    """Items with one prompt, cut where their tree would have more positions than allowed; with the positions of each part."""
    together: list[Item] = []
    ordered: list[tuple[int, ...]] = []
    positions = 0
    for item in siblings:
        grown = sum(_insert(ordered, ids) for ids in group_of(item).inputs())
        if together and positions + grown > tokens_per_forward:
            yield positions, together
            together, ordered, positions = [], [], 0
            grown = sum(_insert(ordered, ids) for ids in group_of(item).inputs())
        together.append(item)
        positions += grown
    yield positions, together


def _insert(ordered: list[tuple[int, ...]], ids: tuple[int, ...]) -> int:
    """Put an input among those of one tree, in order; returns by how many positions the tree grows."""
    at = bisect_left(ordered, ids)
    before, after = ordered[max(at - 1, 0) : at], ordered[at : at + 1]
    shared = sum(common_prefix(other, ids) for other in (*before, *after))
    apart = common_prefix(*before, *after) if before and after else 0
    ordered.insert(at, ids)
    return len(ids) - shared + apart
