"""Is a reward model right about pairs it has not seen, and as sure as it is right? Numbers and records; no model.

Shape suffixes: N pairs, K heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from cai.labels.calibration import Calibration, calibration, fit_temperature
from cai.records import PreferenceRecord
from cai.statistics import Interval, cluster_bootstrap, cluster_share_interval

LENGTHS: tuple[tuple[str, float], ...] = (
    ("chosen less than half as long", 0.5),
    ("chosen shorter", 0.9),
    ("about as long", 1.1),
    ("chosen longer", 2.0),
    ("chosen more than twice as long", math.inf),
)
"""Names of buckets, each with the ratio of the chosen reply's characters to the rejected one's that it goes up to."""


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A labelled pair, and what each head gives its replies."""

    pair: PreferenceRecord
    chosen: tuple[float, ...]
    rejected: tuple[float, ...]


class Accuracy(BaseModel):
    """How often the reply that was chosen has the higher reward; a tie counts half.

    The interval is 95 %, over prompts: pairs on one prompt are not independent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pairs: int
    accuracy: float
    interval: Interval
    mean_margin: float


class RewardQuality(BaseModel):
    """Of the mean over heads, on labelled pairs.

    Args:
        pairs: Measured on.
        prompts: That they are about.
        overall: Accuracy on all of them.
        mean_p_chosen: Of the labels: no model can agree with them more often, if they are as sure as they are right.
        calibration: Of σ(|margin|), the model's own probability that the reply it prefers is better, against the label's.
        brier_interval: 95 %, over prompts.
        temperature: By which margins would have to be divided to be as sure as they are right (above 1: too sure); None where
            margins do not speak for the labels.
        by_length: By how long the chosen reply is beside the rejected one.
        by_principle: By the principles that judged the pair; a pair may be in several.
        longer_wins: Of a rule that always prefers the longer reply, in characters.
        gain_over_length: Accuracy above that of the better of "the longer" and "the shorter reply wins", which is known by
            hindsight: what length alone does not explain, at the least.
        gain_interval: 95 %, over prompts.
        length_correlation: Pearson's, of the margin with the logarithm of the ratio of lengths; None where one does not vary.
        head_accuracies: Of each head by itself.
        mean_spread: Mean standard deviation of the margin over heads; None with one head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    prompts: int
    overall: Accuracy
    mean_p_chosen: float
    calibration: Calibration
    brier_interval: Interval
    temperature: float | None
    by_length: tuple[Accuracy, ...]
    by_principle: tuple[Accuracy, ...]
    longer_wins: Accuracy
    gain_over_length: float
    gain_interval: Interval
    length_correlation: float | None
    head_accuracies: tuple[float, ...]
    mean_spread: float | None

    @property
    def accuracies(self) -> tuple[Accuracy, ...]:
        """On all pairs, then by length, then by principle."""
        return (self.overall, *self.by_length, *self.by_principle)


def reward_quality(scored: Sequence[ScoredPair]) -> RewardQuality:
    """Measure.

    Raises:
        ValueError: If there is no pair.
    """
    if not scored:
        raise ValueError("no pair to measure on")
    margins_NK = np.array([each.chosen for each in scored]) - np.array([each.rejected for each in scored])
    margins_N = margins_NK.mean(axis=1)
    p_chosen_N = np.array([each.pair.p_chosen for each in scored])
    prompts = [repr(each.pair.prompt) for each in scored]
    right_N = _right(margins_N)
    ratios_N = np.array([len(each.pair.chosen) / max(1, len(each.pair.rejected)) for each in scored])
    longer_N = _right(np.log(np.maximum(ratios_N, 1e-9)))
    # What the model claims of the reply that it prefers itself, and what the label says of that reply.
    claimed_N = (1 + np.tanh(np.abs(margins_N) / 2)) / 2
    target_N = np.where(margins_N >= 0, p_chosen_N, 1 - p_chosen_N)
    baseline_N = longer_N if longer_N.mean() >= 0.5 else 1 - longer_N
    principles = sorted({principle for each in scored for principle in each.pair.principle_ids})

    def accuracy(name: str, holds: Callable[[int], bool], right_N: np.ndarray = right_N) -> Accuracy | None:
        at = [place for place in range(len(scored)) if holds(place)]
        if not at:
            return None
        return Accuracy(
            name=name,
            pairs=len(at),
            accuracy=float(right_N[at].mean()),
            interval=_interval(right_N[at], [prompts[place] for place in at]),
            mean_margin=float(margins_N[at].mean()),
        )

    overall, longer_wins = accuracy("all", lambda _: True), accuracy("the longer reply", lambda _: True, longer_N)
    assert overall is not None
    assert longer_wins is not None
    gains_N = right_N - baseline_N
    return RewardQuality(
        pairs=len(scored),
        prompts=len(set(prompts)),
        overall=overall,
        mean_p_chosen=float(p_chosen_N.mean()),
        calibration=calibration(claimed_N, target_N),
        brier_interval=cluster_bootstrap(((claimed_N - target_N) ** 2).tolist(), prompts),
        temperature=fit_temperature(margins_N, p_chosen_N),
        by_length=_present(accuracy(name, _within(ratios_N, at)) for at, (name, _) in enumerate(LENGTHS)),
        by_principle=_present(
            accuracy(name, lambda place, name=name: name in scored[place].pair.principle_ids) for name in principles
        ),
        longer_wins=longer_wins,
        gain_over_length=float(gains_N.mean()),
        gain_interval=cluster_bootstrap(gains_N.tolist(), prompts),
        length_correlation=_correlation(margins_N, np.log(np.maximum(ratios_N, 1e-9))),
        head_accuracies=tuple(float(_right(margins_NK[:, head]).mean()) for head in range(margins_NK.shape[1])),
        mean_spread=float(margins_NK.std(axis=1, ddof=1).mean()) if margins_NK.shape[1] > 1 else None,
    )


def _interval(right_N: np.ndarray, prompts: Sequence[str]) -> Interval:
    """Over prompts; where all pairs are alike, which a bootstrap takes for certainty, Wilson's of so many prompts."""
    values: list[float] = right_N.tolist()
    if min(values) < max(values) or values[0] == 0.5:
        return cluster_bootstrap(values, prompts)
    return cluster_share_interval([value == 1.0 for value in values], prompts)


def _right(margins_N: np.ndarray) -> np.ndarray:
    return (np.sign(margins_N) + 1) / 2


def _within(ratios_N: np.ndarray, at: int) -> Callable[[int], bool]:
    low = LENGTHS[at - 1][1] if at else -math.inf
    high = LENGTHS[at][1]
    return lambda place: low <= ratios_N[place] < high


def _present(found: Iterable[Accuracy | None]) -> tuple[Accuracy, ...]:
    return tuple(each for each in found if each is not None)


def _correlation(left_N: np.ndarray, right_N: np.ndarray) -> float | None:
    if len(left_N) < 3 or left_N.std() <= 1e-9 or right_N.std() <= 1e-9:
        return None
    return float(np.corrcoef(left_N, right_N)[0, 1])
