"""What sequences have in common at their beginning: token ids of prompts, or the texts they are made of. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

MIN_SHARED_SHARE = 0.5
"""Share of its tokens that a sequence must have in common with its neighbour to be packed with it. All prompts of one chat
template have their first tokens in common; packing them for that would save less than the wider attention costs."""


def group_by_prefix(
    sequences: Sequence[Sequence[object]], most: int, *, least_share: float = MIN_SHARED_SHARE
) -> list[list[int]]:
    """Put sequences with long common prefixes together.

    Args:
        sequences: Token ids or texts, all of one type.
        most: Tokens (characters) of one group, where what is shared counts once; a longer sequence stands alone.
        least_share: Of its tokens, what a sequence must have in common with its neighbour.

    Returns:
        Groups of indices, each group in lexicographic order; the group with the longest sequence first.
    """
    groups: list[list[int]] = []
    size = 0
    for index in sorted(range(len(sequences)), key=lambda each: cast("Any", sequences[each])):
        sequence = sequences[index]
        shared = common_prefix(sequences[groups[-1][-1]], sequence) if groups else 0
        fits = size + len(sequence) - shared <= most
        if groups and fits and shared >= least_share * len(sequence):
            groups[-1].append(index)
            size += len(sequence) - shared
        else:
            groups.append([index])
            size = len(sequence)
    groups.sort(key=lambda group: -max(len(sequences[index]) for index in group))
    return groups


def common_prefix(first: Sequence[object], second: Sequence[object]) -> int:
    """How many tokens (characters) two sequences of one type have in common at their beginning."""
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
