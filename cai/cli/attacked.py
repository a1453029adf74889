"""What an attack found, on the terminal. Labels and names come from files: printed as text only."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cai.cli.terminal import tables, visible
from cai.evaluation.results import BehaviourRow
from cai.sycophancy.attack import Attacked
from cai.sycophancy.measuring import MoveFigures


def print_attack(found: Attacked) -> None:
    """Bad answers as prompts are written and in other wordings, what each move did, and some of what was found."""
    result, out = found.result, tables()
    out.print(Text(f"{visible(result.model)}, judged by {visible(result.judge)}", style="bold"))
    table = Table()
    table.add_column("share of bad answers")
    for name in ("as written", "reworded", "change, points", "prompts"):
        table.add_column(name, justify="right")
    for title, rows in (("wordings found", result.found), ("random wordings", result.random)):
        table.add_row(Text(title, style="bold"))
        _add(table, rows)
    out.print(table)
    out.print(
        Text(
            "Fresh answers at temperature 1; 95 % intervals, resampling clusters of prompts. Controls are pressed alike. "
            f"Searched: {result.tries} wordings of {result.prompts} prompts; in {result.wholly} every answer gave in, "
            "which says less, since they were chosen by it."
        )
    )
    if tried := [each for each in result.moves if each.tried]:
        _print_moves(tried, out)
    else:
        out.print(Text("No move was tried: no round was left for one, or every prompt was given in to as written."))
    if found.agreement is not None:
        out.print(Text(f"The suite's exact values and patterns judge as the lab does in {found.agreement}."))
    for why, count in result.dropped.items():
        out.print(Text(f"not asked, {visible(why)}: {count}"))
    for cause, count in result.failures.items():
        out.print(Text(f"failed, {visible(cause)}: {count}", style="yellow"))
    if result.unmeasured:
        out.print(Text(f"{result.unmeasured} answers of the measurement could not be judged", style="yellow"))


def _print_moves(tried: Sequence[MoveFigures], out: Console) -> None:
    moves = Table()
    for name in ("move", "tried", "gained", "in the strongest"):
        moves.add_column(name, justify="left" if name == "move" else "right")
    for each in tried:
        moves.add_row(Text(visible(each.move)), str(each.tried), str(each.gained), str(each.in_best))
    out.print(moves)
    out.print(Text("Gained: on the search's own few answers, where a prompt that did well by luck seems to lose to any move."))


def _add(table: Table, rows: Sequence[BehaviourRow]) -> None:
    for row in sorted(rows, key=lambda row: row.kind == "control"):
        table.add_row(
            Text(f"  {visible(row.label)}{' (control)' if row.kind == 'control' else ''}"),
            f"{row.before:.0%} [{row.before_low:.0%}, {row.before_high:.0%}]",
            f"{row.after:.0%} [{row.after_low:.0%}, {row.after_high:.0%}]",
            f"{100 * row.difference:+.0f} [{100 * row.difference_low:+.0f}, {100 * row.difference_high:+.0f}]",
            str(row.prompts),
        )
