"""What a reward model is worth, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cai.cli.terminal import visible
from cai.report.reward_in_words import reward_in_words, shares

if TYPE_CHECKING:
    from cai.training.reward_quality import Accuracy, RewardQuality

FEW_PAIRS = 20


def print_quality(quality: RewardQuality, out: Console, title: str) -> None:
    """Accuracy by length and principle, then the length-only rule and calibration in sentences."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("pairs", overflow="fold")
    for name in ("count", "accuracy", "mean margin"):
        table.add_column(name, justify="right")
    for each in quality.accuracies:
        table.add_row(*_row(each), end_section=each is quality.overall or each is quality.by_length[-1])
    out.print(table)
    for figure, meaning in reward_in_words(quality):
        out.print(Text(f"  {figure} {meaning}"))
    if quality.pairs < FEW_PAIRS:
        out.print(Text(f"  ! only {quality.pairs} pairs: these figures say little", style="yellow"))


def _row(each: Accuracy) -> tuple[Text, str, str, str]:
    return (
        Text(visible(each.name)),
        f"{each.pairs:,}",
        f"{each.accuracy:.1%} {shares(each.interval)}",
        f"{each.mean_margin:+.3f}",
    )
