"""What a label run says of its labeller, on the terminal. Texts of files are printed as text, never as markup."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cai.cli.terminal import visible
from cai.labels.calibration import Calibration
from cai.labels.human_labels import HumanAgreement
from cai.labels.quality import LabelQuality
from cai.report.labels_in_words import (
    calibration_in_words,
    exam_in_words,
    human_in_words,
    label_warnings,
    quality_in_words,
    with_interval,
)

BAR_CELLS = 30
SHOWN_PRINCIPLES = 12
"""By principle, most judged first; the report has all."""


def print_label_quality(quality: LabelQuality, out: Console) -> None:
    """Figures in words, the examination, the comparison with people, warnings."""
    out.print(Text("Labels, and how good the labeller is; 95 % intervals", style="bold"))
    out.print(_figures(quality_in_words(quality)))
    if len(quality.principles) > 1:
        _print_principles(quality, out)
    if quality.exam is not None:
        out.print(Text(f"  {visible(exam_in_words(quality.exam))}"))
    if quality.human is not None:
        print_human(quality.human, out, title="Labels against people")
    for warning in label_warnings(quality):
        out.print(Text(f"  ! {visible(warning)}", style="yellow"))
    if not quality.pairs:
        out.print(Text("  ! no pair came out of this: nothing to train on; see the reasons above", style="yellow"))


def print_human(human: HumanAgreement, out: Console, *, title: str) -> None:
    """Agreement beside simple judges, calibration before and after a fitted temperature, what was left out."""
    out.print(Text(visible(title), style="bold"))
    out.print(_figures(human_in_words(human)))
    for problem in human.problems:
        out.print(Text(f"  ! {visible(problem)}", style="yellow"))
    out.print(_figures(calibration_in_words(human)))
    fit = human.fit
    if fit is not None:
        out.print(Text("  How often people chose as labels did that are so sure, before", style="bold"))
        _print_reliability(fit.before, out)
        if fit.after is not None:
            out.print(Text("  and at the fitted temperature", style="bold"))
            _print_reliability(fit.after, out)
    elif human.calibration is not None:
        out.print(Text("  How often people chose as labels did that are so sure", style="bold"))
        _print_reliability(human.calibration, out)


def _figures(lines: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True, min_width=20)
    table.add_column(overflow="fold")
    for figure, meaning in lines:
        table.add_row(Text(visible(figure)), Text(visible(meaning)))
    return table


def _print_principles(quality: LabelQuality, out: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("  principle", overflow="fold")
    for name in ("pairs", "mean margin", "agrees with all together", "conflicts", "same letter"):
        table.add_column(name, justify="right")
    ordered = sorted(quality.principles, key=lambda each: -each.pairs)
    for each in ordered[:SHOWN_PRINCIPLES]:
        table.add_row(
            Text(f"  {visible(each.principle_id)}"),
            str(each.pairs),
            "–" if each.mean_margin_nats is None else f"{each.mean_margin_nats:+.2f} nats",
            "–" if each.agreeing is None else with_interval(each.agreeing),
            str(each.conflicts),
            "–" if each.same_slot is None else with_interval(each.same_slot),
        )
    out.print(table)
    if len(ordered) > SHOWN_PRINCIPLES:
        out.print(Text(f"  … and {len(ordered) - SHOWN_PRINCIPLES} more principles; the report has all"))


def _print_reliability(measured: Calibration, out: Console) -> None:
    """A bar for each bin, and a mark where it would end if the labels were as right as they are sure."""
    for each in measured.bins:
        right, sure = round(each.mean_target * BAR_CELLS), min(BAR_CELLS - 1, round(each.mean_p * BAR_CELLS))
        cells = "".join("|" if cell == sure else "█" if cell < right else "·" for cell in range(BAR_CELLS))
        figures = f"{each.mean_target:4.0%} of {each.labels} labels of {each.mean_p:.0%} on average"
        out.print(Text(f"  {each.low:.2f}–{each.high:.2f} {cells} {figures}"))
