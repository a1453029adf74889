"""Many comparisons of one pair → one margin: over orders, then principles, then labelling models."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cai.labels.settings import Ensemble
from cai.records import ComparisonRecord

Voice: TypeAlias = tuple[int, str]
"""A labelling model, by its place, under a principle, by its id."""


@dataclass
class MarginScales:
    """How large the margins of each voice are, over many pairs: the root of their mean square, in nats.

    Which of two answers comes first means nothing, so the spread is taken around zero and not around the mean.
    """

    _squares: dict[Voice, float] = field(default_factory=lambda: defaultdict(float))
    _counts: dict[Voice, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, comparisons: Iterable[ComparisonRecord]) -> None:
        """Count one pair."""
        for voice, margin in voice_margins(comparisons).items():
            self._squares[voice] += margin**2
            self._counts[voice] += 1

    def result(self) -> dict[Voice, float]:
        """Voice → scale; a voice that never said anything has scale 0."""
        return {voice: math.sqrt(self._squares[voice] / count) for voice, count in sorted(self._counts.items())}


def voice_margins(comparisons: Iterable[ComparisonRecord]) -> dict[Voice, float]:
    """The margin of each voice, in nats: the mean over the orders it judged in."""
    orders: dict[Voice, list[float]] = {}
    for each in comparisons:
        orders.setdefault((each.labeller, each.principle_id), []).append(each.margin_nats)
    return {voice: sum(margins) / len(margins) for voice, margins in orders.items()}


def pair_margin(
    comparisons: Sequence[ComparisonRecord],
    ensemble: Ensemble = "mean",
    *,
    weights: Mapping[str, float] | None = None,
    scales: Mapping[Voice, float] | None = None,
) -> float:
    """One pair's margin in nats; it turns its sign when the pair is turned.

    Args:
        comparisons: Of the pair; at least one.
        ensemble: `mean`; `weighted` by `weights`; `normalised`: each voice's margin is divided by its scale, so that a
            principle with large margins does not decide alone (as SALMON does, arXiv 2310.05910), and the mean is given back
            the typical scale, so that it still is in nats.
        weights: Principle → weight (`weighted`).
        scales: Voice → scale (`normalised`).
    """
    margins = voice_margins(comparisons)
    back = 1.0
    if ensemble == "normalised":
        scales = scales or {}
        margins = {voice: margin / scales[voice] for voice, margin in margins.items() if scales.get(voice, 0.0) > 0.0}
        used = [scales[voice] for voice in margins]
        back = sum(used) / len(used) if used else 0.0
    by_labeller: dict[int, list[tuple[float, float]]] = {}
    for (labeller, principle_id), margin in margins.items():
        weight = (weights or {}).get(principle_id, 1.0) if ensemble == "weighted" else 1.0
        by_labeller.setdefault(labeller, []).append((weight, margin))
    if not by_labeller:
        return 0.0
    return back * sum(_weighted_mean(each) for each in by_labeller.values()) / len(by_labeller)


def _weighted_mean(values: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for weight, _ in values)
    return sum(weight * value for weight, value in values) / total if total else 0.0
