"""When the reward is no longer what is wanted: all of it follows from the rows of metrics so far. No torch.

A policy that is optimised against a stand-in for the truth first improves by both, then by the stand-in alone, while the
truth falls (Gao et al. 2022, arXiv 2210.10760, figure 1). Seen from steps: two windows that follow each other, and whether
from one to the next the reward rose while the truth fell, each by more than the noise of single steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

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


def change(values: Sequence[float], window: int) -> Change | None:
    """From the window before the last to the last one; None before there are two. Only the last 2·window values are read."""
    if len(values) < 2 * window:
        return None
    before, after = values[-2 * window : -window], values[-window:]
    return Change(fmean(before), fmean(after), math.sqrt((variance(before) + variance(after)) / window))


def snapped(rows: Sequence[Row], settings: LeashSettings) -> Snapped | None:
    """Whether the run is over-optimised, or too far from its reference, after the last of these rows.

    Args:
        rows: In order of their steps. Those without a reward or a truth are passed over in comparing these.
        settings: The windows and how sure to be.
    """
    if not rows:
        return None
    step = int(rows[-1]["step"])
    kl = rows[-1].get(KL)
    if settings.max_kl_nats is not None and kl is not None and kl > settings.max_kl_nats:
        return Snapped(
            step, f"KL to the reference is {kl:.3g} nats a reply, more than rl.leash.max_kl_nats ({settings.max_kl_nats:g})"
        )
    both = [(row[REWARD], row[TRUTH]) for row in rows[-_READ * settings.window :] if REWARD in row and TRUTH in row]
    reward = change([each for each, _ in both], settings.window)
    truth = change([each for _, each in both], settings.window)
    if reward is None or truth is None or reward.sigmas < settings.sigmas or truth.sigmas > -settings.sigmas:
        return None
    return Snapped(
        step,
        f"over {settings.window} steps the reward rose from {reward.before:.3g} to {reward.after:.3g} while the truth fell "
        f"from {truth.before:.3g} to {truth.after:.3g}",
    )


def first_snap(rows: Sequence[Row], settings: LeashSettings) -> Snapped | None:
    """Where the leash holds a run for the first time, whether or not it went on."""
    prefixes = (rows[max(0, end - _READ * settings.window) : end] for end in range(1, len(rows) + 1))
    return next((found for each in prefixes if (found := snapped(each, settings))), None)


_READ = 4
"""Rows without a reward or a truth may stand between those compared: so many windows back is looked, and no further."""


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
