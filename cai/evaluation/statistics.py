"""Intervals and tests for paired shares. Pure functions of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


def wilson_interval(successes: int, n: int) -> Interval:
    """95 % score interval of a share (Wilson 1927), in [0, 1].

    Raises:
        ValueError: If n is 0 or successes lie outside 0..n.
    """
    found = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(found.low), float(found.high))


def cluster_bootstrap(values: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> Interval:
    """95 % percentile interval of the mean, resampling whole clusters: answers to one prompt are not independent.

    Args:
        values: One number per answer.
        clusters: Which prompt it belongs to, in the same order.
        seed: Same seed, same interval.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, dtype=float))
    counts = np.bincount(index).astype(float)
    draws = np.random.default_rng(seed).integers(0, len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mcnemar_p(better: int, worse: int) -> float:
    """Exact two-sided McNemar test: of the answers that changed sides, are as many better as worse? 1.0 when none changed."""
    changed = better + worse
    return 1.0 if changed == 0 else float(stats.binomtest(better, changed, 0.5).pvalue)
