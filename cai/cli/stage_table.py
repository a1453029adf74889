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
NARROW, WIDE = 60, 100
"""Columns of a terminal below which there is no bar, and from which it is long."""


def stage_table(stages: Sequence[StageProgress], figures: Figures, width: int, height: int) -> RenderableType:
    """Stages and figures in `width` columns and at most `height` lines; the oldest stages make room."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    bar_width = 0 if width < NARROW else 14 if width < WIDE else 30
    if bar_width:
        table.add_column(width=bar_width)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for each in stages[-max(1, height - LINES_OF_FIGURES - 1) :]:
        bar = [ProgressBar(total=max(1, each.total), completed=each.done, width=bar_width)] if bar_width else []
        table.add_row(
            Text(visible(each.stage), style="bold"), *bar, f"{each.done:,}/{each.total:,}", _time(each), _remark(each)
        )
    lines: list[RenderableType] = [table]
    for parts in (speed_and_memory(figures), calls_and_reuse(figures)):
        lines += [Text(", ".join(parts), style="dim", overflow="ellipsis")] if parts else []
    if failed := failures(figures):
        # One line, however many causes there are: the ledger tells all of them at the end.
        lines.append(Text(visible(f"failed: {', '.join(failed)}"), style="red", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def _time(stage: StageProgress) -> Text:
    if stage.ended or stage.done >= stage.total:
        return Text(f"in {duration(stage.seconds)}", style="dim")
    return Text(f"{between(stage.eta)} left" if stage.eta else duration(stage.seconds))


def _remark(stage: StageProgress) -> Text:
    pace = f"{rate(stage.per_second)}/s" if stage.per_second is not None and stage.done < stage.total else ""
    return Text(visible("  ".join(part for part in (pace, stage.note) if part)), style="dim")
