"""Do several judgements of the same two answers agree: those of several principles, of both orders, of several models?

A judgement names the first or the second answer. Units are pairs; only how often each mixture of judgements was met is kept, so
memory does not grow with the pairs, and the figures do not depend on their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import krippendorff
import numpy as np
from pydantic import BaseModel, ConfigDict

MOST_UNITS = 20_000
"""Units that alpha is computed of; more are scaled down in proportion, which changes it by less than 0.001."""


class Agreement(BaseModel):
    """How far judgements of the same pairs agree.

    Args:
        pairs: Judged at least twice.
        agreeing_share: Of two judgements of one pair, drawn at random, how often both name the same answer; in [0, 1].
        alpha: Krippendorff's alpha (nominal): 1 for perfect agreement, 0 for that of chance, negative below it. None where all
            judgements name the same place: there is nothing to agree about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    agreeing_share: float
    alpha: float | None


class AgreementTally:
    """Counts pairs by (judgements for the first answer, judgements for the second)."""

    def __init__(self) -> None:
        self._mixtures: Counter[tuple[int, int]] = Counter()

    def add(self, margins_nats: Iterable[float]) -> None:
        """The judgements of one pair; those of exactly 0 name neither answer, and fewer than two cannot disagree."""
        margins = tuple(margins_nats)
        mixture = sum(margin > 0 for margin in margins), sum(margin < 0 for margin in margins)
        if sum(mixture) > 1:
            self._mixtures[mixture] += 1

    def agreement(self) -> Agreement | None:
        """Of all pairs that were judged at least twice; None if none was."""
        if not self._mixtures:
            return None
        mixtures = np.array(sorted(self._mixtures), dtype=np.int64)
        pairs = np.array([self._mixtures[first, second] for first, second in mixtures.tolist()], dtype=np.int64)
        judged = mixtures.sum(axis=1)
        agreeing = (mixtures * (mixtures - 1)).sum(axis=1) / (judged * (judged - 1))
        total = int(pairs.sum())
        return Agreement(pairs=total, agreeing_share=float((agreeing * pairs).sum() / total), alpha=_alpha(mixtures, pairs))


def _alpha(mixtures: np.ndarray, pairs: np.ndarray) -> float | None:
    if (mixtures.sum(axis=0) == 0).any():
        return None
    total = int(pairs.sum())
    units = pairs if total <= MOST_UNITS else np.maximum(1, np.rint(pairs * (MOST_UNITS / total)).astype(np.int64))
    return krippendorff_alpha(np.repeat(mixtures, units, axis=0))


def krippendorff_alpha(counts_UV: np.ndarray) -> float:
    """Krippendorff's alpha, nominal: for each of U units how often each of V values was named. Two values or more are named."""
    return float(krippendorff.alpha(value_counts=counts_UV, level_of_measurement="nominal"))
