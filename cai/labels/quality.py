"""What a label run says about its own labeller: printed with every run, stored with the labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from pydantic import BaseModel, ConfigDict

from cai.records import ComparisonRecord, FailureRecord, LedgerEntry, Method, Outcome, PreferenceRecord


class LabelQuality(BaseModel):
    """Shares are in [0, 1]; None where there was nothing to measure on.

    What is said of labels and letters is said of the pairs that were kept; the undecided ones are counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method | None
    pairs: int
    undecided: int
    undecided_share: float | None
    mean_margin_nats: float | None
    mean_entropy_bits: float | None
    """Of the labels: 1 bit is a coin toss, 0 certainty."""
    draft_won_share: float | None
    """Pairs in which the judge preferred the draft to its revision."""
    longer_won_share: float | None
    """Pairs in which the longer answer (in characters) was chosen."""
    mean_length_gap_characters: float | None
    """Chosen minus rejected."""
    same_slot_share: float | None
    """letters: comparisons in which both orders named the same letter."""
    mean_mass_outside: float | None
    """letters: probability that went to neither letter."""


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class LabelTally:
    """Sums up a label run while it goes on, one outcome after the other; memory does not grow with them."""

    def __init__(self) -> None:
        self._method: Method | None = None
        self._pairs = self._undecided = 0
        self._margins, self._entropies, self._gaps = _Mean(), _Mean(), _Mean()
        self._draft_won, self._longer_won = _Mean(), _Mean()
        self._same_slot, self._masses_outside = _Mean(), _Mean()

    def add(self, label: PreferenceRecord | LedgerEntry | FailureRecord) -> None:
        match label:
            case PreferenceRecord():
                self._add_pair(label)
            case LedgerEntry(outcome=Outcome.KEPT, reason="undecided"):
                self._undecided += 1
            case _:
                pass

    def quality(self) -> LabelQuality:
        """Of all that was added."""
        judged = self._pairs + self._undecided
        return LabelQuality(
            method=self._method,
            pairs=self._pairs,
            undecided=self._undecided,
            undecided_share=self._undecided / judged if judged else None,
            mean_margin_nats=self._margins.value,
            mean_entropy_bits=self._entropies.value,
            draft_won_share=self._draft_won.value,
            longer_won_share=self._longer_won.value,
            mean_length_gap_characters=self._gaps.value,
            same_slot_share=self._same_slot.value,
            mean_mass_outside=self._masses_outside.value,
        )

    def _add_pair(self, pair: PreferenceRecord) -> None:
        self._method = self._method or pair.method
        self._pairs += 1
        self._margins.add(pair.margin_nats)
        self._entropies.add(_entropy_bits(pair.p_chosen))
        gap = len(pair.chosen) - len(pair.rejected)
        self._gaps.add(gap)
        if gap:
            self._longer_won.add(gap > 0)
        if pair.chosen_source in ("draft", "revision"):
            self._draft_won.add(pair.chosen_source == "draft")
        letters = [each for each in pair.comparisons if each.method == "letters"]
        for each in letters:
            self._masses_outside.add(each.mass_outside)
        for same in _same_slots(letters):
            self._same_slot.add(same)


def label_quality(pairs: Iterable[PreferenceRecord], entries: Iterable[LedgerEntry] = ()) -> LabelQuality:
    """Sum up a label run: its pairs, and the ledger entries of what became none."""
    tally = LabelTally()
    for each in chain(pairs, entries):
        tally.add(each)
    return tally.quality()


def _entropy_bits(p: float) -> float:
    return 0.0 if p >= 1.0 else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def _same_slots(comparisons: Iterable[ComparisonRecord]) -> Iterator[bool]:
    """Of one pair: for each principle judged in both orders, whether both named the same letter."""
    signs: dict[str, dict[str, bool]] = {}
    for each in comparisons:
        signs.setdefault(each.principle_id, {})[each.order] = each.margin_nats > 0
    return (orders["first_second"] != orders["second_first"] for orders in signs.values() if len(orders) == 2)
