"""How much longer chosen replies are than rejected ones: a model that is trained on them learns length, too."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

from cai.records import PreferenceRecord


@dataclass(frozen=True, slots=True)
class LengthGap:
    """How much longer chosen replies are than rejected ones, in characters: training learns length, too, if they are."""

    mean: float
    median: float
    chosen_longer_share: float


class LengthGaps:
    """Gaps of pairs, counted while they go by; memory grows with the lengths there are, not with the pairs."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, pair: PreferenceRecord) -> None:
        self._counts[len(pair.chosen) - len(pair.rejected)] += 1

    def result(self) -> LengthGap | None:
        """Of all pairs that were added; None without any."""
        total = self._counts.total()
        if not total:
            return None
        ordered = sorted(self._counts.items())
        below = list(accumulate(count for _, count in ordered))
        middle = [ordered[bisect_right(below, place)][0] for place in ((total - 1) // 2, total // 2)]
        longer = sum(count for gap, count in ordered if gap > 0)
        return LengthGap(sum(gap * count for gap, count in ordered) / total, sum(middle) / 2, longer / total)
