"""What a label run says about its own labeller: printed with every run, stored with the labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from cai.records import ComparisonRecord, LedgerEntry, Method, Outcome, PreferenceRecord


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


def label_quality(pairs: Iterable[PreferenceRecord], entries: Iterable[LedgerEntry] = ()) -> LabelQuality:
    """Sum up a label run: its pairs, and the ledger entries of what became none."""
    found = list(pairs)
    undecided = sum(entry.outcome is Outcome.KEPT and entry.reason == "undecided" for entry in entries)
    judged = len(found) + undecided
    letters = [each for pair in found for each in pair.comparisons if each.method == "letters"]
    gaps = [len(pair.chosen) - len(pair.rejected) for pair in found]
    against_draft = [pair for pair in found if pair.chosen_source in ("draft", "revision")]
    return LabelQuality(
        method=found[0].method if found else None,
        pairs=len(found),
        undecided=undecided,
        undecided_share=undecided / judged if judged else None,
        mean_margin_nats=_mean([pair.margin_nats for pair in found]),
        mean_entropy_bits=_mean([_entropy_bits(pair.p_chosen) for pair in found]),
        draft_won_share=_mean([float(pair.chosen_source == "draft") for pair in against_draft]),
        longer_won_share=_mean([float(gap > 0) for gap in gaps if gap]),
        mean_length_gap_characters=_mean([float(gap) for gap in gaps]),
        same_slot_share=_same_slot_share(letters),
        mean_mass_outside=_mean([each.mass_outside for each in letters]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _entropy_bits(p: float) -> float:
    return 0.0 if p >= 1.0 else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def _same_slot_share(comparisons: Sequence[ComparisonRecord]) -> float | None:
    signs: dict[tuple[str, int, str], dict[str, bool]] = {}
    for each in comparisons:
        signs.setdefault((each.uid, each.replica, each.principle_id), {})[each.order] = each.margin_nats > 0
    both = [orders for orders in signs.values() if len(orders) == 2]
    return _mean([float(orders["first_second"] != orders["second_first"]) for orders in both])
