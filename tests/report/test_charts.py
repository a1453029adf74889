"""Geometry of the pictures, against the numbers they show."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, histogram, stacked, ticks, training_plots

NUMBERS = st.floats(-1e9, 1e9).map(lambda x: float(f"{x:.6g}"))


def coordinates(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]\s?(\S+) (\S+)", path)]


@given(counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_a_stacked_bar_is_filled_from_end_to_end_in_proportion(counts: list[int]) -> None:
    segments = stacked({f"part {n}": count for n, count in enumerate(counts)})
    total = sum(counts)
    assert [s.name for s in segments] == [f"part {n}" for n, count in enumerate(counts) if count]
    end = 0.0
    for segment in segments:
        assert segment.start == pytest.approx(end, abs=0.01)
        assert segment.width == pytest.approx(100 * counts[int(segment.name[5:])] / total, abs=0.01)
        end = segment.start + segment.width
    assert not segments or end == pytest.approx(100, abs=0.01)


@given(one=NUMBERS, other=NUMBERS)
def test_ticks_are_few_round_and_enclose_the_range(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    found = ticks(low, high)
    assert found == sorted(set(found))
    assert len(found) <= 7
    slack = 1e-6 * (high - low) + 1e-9 * max(abs(low), abs(high)) + 1e-18
    assert found[0] <= low + slack
    assert found[-1] >= high - slack


def test_ticks_are_the_numbers_one_would_choose() -> None:
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(0, 14) == [0, 5, 10, 15]
    assert ticks(-87, -52) == [-90, -80, -70, -60, -50]
    assert ticks(0, 2, whole=True) == [0, 1, 2]


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=600))
def test_curves_of_any_values_stay_inside_their_box(values: list[float]) -> None:
    (plot,) = training_plots([{"step": float(n), "loss": value} for n, value in enumerate(values, start=1)])
    (series,) = plot.series
    for x, y in [*coordinates(series.path), *coordinates(series.smooth), series.dot]:
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP - 0.01 <= y <= HEIGHT - BOTTOM + 0.01


def test_a_short_curve_is_drawn_point_by_point_between_its_axes() -> None:
    (plot,) = training_plots([{"step": 1, "rewards/accuracies": 0.0}, {"step": 3, "rewards/accuracies": 1.0}])
    assert coordinates(plot.series[0].path) == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]
    assert plot.series[0].smooth == ""
    assert [tick.label for tick in plot.y_ticks] == ["0", "0.25", "0.5", "0.75", "1"]


def test_metrics_that_were_not_logged_have_no_plot_and_pairs_share_one() -> None:
    plots = training_plots([{"step": 1, "loss": 1.0, "logps/chosen": -5.0, "logps/rejected": -6.0, "unknown": 3.0}])
    assert [(plot.title, [s.name for s in plot.series]) for plot in plots] == [
        ("loss", ["loss"]),
        ("logps", ["logps/chosen", "logps/rejected"]),
    ]
    assert training_plots([]) == []


@given(counts=st.lists(st.integers(0, 500), min_size=1, max_size=30))
def test_bars_of_a_histogram_are_as_high_as_their_counts(counts: list[int]) -> None:
    bars, x_ticks, y_ticks = histogram(counts, 0.5, 1.0)
    top = float(y_ticks[-1].label)
    assert top >= max(counts)
    for bar, count in zip(bars, counts, strict=True):
        assert bar.height == pytest.approx((HEIGHT - TOP - BOTTOM) * count / top, abs=0.02)
        assert bar.y + bar.height == pytest.approx(HEIGHT - BOTTOM, abs=0.02)
        assert bar.label.endswith(f": {count}")
    assert [tick.label for tick in x_ticks] == ["0.5", "0.6", "0.7", "0.8", "0.9", "1"]
