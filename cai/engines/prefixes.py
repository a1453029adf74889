"""Token sequences that share beginnings, packed so that what they share is computed once.

Sequences with a long common prefix become one tree of tokens; each token sees its ancestors only, so every sequence gets
exactly what it would get alone. A sequence that shares nothing is a tree without branches. Shape suffixes: R trees, Q tokens
of the largest tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MIN_SHARED_SHARE = 0.5
"""Share of its tokens that a sequence must have in common with its neighbour to be packed with it. All prompts of one chat
template have their first tokens in common; packing them for that would save less than the wider attention costs."""

WIDTH_STEP = 64
"""Trees are padded to a multiple of so many tokens. Kernels add up what lies in one row in blocks of up to 64: padded so, a row
gets the same sums, to the last bit, beside any neighbours of its own width."""


@dataclass(slots=True)
class TokenTree:
    """Tokens in preorder: a token's descendants follow it without a gap, so "is an ancestor" is a comparison of places.

    `add` must be called in the lexicographic order of the sequences.
    """

    tokens: list[int] = field(default_factory=list[int])
    depths: list[int] = field(default_factory=list[int])
    ends: list[int] = field(default_factory=list[int])
    """One past the last descendant of each token."""
    _last_path: list[int] = field(default_factory=list[int])
    _branched: bool = False

    def add(self, sequence: Sequence[int]) -> list[int]:
        """Add a sequence; returns the place of each of its tokens."""
        shared = 0
        for place, token in zip(self._last_path, sequence, strict=False):
            if self.tokens[place] != token:
                break
            shared += 1
        self._branched |= len(self.tokens) > 0 and shared < len(self._last_path)
        path = self._last_path[:shared]
        for token in sequence[shared:]:
            path.append(len(self.tokens))
            self.depths.append(len(path) - 1)
            self.tokens.append(token)
            self.ends.append(0)
        for place in path:
            self.ends[place] = len(self.tokens)
        if shared == len(sequence) < len(self._last_path):
            return path  # a prefix of what is there: the longer path stays open
        self._last_path = path
        return list(path)

    @property
    def is_chain(self) -> bool:
        return not self._branched

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees side by side in one forward pass, padded on the right."""

    trees: tuple[TokenTree, ...]

    @property
    def width(self) -> int:
        """Q: tokens of a row, padding included."""
        return padded_width(max(map(len, self.trees)))

    @property
    def padded_tokens(self) -> int:
        return len(self.trees) * self.width

    @property
    def is_chains(self) -> bool:
        """Whether a plain causal mask is right: the fast kernels know it."""
        return all(tree.is_chain for tree in self.trees)

    def ids(self) -> Tensor:
        """ids_RQ."""
        return self._padded([tree.tokens for tree in self.trees], 0)

    def positions(self) -> Tensor:
        """positions_RQ: how many ancestors each token has."""
        return self._padded([tree.depths for tree in self.trees], 0)

    def sees(self, window: int | None = None) -> Tensor:
        """Boolean mask_R1QQ: whether a query token (row) sees a key token (column).

        Args:
            window: Only ancestors less than so many positions back.
        """
        Q = self.width
        places_Q = torch.arange(Q)
        ends = [[*tree.ends, *range(len(tree) + 1, Q + 1)] for tree in self.trees]  # padding sees itself: no empty rows
        ends_RQ = torch.tensor(ends)
        mask_RQQ = (places_Q[None, None] <= places_Q[None, :, None]) & (places_Q[None, :, None] < ends_RQ[:, None])
        if window is not None:
            positions_RQ = self.positions()
            mask_RQQ &= positions_RQ[:, :, None] - positions_RQ[:, None] < window
        return mask_RQQ[:, None]

    def _padded(self, rows: Sequence[Sequence[int]], value: int) -> Tensor:
        width = self.width
        return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def padded_width(tokens: int) -> int:
    """The next multiple of `WIDTH_STEP`."""
    return -(-tokens // WIDTH_STEP) * WIDTH_STEP


def group_by_prefix(sequences: Sequence[Sequence[int]], most_tokens: int, *, share: bool = True) -> list[list[int]]:
    """Put sequences with long common prefixes together.

    Args:
        sequences: Token ids.
        most_tokens: Tokens of one tree; a longer sequence stands alone.
        share: False: only equal sequences come together.

    Returns:
        Groups of indices, each group in lexicographic order; the group with the longest sequence first.
    """
    groups: list[list[int]] = []
    size = 0
    for index in sorted(range(len(sequences)), key=lambda each: tuple(sequences[each])):
        sequence = sequences[index]
        shared = common_prefix(sequences[groups[-1][-1]], sequence) if groups else 0
        fits = size + len(sequence) - shared <= most_tokens
        equal = bool(groups) and shared == len(sequence) == len(sequences[groups[-1][-1]])
        if groups and fits and (shared >= MIN_SHARED_SHARE * len(sequence) if share else equal):
            groups[-1].append(index)
            size += len(sequence) - shared
        else:
            groups.append([index])
            size = len(sequence)
    groups.sort(key=lambda group: -max(len(sequences[index]) for index in group))
    return groups


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while low < high:  # comparing slices is much faster than comparing tokens one by one
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
