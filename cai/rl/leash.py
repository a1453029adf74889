"""When the reward is no longer what is wanted: all of it follows from the rows of metrics so far. No torch.

A policy that is optimised against a stand-in for the truth first improves by both, then by the stand-in alone, while the
truth falls (Gao et al. 2022, arXiv 2210.10760, figure 1). Seen from steps: the last window beside earlier ones, and whether
from one of them to the last the reward rose while the truth fell, each by more than the noise of single steps. The window
just before shows a sudden turn; those two, four, eight … windows back show a slow drift, which neighbours cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

from cai.rl.settings import LeashSettings

REWARD, TRUTH, KL = "reward", "truth", "kl"
"""Names in rows of metrics."""

Row = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Change:
    """Means of two windows, and the standard error of their difference."""

    before: float
    after: float
    error: float

    @property
    def sigmas(self) -> float:
        """The difference in standard errors; a difference without any noise is as sure as can be."""
        difference = self.after - self.before
        if self.error == 0:
            return math.copysign(math.inf, difference) if difference else 0.0
        return difference / self.error


@dataclass(frozen=True, slots=True)
class Snapped:
    """Why the leash holds the run, after which step."""

    step: int
    reason: str


def change(values: Sequence[float], window: int, back: int = 1) -> Change | None:
    """From the window that lies `back` windows before the last to the last one; None while there is none."""
    if len(values) < (back + 1) * window:
        return None
    before, after = values[-(back + 1) * window : len(values) - back * window], values[-window:]
    return Change(fmean(before), fmean(after), math.sqrt((variance(before) + variance(after)) / window))


def snapped(rows: Sequence[Row], settings: LeashSettings) -> Snapped | None:
    """Whether the run is over-optimised, or too far from its reference, after the last of these rows.

    Args:
        rows: In order of their steps. Those without a reward or a truth are passed over in comparing these.
        settings: The windows and how sure to be.
    """
    if not rows:
        return None
    both = [row for row in rows if _has_both(row)]
    return _held(rows[-1], [row[REWARD] for row in both], [row[TRUTH] for row in both], settings)


def first_snap(rows: Sequence[Row], settings: LeashSettings) -> Snapped | None:
    """Where the leash holds a run for the first time, whether or not it went on."""
    rewards: list[float] = []
    truths: list[float] = []
    for row in rows:
        if _has_both(row):
            rewards.append(row[REWARD])
            truths.append(row[TRUTH])
        if found := _held(row, rewards, truths, settings):
            return found
    return None


def _has_both(row: Row) -> bool:
    return REWARD in row and TRUTH in row


def _held(last: Row, rewards: Sequence[float], truths: Sequence[float], settings: LeashSettings) -> Snapped | None:
    step, kl, window = int(last["step"]), last.get(KL), settings.window
    if settings.max_kl_nats is not None and kl is not None and kl > settings.max_kl_nats:
        return Snapped(
            step, f"KL to the reference is {kl:.3g} nats a reply, more than rl.leash.max_kl_nats ({settings.max_kl_nats:g})"
        )
    power = 0
    while (reward := change(rewards, window, back := 2**power)) and (truth := change(truths, window, back)):
        sure = _sure(settings.sigmas, power)
        if reward.sigmas >= sure and truth.sigmas <= -sure:
            return Snapped(
                step,
                f"over {back * window} steps the reward rose from {reward.before:.3g} to {reward.after:.3g} while the truth "
                f"fell from {truth.before:.3g} to {truth.after:.3g}",
            )
        power += 1
    return None


def _sure(sigmas: float, power: int) -> float:
    """How sure to be of a window 2**power before: 2**-power of a neighbour's false alarms, so that all have twice as many."""
    normal = NormalDist()
    return -normal.inv_cdf(normal.cdf(-sigmas) / 2**power) if power else sigmas


def good_step(rows: Sequence[Row], saved: Sequence[int], window: int) -> int | None:
    """Of the saved steps, the one before which the truth of a window was highest; without truths the last one.

    Args:
        rows: In order of their steps.
        saved: Steps whose weights are kept.
        window: At most so many of the last rows count.
    """
    if not saved:
        return None
    means = {step: mean for step in saved if (mean := _trailing(rows, step, window)) is not None}
    if not means:
        return max(saved)
    return max(means, key=lambda step: (means[step], step))


def _trailing(rows: Sequence[Row], step: int, window: int) -> float | None:
    truths = [row[TRUTH] for row in rows if TRUTH in row and row["step"] <= step][-window:]
    return fmean(truths) if truths else None
