"""A picture of estimates with their intervals, one row for each, as an SVG that stands alone: light and dark, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cai.report.charts import ticks
from cai.report.texts import plain, signed
from cai.shown_text import visible

WIDTH, LEFT, RIGHT, TOP, ROW = 720, 250, 24, 62, 40
BOTTOM = 44
APART = 7.0
"""From the middle of a row to its first and second marker."""


@dataclass(frozen=True, slots=True)
class Whisker:
    """An estimate and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One row; `marks` has one entry for each series, None where it was not measured."""

    label: str
    marks: tuple[Whisker | None, ...]


def forest(title: str, unit: str, series: Sequence[str], rows: Sequence[ForestRow], bounds: tuple[float, float]) -> str:
    """The picture, as SVG text. Equal data give equal text.

    Args:
        title: Above it.
        unit: Of the values, below the scale.
        series: Names of one or two things measured of each row.
        rows: From top to bottom.
        bounds: That the scale covers at least; pictures that are to be compared share theirs.

    Raises:
        ValueError: If there is no row, or not one mark for each series.
    """
    if not rows or not 1 <= len(series) <= 2 or any(len(row.marks) != len(series) for row in rows):
        raise ValueError("a forest needs rows, and in each a mark for every one of its one or two series")
    scale = ticks(min(0.0, bounds[0]), max(0.0, bounds[1]), parts=6)
    low, high = scale[0], scale[-1] if scale[-1] > scale[0] else scale[0] + 1

    def x(value: float) -> float:
        return round(LEFT + (min(max(value, low), high) - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    drawn: list[dict[str, object]] = []
    for number, row in enumerate(rows):
        middle = TOP + ROW * (number + 0.5)
        marks: list[dict[str, object]] = []
        for place, mark in enumerate(row.marks):
            if mark is not None:
                y = middle + (APART * (2 * place - 1) if len(series) == 2 else 0.0)
                said = f"{series[place]}: {signed(mark.value)} [{signed(mark.low)}, {signed(mark.high)}]"
                marks.append(
                    {"series": place, "y": y, "x": x(mark.value), "low": x(mark.low), "high": x(mark.high), "said": said}
                )
        drawn.append({"label": row.label, "middle": middle, "marks": marks})
    return (
        _environment()
        .get_template("forest.svg.j2")
        .render(
            title=title,
            unit=unit,
            series=series,
            rows=drawn,
            ticks=[{"x": x(value), "label": plain(value), "zero": value == 0} for value in scale],
            width=WIDTH,
            left=LEFT,
            right=WIDTH - RIGHT,
            top=TOP,
            bottom=TOP + ROW * len(rows),
            height=TOP + ROW * len(rows) + BOTTOM,
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cai.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    """Every text on its way into the picture, before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
