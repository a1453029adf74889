"""How fast units get finished, and how long the rest will take: from the rates of recent windows and their spread.

Pure arithmetic over (time, count) observations; knows no clock.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from statistics import fmean, stdev

from cai.store.heartbeat import Estimate

WINDOWS = 6
"""Recent time is cut into so many equal windows."""
T_90 = 2.015
"""Student's t for 90 % in the middle, with `WINDOWS` - 1 degrees of freedom."""
RECENT_S = 120.0
"""What is older does not count …"""
RECENT_UNITS = 30
"""… unless fewer units than these were finished since."""
LEAST_S = 3.0
LEAST_UNITS = 4
"""With less to go by, nothing is said."""


class Pace:
    """The finishing of one kind of unit over time.

    The clock starts with the first observation: what it reports was begun before, and its time is not known.
    """

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._counts: list[float] = []

    def note(self, at_s: float, count: float) -> None:
        """`count` units are finished at `at_s`. Neither may fall."""
        if self._counts and count == self._counts[-1]:
            return
        self._times_s.append(at_s)
        self._counts.append(count)
        self._forget(at_s)

    def per_second(self, now_s: float) -> float | None:
        """Units a second, lately; None when there is too little to say."""
        rates = self._rates(now_s)
        return fmean(rates) if rates else None

    def remaining(self, units: float, now_s: float) -> Estimate | None:
        """How long `units` more will take.

        The mean of k recent windows with spread s predicts the mean of the m windows to come up to t · s · √(1/k + 1/m).

        Returns:
            None when there is too little to say; no upper bound when the spread allows that nothing comes at all.
        """
        rates = self._rates(now_s)
        if not rates or units <= 0:
            return None
        mean = fmean(rates)
        windows_to_come = units / mean / self._window_s(now_s)
        margin = T_90 * stdev(rates) * math.sqrt(1 / WINDOWS + 1 / windows_to_come)
        return Estimate(units / (mean + margin), units / (mean - margin) if margin < mean else None)

    def _start(self) -> int:
        """Index of the observation from which on time counts, as of the newest one."""
        recent = bisect_right(self._times_s, self._times_s[-1] - RECENT_S) - 1
        enough = bisect_right(self._counts, self._counts[-1] - RECENT_UNITS) - 1
        return max(0, min(recent, enough))

    def _window_s(self, now_s: float) -> float:
        return (now_s - self._times_s[self._start()]) / WINDOWS

    def _rates(self, now_s: float) -> list[float]:
        """Units a second in each window from the start until now; [] when there is too little to say."""
        if not self._times_s:
            return []
        start = self._start()
        first_s, window_s = self._times_s[start], self._window_s(now_s)
        if now_s - first_s < LEAST_S or self._counts[-1] - self._counts[start] < LEAST_UNITS:
            return []
        ends = [first_s + window_s * (n + 1) for n in range(WINDOWS - 1)]
        counts = [self._counts[start], *(self._counts[bisect_right(self._times_s, end) - 1] for end in ends), self._counts[-1]]
        return [(after - before) / window_s for before, after in pairwise(counts)]

    def _forget(self, now_s: float) -> None:
        start = self._start()
        if start > len(self._times_s) // 2:
            del self._times_s[:start], self._counts[:start]
        assert self._times_s[-1] <= now_s
