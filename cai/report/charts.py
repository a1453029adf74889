"""Numbers → the geometry of pictures: coordinates, paths and tick marks. The templates draw; nothing here is markup.

Curves and histograms live in a box of `WIDTH` × `HEIGHT` units with the plot inside its margins; y grows downwards as in SVG.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from cai.evaluation.suite_results import SuiteResult
from cai.labels.calibration import Calibration
from cai.report.texts import plain

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 26.0
MAX_POINTS = 240
SMOOTHED_FROM = 16
"""Curves with fewer points are drawn as they are."""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Series:
    """`path` is the measured curve, `smooth` a running mean ("" when there are too few points), `dot` its last point."""

    name: str
    path: str
    smooth: str
    dot: tuple[float, float]
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    note: str
    series: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    window: int
    """Points that one point of a smooth curve is the mean of; 1: not smoothed."""


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a stacked bar, in percent of its length."""

    name: str
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Dot:
    """A bin of labels; its area grows with their number."""

    x: float
    y: float
    radius: float
    label: str


@dataclass(frozen=True, slots=True)
class Reliability:
    """`diagonal`: where labels are as right as they are sure."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    diagonal: str
    before: tuple[Dot, ...]
    after: tuple[Dot, ...]


Curves: TypeAlias = tuple[tuple[str, str, tuple[str, ...]], ...]
"""(title, unit, metric names) of each plot."""

CURVES: Curves = (
    ("loss", "nats; what training minimises", ("loss", "eval/loss")),
    ("rewards/accuracies", "share of pairs with a positive margin", ("rewards/accuracies", "eval/rewards/accuracies")),
    ("rewards/margins", "beta × nats; chosen minus rejected", ("rewards/margins", "eval/rewards/margins")),
    ("logps", "nats, summed over each reply", ("logps/chosen", "logps/rejected")),
    ("drift", "nats a token since the reference", ("drift/chosen", "drift/rejected")),
    ("KL", "nats a token from the start model, along replies of the data", ("kl/data", "eval/kl")),
    ("length", "tokens of a reply that is learned from", ("length/chosen", "length/rejected")),
    ("nll", "nats a token", ("nll/chosen", "nll/anchors", "nll/replies", "eval/nll/replies")),
)
"""Of supervised and preference training, in order; a plot whose metrics were not logged is left out."""


def training_plots(metrics: Sequence[Mapping[str, float]], curves: Curves = CURVES) -> list[Plot]:
    """The curves of a training run, over its steps."""
    plots: list[Plot] = []
    for title, note, names in curves:
        found = {name: [(line["step"], line[name]) for line in metrics if name in line and "step" in line] for name in names}
        drawn = {name: points for name, points in found.items() if points}
        if drawn:
            plots.append(_plot(title, note, drawn, bounds=(0.0, 1.0) if title == "rewards/accuracies" else None))
    return plots


def histogram(counts: Sequence[int], low: float, high: float) -> tuple[tuple[Bar, ...], tuple[Tick, ...], tuple[Tick, ...]]:
    """Bars, x ticks and y ticks of counts in equally wide bins of [low, high]."""
    y_ticks = ticks(0, max(*counts, 1), whole=True)
    top = y_ticks[-1]
    step = (WIDTH - LEFT - RIGHT) / len(counts)
    bars: list[Bar] = []
    for n, count in enumerate(counts):
        y = _y(count, 0, top)
        a, b = (low + (high - low) * k / len(counts) for k in (n, n + 1))
        bars.append(
            Bar(
                round(LEFT + n * step + 1, 2), y, round(step - 2, 2), round(HEIGHT - BOTTOM - y, 2), f"{a:.3g}–{b:.3g}: {count}"
            )
        )
    x_ticks = tuple(Tick(_x(value, low, high), plain(value)) for value in ticks(low, high, parts=5) if low <= value <= high)
    return tuple(bars), x_ticks, tuple(Tick(_y(value, 0, top), plain(value)) for value in y_ticks)


def models_plot(result: SuiteResult) -> Plot:
    """The share of bad answers of every behaviour, model by model, as they were compared; the names stand in the note."""
    models = result.models
    curves = {
        first.label: [
            (float(n), each.share)
            for n, model in enumerate(models, 1)
            for each in model.behaviours
            if each.behaviour == first.behaviour
        ]
        for first in models[0].behaviours
    }
    plot = _plot("", "; ".join(f"{n}: {model.model}" for n, model in enumerate(models, 1)), curves, bounds=(0.0, 1.0))
    numbers = tuple(Tick(_x(float(n), 1.0, float(len(models))), str(n)) for n in range(1, len(models) + 1))
    return replace(plot, x_ticks=numbers)


def reliability(before: Calibration, after: Calibration | None, least: float = 0.5) -> Reliability:
    """How often right (up), by how sure (to the right), before and after. `least`: where the range of sureness begins."""
    xs, ys = (least, 1.0), (0.0, 1.0)

    def dots(measured: Calibration | None) -> tuple[Dot, ...]:
        return tuple(
            Dot(
                _x(each.mean_p, *xs),
                _y(each.mean_target, *ys),
                round(2.5 + 9 * math.sqrt(each.labels / measured.labels), 2),
                f"{each.low:.2f}–{each.high:.2f}: {each.labels} labels, {each.mean_p:.2f} sure on average, "
                f"{each.mean_target:.2f} right",
            )
            for each in (measured.bins if measured else ())
            if measured
        )

    return Reliability(
        x_ticks=tuple(Tick(_x(value, *xs), plain(value)) for value in ticks(*xs, parts=5)),
        y_ticks=tuple(Tick(_y(value, *ys), plain(value)) for value in ticks(*ys)),
        diagonal=f"M{_x(least, *xs)} {_y(least, *ys)} L{_x(1.0, *xs)} {_y(1.0, *ys)}",
        before=dots(before),
        after=dots(after),
    )


def stacked(parts: Mapping[str, int]) -> list[Segment]:
    """A bar cut in proportion; parts of nothing are left out. The segments fill it from 0 to 100."""
    total = sum(parts.values())
    segments: list[Segment] = []
    done = 0
    for name, count in parts.items():
        if count:
            start = 100 * done / total
            done += count
            segments.append(Segment(name, round(start, 3), round(100 * done / total - start, 3)))
    return segments


def ticks(low: float, high: float, *, parts: int = 4, whole: bool = False) -> list[float]:
    """Round numbers that cut a range into about so many parts, at most.

    The first is at or below `low`, the last at or above `high`; a range of one point has one.
    """
    if _is_point(low, high):
        return [low]
    span = high - low
    raw = span / parts
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * (1 - 1e-9))
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def _is_point(low: float, high: float) -> bool:
    """Whether a range is too narrow to be cut into numbers that differ in print."""
    return high - low <= 1e-9 * max(abs(low), abs(high), 1e-9)


def _plot(
    title: str, note: str, curves: Mapping[str, Sequence[tuple[float, float]]], bounds: tuple[float, float] | None
) -> Plot:
    points = {name: _thinned(curve) for name, curve in curves.items()}
    steps = [x for curve in points.values() for x, _ in curve]
    values = [y for curve in points.values() for _, y in curve]
    low, high = bounds or (min(values), max(values))
    if _is_point(low, high):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    y_values = ticks(low, high)
    low, high = y_values[0], y_values[-1]
    start, end = min(steps), max(steps)
    windows = {name: 1 if len(curve) < SMOOTHED_FROM else max(3, len(curve) // 16) | 1 for name, curve in points.items()}
    x_values = [x for x in ticks(start, end) if start <= x <= end]
    return Plot(
        title=title,
        note=note,
        series=tuple(_series(name, curve, (start, end), (low, high), windows[name]) for name, curve in points.items()),
        x_ticks=tuple(Tick(_x(x, start, end), plain(x)) for x in x_values),
        y_ticks=tuple(Tick(_y(y, low, high), plain(y)) for y in y_values),
        window=max(windows.values()),
    )


def _series(
    name: str, points: Sequence[tuple[float, float]], xs: tuple[float, float], ys: tuple[float, float], window: int
) -> Series:
    def path(values: Sequence[tuple[float, float]]) -> str:
        return "M" + " L".join(f"{_x(x, *xs)} {_y(y, *ys)}" for x, y in values)

    smooth = _running_mean(points, window)
    x, y = smooth[-1]
    return Series(
        name=name,
        path=path(points),
        smooth=path(smooth) if window > 1 else "",
        dot=(_x(x, *xs), _y(y, *ys)),
        first=smooth[0][1],
        last=y,
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MAX_POINTS` points, each the mean of its neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _running_mean(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    half = window // 2
    means: list[tuple[float, float]] = []
    for n, (x, _) in enumerate(points):
        near = points[max(0, n - half) : n + half + 1]
        means.append((x, sum(y for _, y in near) / len(near)))
    return means


def _x(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)


def _y(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 2)
