"""`cai lab study`: the lab's grid at work, its page and its pictures kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from cai.evaluation.suites import Kind
from cai.lab.series import Failed, Planned, Work
from cai.lab.study.cells import Made
from cai.lab.study.figures import ModelFigures
from cai.lab.study.grid import Grid, plan, work
from cai.lab.study.recipes import Cell
from cai.lab.study.results_page import Answer, answers, results_page
from cai.lab.study.steps import Tell
from cai.pipeline.events import OnProgress
from cai.pipeline.metering import Meter
from cai.pipeline.provenance import commits, environment, packages
from cai.report.forest import ForestRow, Whisker, forest
from cai.report.texts import duration
from cai.store import PROGRAM, write_bytes_atomically

RESULTS_NAME = "RESULTS.md"
PICTURES = "figures"
PACKAGES = (PROGRAM, "torch", "transformers", "peft", "numpy")
MEASURED: Mapping[Kind, str] = {"fault": "faults: should fall", "control": "controls: should not rise"}


def run_study(grid: Grid, command: str, results: Path, on_progress: OnProgress) -> list[Failed[Cell]]:
    """Do every cell that is not done; the page is written after each, and at the end also where none was left to do.

    Args:
        grid: What is to be done.
        command: That does it, for the page.
        results: The page.
        on_progress: Told how far it is.

    Returns:
        Cells that failed and that the next start tries again.
    """
    return kept_up(
        "cells",
        plan=lambda: plan(grid),
        work=lambda on_end, tell: work(grid, made_here(), on_end, tell),
        write=lambda: write_results(grid, command, results),
        on_progress=on_progress,
    )


def kept_up(
    noun: str,
    *,
    plan: Callable[[], Sequence[Planned[Work]]],
    work: Callable[[Callable[[], None], Tell], list[Failed[Work]]],
    write: Callable[[], None],
    on_progress: OnProgress,
) -> list[Failed[Work]]:
    """A series at work, its page written after each piece, its progress told.

    Args:
        noun: What several pieces are called.
        plan: Every piece, done or to be done.
        work: Does those that are waiting; is given what to call after each, and whom to tell how far it is.
        write: Writes the page.
        on_progress: Told how far all of it is.
    """
    with Meter(on_progress) as meter, ExitStack() as phases:

        def begin() -> None:
            pieces = plan()
            waiting = [each.seconds for each in pieces if not each.done]
            known = [seconds for seconds in waiting if seconds is not None]
            note = f"about {duration(sum(known))} left" if waiting and len(known) == len(waiting) else ""
            meter.tell(noun, len(pieces) - len(waiting), len(pieces), note)
            if waiting:
                phases.enter_context(meter.phase(f"{noun}: {len(pieces) - len(waiting) + 1}"))

        def ended() -> None:
            phases.close()
            write()
            begin()

        begin()
        failed = work(ended, meter.tell)
    write()
    return failed


def made_here() -> Made:
    """With what the cells of this process are made."""
    program = commits()["program"]
    versions = packages()
    return Made(
        at="",
        packages={name: versions[name] for name in PACKAGES if name in versions},
        environment=environment(),
        commit=program["commit"] if program else "",
    )


def write_results(grid: Grid, command: str, results: Path) -> None:
    """The page, and a picture for each question in `figures/` beside it, each whole or not at all."""
    drawn = pictures(answers(grid.questions, grid.results()))
    for name, picture in drawn.items():
        write_bytes_atomically(results.parent / PICTURES / f"{name}.svg", picture.encode())
    addresses = {name: f"{PICTURES}/{name}.svg" for name in drawn}
    write_bytes_atomically(results, results_page(grid, command, addresses).encode())


def pictures(found: Sequence[Answer]) -> Mapping[str, str]:
    """Question → SVG of the changes against the plain model; all have one scale. Questions without a figure have none."""
    rows = {
        answer.question.id: (answer.question.title, [(each.variant.label, each.figures) for each in answer.variants])
        for answer in found
    }
    return draw(rows)


def draw(series: Mapping[str, tuple[str, Sequence[tuple[str, ModelFigures | None]]]]) -> Mapping[str, str]:
    """Name → SVG, of name → (title, rows of label and figures); all have one scale. What has no figure is left out."""
    rows = {
        name: [ForestRow(label, _whiskers(figures)) for label, figures in several]
        for name, (_, several) in series.items()
        if any(figures for _, figures in several)
    }
    marks = [mark for several in rows.values() for row in several for mark in row.marks if mark is not None]
    if not marks:
        return {}
    bounds = (min(mark.low for mark in marks), max(mark.high for mark in marks))
    unit = "change against the plain model, points"
    return {name: forest(series[name][0], unit, tuple(MEASURED.values()), several, bounds) for name, several in rows.items()}


def _whiskers(figures: ModelFigures | None) -> tuple[Whisker | None, ...]:
    if figures is None:
        return (None,) * len(MEASURED)
    changes = [figures.change[kind] for kind in MEASURED]
    return tuple(Whisker(100 * each.value, 100 * each.interval.low, 100 * each.interval.high) for each in changes)
