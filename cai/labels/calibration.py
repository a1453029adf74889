"""Is a label as sure as it is right? Pure functions of numbers.

`p` is the probability that the label gives to the answer it chose, in [0.5, 1]; `target` that people give to the same answer:
0 or 1 where each pair has one verdict, anything between where there are several. Any other claim with a probability is measured
likewise, on the range that its probabilities can have. Shape suffix: N labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from cai.statistics import Interval, bootstrap_interval

BINS = 10
"""Equally wide bins of the range. Not of equal mass: many labels stand at `labels.max_p_chosen` exactly, and stay together."""
LEAST_TEMPERATURE, GREATEST_TEMPERATURE = 0.05, 1000.0
_STEPS = 100


class ReliabilityBin(BaseModel):
    """Labels with `p` in [low, high): how sure they are on average, and how often people chose as they did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    labels: int
    mean_p: float
    mean_target: float


class Calibration(BaseModel):
    """How far labels are as sure as they are right.

    Args:
        labels: Measured on.
        ece: Expected calibration error (Naeini et al. 2015) over `BINS` equally wide bins: the mean over labels of
            |mean p − mean target| of their bin; 0 is perfect. With few labels it is too high by chance.
        ece_interval: 95 %, percentiles of a bootstrap of the labels, or of their clusters.
        brier: Mean of (p − target)²; 0.25 is that of always saying 0.5 where verdicts are 0 or 1.
        log_loss_nats: Mean of −target·log p − (1 − target)·log(1 − p).
        bins: Of the reliability diagram; empty ones are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: int
    ece: float
    ece_interval: Interval
    brier: float
    log_loss_nats: float
    bins: tuple[ReliabilityBin, ...]


def calibration(
    p_N: np.ndarray, target_N: np.ndarray, *, least: float = 0.5, clusters: Sequence[str] | None = None, seed: int = 0
) -> Calibration:
    """Measure labels against people, or other claims against what is true.

    Args:
        p_N: Probabilities in [least, 1].
        target_N: In [0, 1].
        least: The lowest probability there can be: 0.5 of the better of two answers. Bins divide [least, 1].
        clusters: Of every label; those of one cluster are not independent. None: each stands by itself.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there is no label, not one target or cluster for each, or a value out of range.
    """
    p_N, target_N = np.asarray(p_N, dtype=float), np.asarray(target_N, dtype=float)
    if not len(p_N) or p_N.shape != target_N.shape or (clusters is not None and len(clusters) != len(p_N)):
        raise ValueError(f"{len(p_N)} labels, {len(target_N)} targets, {'no' if clusters is None else len(clusters)} clusters")
    if not ((p_N >= least) & (p_N <= 1) & (target_N >= 0) & (target_N <= 1)).all():
        raise ValueError(f"a label lies outside [{least:g}, 1], or a target outside [0, 1]")
    place_N = bin_of(p_N, least)
    bounded_N = np.clip(p_N, 1e-12, 1 - 1e-12)
    log_loss_N = -target_N * np.log(bounded_N) - (1 - target_N) * np.log(1 - bounded_N)
    gap_N = p_N - target_N
    alone = [*range(len(p_N))]
    interval = bootstrap_interval(
        lambda drawn: binned_error(gap_N[drawn], place_N[drawn]), alone if clusters is None else clusters, seed=seed
    )
    return Calibration(
        labels=len(p_N),
        ece=binned_error(gap_N, place_N),
        ece_interval=interval,
        brier=float((gap_N**2).mean()),
        log_loss_nats=float(log_loss_N.mean()),
        bins=tuple(
            ReliabilityBin(
                low=least + n * (1 - least) / BINS,
                high=least + (n + 1) * (1 - least) / BINS,
                labels=int((place_N == n).sum()),
                mean_p=float(p_N[place_N == n].mean()),
                mean_target=float(target_N[place_N == n].mean()),
            )
            for n in range(BINS)
            if (place_N == n).any()
        ),
    )


def bin_of(p_N: np.ndarray, least: float = 0.5) -> np.ndarray:
    """The bin, from 0, of each probability in [least, 1]."""
    return np.minimum(BINS - 1, ((p_N - least) / (1 - least) * BINS + 1e-9).astype(int))


def binned_error(gap_N: np.ndarray, place_N: np.ndarray) -> float:
    """Expected calibration error: a bin's weight times its gap is the sum of its labels' gaps, by their number."""
    return float(np.abs(np.bincount(place_N, weights=gap_N, minlength=BINS)).sum() / len(gap_N))


def fit_temperature(margins_nats_N: np.ndarray, target_N: np.ndarray) -> float | None:
    """The temperature T at which sigmoid(margin / T) has the least log loss against people (Guo et al. 2017).

    The loss is convex in 1/T, so its derivative, the mean of margin · (sigmoid(margin / T) − target), has one root.

    Args:
        margins_nats_N: Log-odds of one answer, of either sign.
        target_N: The probability that people give to that answer, in [0, 1].

    Returns:
        T in [`LEAST_TEMPERATURE`, `GREATEST_TEMPERATURE`]; None if margins do not speak for what people chose: no temperature
        makes such labels better than a coin.
    """
    margin_N, target_N = np.asarray(margins_nats_N, dtype=float), np.asarray(target_N, dtype=float)

    def slope(temperature: float) -> float:
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, which does not overflow
        return float((margin_N * ((1 + np.tanh(margin_N / (2 * temperature))) / 2 - target_N)).sum())

    if not len(margin_N) or float((margin_N * (0.5 - target_N)).sum()) >= 0:
        return None
    low, high = math.log(LEAST_TEMPERATURE), math.log(GREATEST_TEMPERATURE)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def tempered(margins_nats_N: np.ndarray, temperature: float, max_p: float) -> np.ndarray:
    """p_chosen of margins (≥ 0) at a temperature, held at most at `max_p`, as the labels are."""
    return np.minimum(max_p, (1 + np.tanh(np.asarray(margins_nats_N, dtype=float) / (2 * temperature))) / 2)
