"""`cai lab compare`: methods and seeds at work, the page and its picture kept up to date."""

from __future__ import annotations

from pathlib import Path

from cai.lab.comparison.comparison_page import comparison_page, figures_of
from cai.lab.comparison.entries import Entry
from cai.lab.comparison.rounds import Comparison, plan, work
from cai.lab.series import Failed
from cai.pipeline.events import OnProgress
from cai.pipeline.studying import PICTURES, draw, kept_up, made_here
from cai.store import write_bytes_atomically

PAGE_NAME = "COMPARISON.md"
PICTURE = "methods"
TITLE = "Ways to a model, at equal compute"


def run_comparison(comparison: Comparison, command: str, page: Path, on_progress: OnProgress) -> list[Failed[Entry]]:
    """Do every entry that is not done; the page is written after each, and at the end also where none was left to do.

    Args:
        comparison: What is to be done.
        command: That does it, for the page.
        page: Where it is written.
        on_progress: Told how far it is.

    Returns:
        Entries that failed and that the next start tries again.
    """
    return kept_up(
        "entries",
        plan=lambda: plan(comparison),
        work=lambda on_end, tell: work(comparison, made_here(), on_end, tell),
        write=lambda: write_comparison(comparison, command, page),
        on_progress=on_progress,
    )


def write_comparison(comparison: Comparison, command: str, page: Path) -> None:
    """The page, and the picture in `figures/` beside it, each whole or not at all."""
    rows = [(each.method.label, each.figures) for each in figures_of(comparison)]
    drawn = draw({PICTURE: (TITLE, rows)})
    for name, picture in drawn.items():
        write_bytes_atomically(page.parent / PICTURES / f"{name}.svg", picture.encode())
    address = f"{PICTURES}/{PICTURE}.svg" if drawn else None
    write_bytes_atomically(page, comparison_page(comparison, command, address).encode())
