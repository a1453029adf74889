"""`cai compare`: two constitutions, files or git revisions of one, on the same drafts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.run import ROWS_FAILED, AsJson, Settings, resumable

if TYPE_CHECKING:
    from rich.console import Console

    from cai.authoring.comparison import ComparedTranscript, ConstitutionComparison

Named = "principle file, folder, `shipped`, `shipped:NAME`, or REVISION:PATH of the git repository here"


def compare(
    a: Annotated[str, typer.Argument(help=f"Constitution A: {Named}.")],
    b: Annotated[str, typer.Argument(help="Constitution B, likewise.")],
    config: Annotated[
        str, typer.Option("--config", "-f", metavar="CONFIG.yaml", help="The run whose prompts, models and loop are used.")
    ],
    settings: Settings = None,
    items: Annotated[int, typer.Option(min=1, help="Prompts in the sample, taken from all groups of tags in turn.")] = 200,
    shown: Annotated[int, typer.Option(min=0, help="Transcripts shown side by side, the most different ones.")] = 10,
    *,
    json: AsJson = False,
) -> None:
    """Which of two constitutions gives the better answers, by how much, and on how many rows that rests.

    Drafts are shared, and so is every call that both constitutions make alike; the run's folder remembers them. Differences
    are paired, with 95 % intervals (bootstrap over prompts) and McNemar p-values corrected for the number of behaviours.
    """
    from pathlib import Path

    from cai.cli.progress import ProgressDisplay
    from cai.cli.run import read
    from cai.pipeline import open_session, read_inputs
    from cai.pipeline.auditing import compare_constitutions, sides_in_use
    from constitution.git_revisions import load_named

    given = read(Path(config), settings).config
    one, two = sides_in_use((load_named(a), load_named(b)), given)
    inputs = read_inputs(given)
    with resumable(), ProgressDisplay() as display, open_session(inputs, display.show, calls_only=True) as session:
        result = compare_constitutions(
            session,
            one,
            two,
            items=items,
            shown=shown,
            on_event=session.tell,
        )
        usage = session.usage()
    if json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        from cai.cli.terminal import tables

        print_comparison(result, (a, b), tables())
        typer.echo(f"{usage.calls} calls made, {usage.reused} shared or remembered", err=True)
    if result.failures:
        raise typer.Exit(ROWS_FAILED)


def print_comparison(result: ConstitutionComparison, names: tuple[str, str], out: Console) -> None:
    """The table of differences, and the transcripts side by side."""
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import visible

    out.print(Text(f"A: {visible(names[0])}\nB: {visible(names[1])}"))
    out.print(Text(f"{result.pairs} pairs from {result.items} prompts; {result.same} end in the same text under both"))
    for side, untouched in (("A", result.untouched_a), ("B", result.untouched_b)):
        if untouched:
            told = f"no principle of {side} applies to {untouched} of them: there the draft itself is judged"
            out.print(Text(told, style="yellow"))
    if result.failures:
        out.print(Text(f"{result.failures} failed or could not be judged: in no figure", style="red"))
    title = f"Share of bad final answers, judged by {result.judge}; 95 % intervals"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("behaviour")
    for name in ("A", "B", "B − A", "p (Holm)", "prompts", "differ"):
        table.add_column(name, justify="right")
    for each in result.behaviours:
        row = each.row
        change = f"{100 * row.difference:+.0f} [{100 * row.difference_low:+.0f}, {100 * row.difference_high:+.0f}]"
        table.add_row(
            Text(visible(row.label)),
            f"{row.before:.0%}",
            f"{row.after:.0%}",
            Text(change) if row.enough else f"{100 * row.difference:+.0f}",
            "<0.001" if each.p_holm < 0.001 else f"{each.p_holm:.3f}",
            str(row.prompts),
            str(each.differing),
        )
    out.print(table)
    for each in result.behaviours:
        out.print(Text(f"  {visible(each.row.label)}: {each.verdict}"))
    if result.most_different:
        out.print(Text(f"The {len(result.most_different)} most different, side by side", style="bold"))
    for transcript in result.most_different:
        _print_side_by_side(transcript, out)


def _print_side_by_side(transcript: ComparedTranscript, out: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import visible

    out.print(Text(f"“{visible(transcript.prompt)}”  [{visible(transcript.uid)}]", style="bold"))
    out.print(Text(f"draft: {visible(transcript.draft)}"))
    for line in transcript.judged:
        out.print(Text(visible(line), style="yellow"))
    table = Table(show_header=True, expand=True)
    for name in ("A", "B"):
        table.add_column(name, ratio=1, overflow="fold")
    cells: list[Text] = []
    for record in (transcript.a, transcript.b):
        cell = Text()
        for each in record.rounds:
            cell.append(f"[{each.principle_id}] {visible(each.critique)}\n", style="cyan")
        cells.append(cell.append(visible(record.final), style="green" if record.changed else ""))
    table.add_row(*cells)
    out.print(table)
