"""The report of a run beside another: what differs comes from `differences`, the page from `cai.report`."""

from __future__ import annotations

from pathlib import Path

from cai.errors import StoreError
from cai.pipeline.differences import RunDifferences, differences
from cai.pipeline.differences_in_words import label_lines, row_lines, shown_setting, trained_in_both, training_lines
from cai.report import Beside, BesideBehaviour, BesideView, write_report
from cai.store import RunFolder


def write_report_beside(here: Path, there: Path, output: Path | None = None, *, budget_bytes: float | None = None) -> Path:
    """Write the report of `here` with `there` beside it; default: `report.html` in its folder. Both are only read.

    Raises:
        StoreError: If one holds no run or is damaged, if both are the same, or if the file cannot be written.
    """
    if here.resolve() == there.resolve():
        raise StoreError(f"{here} and {there} are the same run", "name another run to show beside it")
    view = beside_view(differences(here, there))
    with (
        RunFolder.open(here, create=False, read_only=True) as run,
        RunFolder.open(there, create=False, read_only=True, checked=False) as other,
    ):
        return write_report(run, output, beside=Beside(view, other), budget_bytes=budget_bytes)


def beside_view(found: RunDifferences) -> BesideView:
    """The differences of two runs as the report shows them."""
    effects = found.effects
    return BesideView(
        name=found.second if found.second != found.first else f"the other {found.second}",
        lines=(*row_lines(effects), *label_lines(effects), *training_lines(effects)),
        principles=tuple((each.id, each.fate) for each in found.causes.principles),
        settings=tuple((each.key, *shown_setting(each)) for each in found.causes.settings),
        metrics=tuple(
            (f"{each.stage}: {each.name}", _figure(each.first), _figure(each.second)) for each in trained_in_both(effects)
        ),
        behaviours=tuple(
            BesideBehaviour(
                label=each.label,
                here=f"{each.first:.0%}",
                there=f"{each.second:.0%}",
                change=f"{100 * each.difference:+.0f} [{100 * each.interval.low:+.0f}, {100 * each.interval.high:+.0f}]",
                p=each.p_holm,
                prompts=each.prompts,
            )
            for each in effects.behaviours
        ),
        not_compared=effects.not_compared,
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
