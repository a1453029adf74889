"""Intervals and tests for paired shares. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

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
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a share")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (successes + z * z / 2) / (n + z * z)
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4) / (n + z * z)
    share = successes / n  # at 0 and 1 it is an end of the interval, but for rounding
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def cluster_bootstrap(values: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> Interval:
    """95 % percentile interval of the mean, resampling whole clusters: answers to one prompt are not independent.

    Args:
        values: One number per answer.
        clusters: Which prompt it belongs to, in the same order.
        seed: Same seed, same interval.

    Raises:
        ValueError: If there is no value, or not one cluster for each.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values in {len(clusters)} named clusters")
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, dtype=float))
    counts = np.bincount(index).astype(float)
    draws = np.random.default_rng(seed).integers(0, len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mcnemar_p(better: int, worse: int) -> float:
    """Exact two-sided McNemar test: of the answers that changed sides, are as many better as worse? 1.0 when none changed.

    It takes answers for independent; with several to one prompt, the interval of `cluster_bootstrap` is the one to trust.
    """
    changed = better + worse
    tail = sum(math.comb(changed, count) for count in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**changed)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of several p-values, in the order given (Holm 1979): they then hold all together.

    The k-th smallest of n is multiplied by n − k + 1, kept from falling below the one before it, and from exceeding 1.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [1.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
