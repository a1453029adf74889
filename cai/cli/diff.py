"""`cai diff`: why two runs differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.run import AsJson

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cai.pipeline.causes import Causes, ChangedPrinciple
    from cai.pipeline.differences import RunDifferences
    from cai.pipeline.effects import Effects

SHOWN_FACTS = 30


def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of another run.")],
    *,
    json: AsJson = False,
) -> None:
    """Why two runs differ: principles word by word, settings with their origins, models, packages; and what came of it.

    Rows, labels of the same two answers, figures with intervals, and the bytes of files are compared. Reads only.
    """
    import json as json_

    from cai.pipeline.differences import differences

    found = differences(first, second)
    if json:
        typer.echo(json_.dumps(found.as_json(), indent=1, ensure_ascii=True))
        return
    from cai.cli.terminal import tables

    print_differences(found, tables(), named=(str(first), str(second)))


def print_differences(found: RunDifferences, out: Console, *, named: tuple[str, str] | None = None) -> None:
    """What the runs were made of, then what they came to.

    Args:
        found: The differences.
        out: Where to print.
        named: What the user called the two, where their folders have the same name: most runs lie in a folder `run`.
    """
    from rich.text import Text

    from cai.cli.terminal import visible

    first, second = named if named is not None and found.first == found.second else (found.first, found.second)
    out.print(Text(visible(f"first:  {first}\nsecond: {second}")))
    if found.same:
        out.print(Text("Both came to the same, byte for byte.", style="bold green"))
    else:
        unlike = [name for name, same in found.stages.items() if not same]
        out.print(Text(f"They differ in what came of: {', '.join(unlike) or 'the input rows'}.", style="bold"))
    print_causes(found.causes, out)
    print_effects(found.effects, out)


def print_causes(causes: Causes, out: Console) -> None:
    """What the runs were made of, as far as it differs."""
    from rich.text import Text

    from cai.cli.terminal import visible
    from cai.pipeline.differences_in_words import shown_setting, shown_value

    named = causes.named
    told = f"Made of other {', '.join(named)}" if named else "Made of the same in all that is noted"
    out.print(Text(told, style="bold"))
    for each in causes.principles:
        _print_principle(each, out)
    for each in causes.settings:
        values = zip(shown_setting(each), (each.first_origin, each.second_origin), strict=True)
        told = " → ".join(value if value == origin else f"{value} ({origin})" for value, origin in values)
        out.print(Text(visible(f"  setting {each.key}: {told}")))
    for part in ("constitution", "prompts", "models", "packages", "environment", "git"):
        facts = getattr(causes, part)
        for each in facts[:SHOWN_FACTS]:
            out.print(Text(visible(f"  {part}: {each.name}: {shown_value(each.first)} → {shown_value(each.second)}")))
        if len(facts) > SHOWN_FACTS:
            out.print(Text(f"  {part}: and {len(facts) - SHOWN_FACTS} more (--json has them all)"))
    if causes.unknown:
        out.print(Text(f"  not noted by one of the runs, which is older: {', '.join(causes.unknown)}", style="yellow"))


def _print_principle(each: ChangedPrinciple, out: Console) -> None:
    from rich.text import Text

    from cai.cli.terminal import visible

    styles = {"kept": "", "removed": "red strike", "added": "green"}
    marks = {"kept": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
    out.print(Text(visible(f"  principle {each.id}: {each.fate}")))
    for name, pieces in each.fields.items():
        line = Text(f"    {name}: ")
        for piece in pieces:
            before, after = ("", "") if out.is_terminal else marks[piece.kind]
            line.append(f"{before}{visible(piece.text)}{after}", style=styles[piece.kind])
        out.print(line)


def print_effects(effects: Effects, out: Console) -> None:
    """What the runs came to, stage by stage."""
    from rich.text import Text

    from cai.cli.terminal import visible
    from cai.pipeline.differences_in_words import file_lines, label_lines, metric_lines, row_lines

    out.print(Text("Came to", style="bold"))
    for line in (*row_lines(effects), *label_lines(effects), *metric_lines(effects)):
        out.print(Text(visible(f"  {line}")))
    if effects.behaviours:
        out.print(_behaviours(effects))
    for each in effects.not_compared:
        out.print(Text(visible(f"  not compared: {each}"), style="yellow"))
    for line in file_lines(effects):
        out.print(Text(visible(f"  {line}")))
    if effects.files:
        same = sum(each.state == "same" for each in effects.files)
        out.print(Text(f"  {same} of {len(effects.files)} files are the same, byte for byte"))


def _behaviours(effects: Effects) -> Table:
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import visible

    table = Table(title="Bad answers after training", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("behaviour")
    for name in ("first", "second", "second − first", "p (Holm)", "prompts"):
        table.add_column(name, justify="right")
    for row in effects.behaviours:
        change = f"{100 * row.difference:+.0f} [{100 * row.interval.low:+.0f}, {100 * row.interval.high:+.0f}]"
        p = "<0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
        shares = f"{row.first:.0%}", f"{row.second:.0%}"
        table.add_row(Text(visible(row.label)), *shares, Text(change), p, str(row.prompts))
    return table
