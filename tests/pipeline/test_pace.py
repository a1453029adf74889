"""Rates and remaining times against a slow oracle that looks at every observation anew."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from cai.pipeline.pace import LEAST_S, LEAST_UNITS, RECENT_S, RECENT_UNITS, T_90, WINDOWS, Pace

steps = st.lists(
    st.tuples(st.floats(min_value=0.0, max_value=60.0), st.integers(min_value=0, max_value=40)), min_size=1, max_size=60
)


def observed(gaps: list[tuple[float, int]]) -> list[tuple[float, int]]:
    found, at, count = [], 0.0, 0
    for gap_s, units in gaps:
        at, count = at + gap_s, count + units
        found.append((at, count))
    return found


def naive_rates(points: list[tuple[float, int]], now: float) -> list[float]:
    """Window by window, counting from the whole history."""
    kept = [point for n, point in enumerate(points) if n == 0 or point[1] != points[n - 1][1]]
    newest_s, newest = kept[-1]
    starts = [point for point in kept if point[0] <= newest_s - RECENT_S and point[1] <= newest - RECENT_UNITS]
    first_s, first = starts[-1] if starts else kept[0]
    if now - first_s < LEAST_S or newest - first < LEAST_UNITS:
        return []
    width = (now - first_s) / WINDOWS

    def count_at(time_s: float) -> int:
        return max(count for at, count in kept if at <= time_s)

    edges = [first, *(count_at(first_s + width * (n + 1)) for n in range(WINDOWS - 1)), newest]
    return [(b - a) / width for a, b in pairwise(edges)]


@given(steps, st.floats(min_value=0.0, max_value=300.0), st.integers(min_value=1, max_value=10_000))
def test_rates_and_remaining_times_are_those_of_the_oracle(gaps: list[tuple[float, int]], wait: float, units: int) -> None:
    points = observed(gaps)
    pace = Pace()
    for at, count in points:
        pace.note(at, count)
    now = points[-1][0] + wait
    rates = naive_rates(points, now)
    if not rates:
        assert pace.per_second(now) is None
        assert pace.remaining(units, now) is None
        return
    mean = fmean(rates)
    assert pace.per_second(now) == pytest.approx(mean)
    start = next(at for at, _ in points)
    found = pace.remaining(units, now)
    assert found is not None
    assert 0 < found.low_s <= units / mean * (1 + 1e-9)
    assert found.high_s is None or found.high_s >= units / mean * (1 - 1e-9)
    width = (now - start) / WINDOWS
    if len(points) == len(gaps) and points[-1][0] - start <= RECENT_S:  # nothing was forgotten: the width is known here
        margin = T_90 * stdev(rates) * math.sqrt(1 / WINDOWS + width * mean / units)
        assert found.low_s == pytest.approx(units / (mean + margin))


def test_student_t_is_that_of_scipy() -> None:
    assert pytest.approx(student.ppf(0.95, WINDOWS - 1), abs=5e-4) == T_90


def test_with_too_little_done_nothing_is_said() -> None:
    pace = Pace()
    assert pace.remaining(10, 100.0) is None
    pace.note(0.0, 1)
    pace.note(1.0, 9)
    assert pace.remaining(10, 2.0) is None  # too short a time
    pace.note(50.0, 10)
    assert pace.remaining(10, 60.0) is not None
    few = Pace()
    few.note(0.0, 100)
    few.note(50.0, 103)
    assert few.per_second(60.0) is None  # three units in a minute tell no rate


def test_an_even_pace_is_foretold_exactly_and_a_standstill_loses_its_upper_bound() -> None:
    pace = Pace()
    for second in range(61):
        pace.note(float(second), 2 * second)
    found = pace.remaining(100, 60.0)
    assert found is not None
    assert found.low_s == pytest.approx(50.0)
    assert found.high_s == pytest.approx(50.0)
    halted = pace.remaining(100, 260.0)
    assert halted is not None
    assert halted.high_s is None
    assert halted.low_s > 50.0


def test_nine_intervals_in_ten_hold_the_time_it_took() -> None:
    """Units that take a random time each: of 1,000 estimates made in the middle, 90 % hold, give or take chance."""
    chance = random.Random(2)
    held = 0
    for _ in range(1000):
        ends, at = [], 0.0
        for _ in range(200):
            at += chance.expovariate(1.0)
            ends.append(at)
        pace = Pace()
        for count, end in enumerate(ends[:100], start=1):
            pace.note(end, count)
        found = pace.remaining(100, ends[99])
        assert found is not None
        held += found.low_s <= ends[199] - ends[99] <= (found.high_s or math.inf)
    assert 0.87 <= held / 1000 <= 0.94
