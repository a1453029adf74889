"""What a label run says about its own labeller: printed with every run, stored with the labels.

Counted over all compared pairs, the undecided ones included: a judge that answers a position decides little, and what it did
decide would hide it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import NormalDist
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

from cai.labels.agreement import Agreement, AgreementTally
from cai.labels.ensemble import Voice, voice_margins
from cai.labels.exam import ExamResult
from cai.labels.human_labels import HumanAgreement
from cai.labels.shares import Share
from cai.records import ComparedPair, Method, PreferenceRecord, UndecidedRecord
from cai.statistics import CONFIDENCE, Interval

Orders: TypeAlias = Mapping[str, float]
"""Order → margin in nats, of one pair under one principle by one model."""

_UNIT = 2**40
"""Sums are of whole numbers of 2⁻⁴⁰: exact, so that the same pairs in any order, or in shards, give the same figures."""


class PrincipleQuality(BaseModel):
    """One principle as a judge among others.

    Args:
        principle_id: Whose.
        pairs: Compared under it.
        mean_margin_nats: For the answer that all principles together prefer.
        agreeing: Pairs that other principles judged too, in which it prefers the same answer as all together.
        conflicts: Those in which it prefers the other one.
        same_slot: letters: pairs in which both orders name the same letter under it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    principle_id: str
    pairs: int
    mean_margin_nats: float | None
    agreeing: Share | None
    conflicts: int
    same_slot: Share | None


class LabelQuality(BaseModel):
    """Shares are in [0, 1], intervals 95 %; None where there was nothing to measure on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method | None
    debated: bool = False
    """letters: advocates had spoken for the answers."""
    pairs: int
    """Labelled."""
    undecided: int
    undecided_share: Share | None
    """Of all compared pairs."""
    undecided_reasons: dict[str, int]
    mean_margin_nats: float | None
    """Of the labelled pairs."""
    mean_entropy_bits: float | None
    """Of the labels: 1 bit is a coin toss, 0 certainty."""
    draft_won_share: Share | None
    """Labelled pairs of a draft and a revision in which the draft was preferred."""
    longer_won_share: Share | None
    """Labelled pairs in which the longer answer (in characters) was chosen."""
    mean_length_gap_characters: float | None
    """Chosen minus rejected."""
    length_correlation: float | None
    """Pearson's, of an answer's margin with the logarithm of its length over the other's, over all compared pairs."""
    length_correlation_interval: Interval | None
    margin_per_doubling_nats: float | None
    """Slope of the same: what being twice as long as the other answer goes with."""
    same_slot_share: Share | None
    """letters: compared pairs in which both orders, over all principles and models, name the same letter."""
    named_a_share: float | None
    """letters: answers, one for each order, principle and model, that name A: half, of a judge without a taste for a place."""
    mean_position_bias_nats: float | None
    """letters: half the sum of both orders' log P(A) − log P(B), over all comparisons: positive for a taste for A."""
    position_bias_spread_nats: float | None
    """Its standard deviation."""
    mean_mass_outside: float | None
    """letters, yes_no: probability that went to none of the words asked for."""
    agreement_of_principles: Agreement | None
    agreement_of_orders: Agreement | None
    agreement_of_labellers: Agreement | None
    principles: tuple[PrincipleQuality, ...]
    """By id."""
    exam: ExamResult | None = None
    """The principles' own tests, judged before the run; None if they were not."""
    human: HumanAgreement | None = None
    """None without pairs labelled by people."""
    weak_labels_allowed: tuple[str, ...] = ()
    """What the labels would have been refused for, had it not been allowed."""


@dataclass
class _Sum:
    total: int = 0
    count: int = 0

    def add(self, value: float) -> None:
        self.total += round(value * _UNIT)
        self.count += 1

    @property
    def value(self) -> float:
        return self.total / _UNIT

    @property
    def mean(self) -> float | None:
        return self.value / self.count if self.count else None


@dataclass
class _Moments:
    """Of pairs of numbers (x, y)."""

    x: _Sum = field(default_factory=_Sum)
    y: _Sum = field(default_factory=_Sum)
    xx: _Sum = field(default_factory=_Sum)
    yy: _Sum = field(default_factory=_Sum)
    xy: _Sum = field(default_factory=_Sum)

    def add(self, x: float, y: float) -> None:
        for each, value in ((self.x, x), (self.y, y), (self.xx, x * x), (self.yy, y * y), (self.xy, x * y)):
            each.add(value)

    def line(self) -> tuple[float | None, float | None]:
        """Slope of y over x, and their correlation; None where x, or both, do not vary."""
        n = self.x.count
        if n < 2:
            return None, None
        xx = self.xx.value - self.x.value**2 / n
        yy = self.yy.value - self.y.value**2 / n
        xy = self.xy.value - self.x.value * self.y.value / n
        if xx <= 1e-9 * n:
            return None, None
        return xy / xx, max(-1.0, min(1.0, xy / math.sqrt(xx * yy))) if yy > 1e-9 * n else None


@dataclass
class _Count:
    count: int = 0
    of: int = 0

    def add(self, holds: bool) -> None:  # noqa: FBT001 - what is counted
        self.count += holds
        self.of += 1

    @property
    def share(self) -> Share | None:
        return Share.of(self.count, self.of)


@dataclass
class _PrincipleTally:
    margins: _Sum = field(default_factory=_Sum)
    agreeing: _Count = field(default_factory=_Count)
    same_slot: _Count = field(default_factory=_Count)


class LabelTally:
    """Sums up a label run while it goes on, one compared pair after the other; memory does not grow with them."""

    def __init__(self) -> None:
        self._method: Method | None = None
        self._debated = False
        self._labels = 0
        self._longer_won, self._draft_won, self._same_slot = _Count(), _Count(), _Count()
        self._undecided: Counter[str] = Counter()
        self._margins, self._entropies, self._gaps = _Sum(), _Sum(), _Sum()
        self._named_a, self._masses_outside = _Sum(), _Sum()
        self._lengths, self._biases, self._squared_biases = _Moments(), _Sum(), _Sum()
        self._of_principles, self._of_orders, self._of_labellers = AgreementTally(), AgreementTally(), AgreementTally()
        self._principles: dict[str, _PrincipleTally] = {}

    @property
    def compared(self) -> int:
        """Pairs counted so far, with a label or without."""
        return self._labels + self._undecided.total()

    def add(self, pair: ComparedPair) -> None:
        """Count one pair."""
        self._method = self._method or pair.method
        if isinstance(pair, PreferenceRecord):
            self._add_label(pair)
        else:
            self._undecided[pair.reason] += 1
        margin = pair.first_margin_nats
        if pair.first and pair.second:
            self._lengths.add(math.log2(len(pair.first) / len(pair.second)), margin)
        orders: dict[Voice, dict[str, float]] = {}
        for each in pair.comparisons:
            orders.setdefault((each.labeller, each.principle_id), {})[each.order] = each.margin_nats
            if each.method in ("letters", "yes_no"):
                self._masses_outside.add(each.mass_outside)
            self._debated = self._debated or each.arguments is not None
        self._add_positions(orders)
        self._add_voices(voice_margins(pair.comparisons), margin)

    def quality(self) -> LabelQuality:
        """Of all that was added."""
        undecided = self._undecided.total()
        slope, correlation = self._lengths.line()
        return LabelQuality(
            method=self._method,
            debated=self._debated,
            pairs=self._labels,
            undecided=undecided,
            undecided_share=Share.of(undecided, self.compared),
            undecided_reasons=dict(sorted(self._undecided.items())),
            mean_margin_nats=self._margins.mean,
            mean_entropy_bits=self._entropies.mean,
            draft_won_share=self._draft_won.share,
            longer_won_share=self._longer_won.share,
            mean_length_gap_characters=self._gaps.mean,
            length_correlation=correlation,
            length_correlation_interval=_correlation_interval(correlation, self._lengths.x.count),
            margin_per_doubling_nats=slope,
            same_slot_share=self._same_slot.share,
            named_a_share=self._named_a.mean,
            mean_position_bias_nats=self._biases.mean,
            position_bias_spread_nats=_spread(self._biases, self._squared_biases),
            mean_mass_outside=self._masses_outside.mean,
            agreement_of_principles=self._of_principles.agreement(),
            agreement_of_orders=self._of_orders.agreement(),
            agreement_of_labellers=self._of_labellers.agreement(),
            principles=tuple(_principle(each, self._principles[each]) for each in sorted(self._principles)),
        )

    def _add_label(self, pair: PreferenceRecord) -> None:
        self._labels += 1
        self._margins.add(pair.margin_nats)
        self._entropies.add(_entropy_bits(pair.p_chosen))
        gap = len(pair.chosen) - len(pair.rejected)
        self._gaps.add(gap)
        if gap:
            self._longer_won.add(gap > 0)
        if {pair.chosen_source, pair.rejected_source} == {"draft", "revision"}:
            self._draft_won.add(pair.chosen_source == "draft")

    def _add_positions(self, orders: Mapping[Voice, Orders]) -> None:
        """letters: what one pair says of the judge's taste for a place. Margins speak of the first answer in either order."""
        both = {voice: (m["first_second"], m["second_first"]) for voice, m in orders.items() if len(m) == 2}
        if not both:
            return
        for (_, principle_id), (straight, swapped) in both.items():
            bias = (straight - swapped) / 2
            self._biases.add(bias)
            self._squared_biases.add(bias * bias)
            for a_margin in (straight, -swapped):
                if a_margin:
                    self._named_a.add(a_margin > 0)
            self._principle(principle_id).same_slot.add(straight * swapped < 0)
        overall = [sum(margins) for margins in zip(*both.values(), strict=True)]
        self._same_slot.add(overall[0] * overall[1] < 0)
        self._of_orders.add(overall)

    def _add_voices(self, voices: Mapping[Voice, float], pair_margin: float) -> None:
        """What principles and models make of one pair, each by itself."""
        by_principle: dict[str, list[float]] = {}
        by_labeller: dict[int, list[float]] = {}
        for (labeller, principle_id), margin in voices.items():
            by_principle.setdefault(principle_id, []).append(margin)
            by_labeller.setdefault(labeller, []).append(margin)
        self._of_principles.add(map(_mean, by_principle.values()))
        self._of_labellers.add(map(_mean, by_labeller.values()))
        for principle_id, margins in by_principle.items():
            tally, margin = self._principle(principle_id), _mean(margins)
            tally.margins.add(math.copysign(1, pair_margin) * margin if pair_margin else 0.0)
            if len(by_principle) > 1 and margin and pair_margin:
                tally.agreeing.add((margin > 0) == (pair_margin > 0))

    def _principle(self, principle_id: str) -> _PrincipleTally:
        return self._principles.setdefault(principle_id, _PrincipleTally())


def label_quality(pairs: Iterable[PreferenceRecord], undecided: Iterable[UndecidedRecord] = ()) -> LabelQuality:
    """Sum up a label run from its pairs and what was compared and became none, in whatever order."""
    tally = LabelTally()
    for each in chain(pairs, undecided):
        tally.add(each)
    return tally.quality()


def _principle(principle_id: str, tally: _PrincipleTally) -> PrincipleQuality:
    agreeing = tally.agreeing
    return PrincipleQuality(
        principle_id=principle_id,
        pairs=tally.margins.count,
        mean_margin_nats=tally.margins.mean,
        agreeing=agreeing.share,
        conflicts=agreeing.of - agreeing.count,
        same_slot=tally.same_slot.share,
    )


def _entropy_bits(p: float) -> float:
    return 0.0 if p >= 1.0 else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: _Sum, squares: _Sum) -> float | None:
    if values.mean is None or squares.mean is None:
        return None
    return math.sqrt(max(0.0, squares.mean - values.mean**2))


def _correlation_interval(correlation: float | None, n: int) -> Interval | None:
    """95 %, by Fisher's transformation: artanh r is nearly normal, with a standard deviation of 1/√(n − 3)."""
    if correlation is None or n < 4 or abs(correlation) >= 1:
        return None
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) / math.sqrt(n - 3)
    centre = math.atanh(correlation)
    return Interval(math.tanh(centre - half), math.tanh(centre + half))
