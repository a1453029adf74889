"""What a token costs on this machine, from watching engines at work; and what so many of them will take.

Pure arithmetic. In a stretch of time, seconds = a · prompt tokens + b · slots + c · drawn tokens + d · scored tokens: a prompt
token costs a share of a prefill; a decoding step costs something for every slot, used or not, and something for every row in
it; scoring is a prefill of another kind. The four are found by least squares without negative costs, and how well they are
known follows from what they leave unexplained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

KINDS = 4
T_90 = 1.645
LEAST_STRETCHES = 6
"""Fewer tell nothing of how far they may be off."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one engine did in `seconds`: prompt tokens through it, slots stepped, tokens drawn, tokens of scored prompts."""

    engine: int
    seconds: float
    prompt_tokens: int
    slot_steps: int
    completion_tokens: int
    scored_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of one kind of call that an engine is to compute, and what is not sure about their number.

    Args:
        engine: Which one.
        prompt_tokens: Through the model.
        slot_steps: Slots stepped.
        completion_tokens: To be drawn.
        scored_tokens: Of prompts whose continuations are scored.
        relative_variance: Of the whole amount: the square of its standard deviation over the amount itself.
    """

    engine: int
    prompt_tokens: float
    slot_steps: float
    completion_tokens: float
    scored_tokens: float = 0.0
    relative_variance: float = 0.0


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long something will take: `expected_s`, and with 90 % between `low_s` and `high_s`."""

    expected_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class Speeds:
    """Costs of the four kinds of token, engine by engine, and their covariance."""

    costs: Vector
    covariance: Vector

    def seconds(self, works: Sequence[Work]) -> Seconds:
        """For all of these together: what is not known of the costs is not known of all alike, and does not average out."""
        amounts = sum((self._amounts(work) for work in works), np.zeros_like(self.costs))
        expected = float(amounts @ self.costs)
        variance = float(amounts @ self.covariance @ amounts)
        variance += sum(work.relative_variance * float(self._amounts(work) @ self.costs) ** 2 for work in works)
        margin = T_90 * variance**0.5
        return Seconds(expected, max(0.0, expected - margin), expected + margin)

    def prompt_tokens_per_s(self, engine: int) -> float | None:
        """Into the model; None where it was not to be told apart from drawing."""
        cost = float(self.costs[KINDS * engine])
        return 1 / cost if cost > 0 else None

    def completion_tokens_per_s(self, engine: int, occupancy: float) -> float | None:
        """Out of the model, with so large a share of its slots in use."""
        _, slot, token, _ = self.costs[KINDS * engine : KINDS * (engine + 1)]
        cost = float(token) + (float(slot) / occupancy if occupancy > 0 else 0.0)
        return 1 / cost if cost > 0 else None

    def _amounts(self, work: Work) -> Vector:
        amounts = np.zeros_like(self.costs)
        amounts[KINDS * work.engine : KINDS * (work.engine + 1)] = _amounts(work)
        return amounts


def fit(stretches: Sequence[Stretch], engines: int) -> Speeds | None:
    """The costs that explain these stretches best; None where they are too few.

    Unweighted: weights by the time that was seen would favour the stretches that went fast by chance.
    """
    amounts = np.zeros((len(stretches), KINDS * engines))
    for row, each in enumerate(stretches):
        amounts[row, KINDS * each.engine : KINDS * (each.engine + 1)] = _amounts(each)
    seconds = np.array([each.seconds for each in stretches])
    asked = [column for column in range(KINDS * engines) if amounts[:, column].any()]
    if len(stretches) < max(LEAST_STRETCHES, len(asked) + 2):
        return None
    best: tuple[float, tuple[int, ...], Vector] | None = None
    for size in range(1, len(asked) + 1):
        for columns in combinations(asked, size):
            found: Vector = np.linalg.lstsq(amounts[:, columns], seconds)[0].astype(np.float64)
            left = float(((seconds - amounts[:, columns] @ found) ** 2).sum())
            if (found >= 0).all() and (best is None or left < best[0] * (1 - 1e-9)):
                best = left, columns, found
    assert best is not None, "one column alone has a cost of at least 0: nothing here is negative"
    _, columns, found = best
    costs, covariance = np.zeros(KINDS * engines), np.zeros((KINDS * engines, KINDS * engines))
    costs[list(columns)] = found
    covariance[np.ix_(columns, columns)] = _covariance(amounts[:, columns], seconds, found)
    return Speeds(costs, covariance)


def _amounts(of: Stretch | Work) -> tuple[float, float, float, float]:
    return of.prompt_tokens, of.slot_steps, of.completion_tokens, of.scored_tokens


def _covariance(amounts: Vector, seconds: Vector, costs: Vector) -> Vector:
    """Of estimated costs, also where some stretches are explained far better than others (HC3, MacKinnon and White 1985)."""
    inverse = np.linalg.pinv(amounts.T @ amounts)
    leverage = np.einsum("ij,jk,ik->i", amounts, inverse, amounts)
    left = (seconds - amounts @ costs) / np.maximum(1 - leverage, 1e-6)
    return inverse @ (amounts.T * left**2) @ amounts @ inverse
