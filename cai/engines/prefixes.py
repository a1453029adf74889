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

from cai.engines.beginnings import common_prefix

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
    _ends: list[int] = field(default_factory=list[int])
    """Right for tokens that nothing can be added to any more: 0 stands for the others."""
    _last: tuple[int, ...] = ()
    """The sequence that the next one may go on from, and its path."""
    _last_path: list[int] = field(default_factory=list[int])
    _branched: bool = False

    def add(self, sequence: Sequence[int]) -> list[int]:
        """Add a sequence; returns the place of each of its tokens."""
        sequence = tuple(sequence)
        shared = common_prefix(self._last, sequence)
        if shared == len(sequence) < len(self._last):
            return self._last_path[:shared]  # a prefix of what is there: the longer path stays open
        size = len(self.tokens)
        self._branched |= size > 0 and shared < len(self._last)
        for place in self._last_path[shared:]:
            self._ends[place] = size
        new = len(sequence) - shared
        self.tokens += sequence[shared:]
        self.depths += range(shared, len(sequence))
        self._ends += [0] * new
        self._last, self._last_path = sequence, [*self._last_path[:shared], *range(size, size + new)]
        return list(self._last_path)

    @property
    def ends(self) -> list[int]:
        """One past the last descendant of each token."""
        size = len(self.tokens)
        return [end or size for end in self._ends]

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
