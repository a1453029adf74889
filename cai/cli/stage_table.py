"""Stages with bars, and the engines' figures below them, as fits a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cai.cli.quantities import between, calls_and_reuse, duration, failures, rate, speed_and_memory
from cai.cli.terminal import visible
from cai.store.heartbeat import Figures, StageProgress

LINES_OF_FIGURES = 5
GAPS = 5
NARROWEST, NARROW, MEDIUM, WIDE = 36, 60, 76, 100
"""Columns of a terminal from which there are times, bars, remarks, and long bars."""


def stage_table(stages: Sequence[StageProgress], figures: Figures, width: int, height: int) -> RenderableType:
    """Stages and figures in `width` columns and at most `height` lines; the oldest stages make room.

    What a narrow terminal has no room for is left out: first remarks, then bars, then times; names are cut.
    """
    shown = stages[-max(1, height - LINES_OF_FIGURES - 1) :]
    counts = [counted(each) for each in shown]
    times = [_time(each) if width >= NARROWEST else Text() for each in shown]
    bar_width = 0 if width < NARROW else 12 if width < WIDE else 30
    # Figures are shown whole or not at all: half a number is a wrong one.
    widths = (bar_width, max(map(len, counts), default=0), max(map(len, times), default=0))
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(2, min(24, width - sum(widths) - GAPS)))
    table.add_column(min_width=widths[0])
    table.add_column(no_wrap=True, justify="right", min_width=widths[1])
    table.add_column(no_wrap=True, justify="right", min_width=widths[2])
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for each, count, time in zip(shown, counts, times, strict=True):
        bar = ProgressBar(total=max(1, each.total), completed=each.done, width=bar_width) if bar_width else ""
        remark = _remark(each) if width >= MEDIUM else ""
        table.add_row(Text(visible(each.stage), style="bold"), bar, count, time, remark)
    lines: list[RenderableType] = [table]
    for parts in (speed_and_memory(figures), calls_and_reuse(figures)):
        lines += [Text(", ".join(parts), style="dim", overflow="ellipsis")] if parts else []
    if failed := failures(figures):
        # One line, however many causes there are: the ledger tells all of them at the end.
        lines.append(Text(visible(f"failed: {', '.join(failed)}"), style="red", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def counted(stage: StageProgress) -> str:
    """`3/9`; `3/9+` while more will come."""
    return f"{stage.done:,}/{stage.total:,}{'+' if stage.growing else ''}"


def _time(stage: StageProgress) -> Text:
    if stage.ended or (stage.done >= stage.total and not stage.growing):
        return Text(f"in {duration(stage.seconds)}", style="dim")
    return Text(f"{between(stage.eta)} left" if stage.eta else duration(stage.seconds))


def _remark(stage: StageProgress) -> Text:
    pace = f"{rate(stage.per_second)}/s" if stage.per_second is not None and (stage.growing or stage.done < stage.total) else ""
    return Text(visible("  ".join(part for part in (pace, stage.note) if part)), style="dim")
