"""Rows too large for one forward pass, cut into parts that fit: each pair stays whole, and is in exactly one part.

Losses and metrics are sums over pairs, so that cutting changes neither. A reply that pairs of several parts need is computed
in each of them. A single pair that does not fit is a part, and so a pass, of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from cai.training.packing import Layout, TokenGroup
from cai.training.rows import PreferenceRow, TrainingRow


def parts_of(rows: Sequence[TrainingRow], layout: Layout, tokens_per_forward: int) -> list[TrainingRow]:
    """Rows in order, each as few parts of at most `tokens_per_forward` positions as first-fit finds.

    A part takes the first pair that is left, then each following one with which it still fits. Equal arguments give equal
    parts.
    """
    parts: list[TrainingRow] = []
    for row in rows:
        if not isinstance(row, PreferenceRow) or len(row.pairs) == 1 or _fits(row.group, layout, tokens_per_forward):
            parts.append(row)
        else:
            parts += _cut(row, layout, tokens_per_forward)
    return parts


def _cut(row: PreferenceRow, layout: Layout, tokens_per_forward: int) -> list[PreferenceRow]:
    parts: list[PreferenceRow] = []
    left = list(range(len(row.pairs)))
    while left:
        taken: list[int] = left[:1]
        for at in left[1:]:
            if _fits(row.only([*taken, at]).group, layout, tokens_per_forward):
                taken.append(at)
        parts.append(row.only(taken))
        left = [at for at in left if at not in taken]
    return parts


def _fits(group: TokenGroup, layout: Layout, tokens_per_forward: int) -> bool:
    lengths = group.row_lengths(layout)
    return len(lengths) * max(lengths) <= tokens_per_forward
