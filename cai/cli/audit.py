"""`cai audit`: what a constitution does to a sample of prompts, before it is run on all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.run import ROWS_FAILED, AsJson, ConfigFile, Settings, checked_inputs, read, resumable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from cai.authoring.audit_results import AuditResult, AuditRow, PairAudit

NOTED = 8
"""Pairs of principles listed; the JSON has all."""


def audit(
    config: ConfigFile,
    settings: Settings = None,
    items: Annotated[int, typer.Option(min=1, help="Prompts in the sample, taken from all groups of tags in turn.")] = 40,
    rows_per_pair: Annotated[
        int, typer.Option(min=1, help="Revisions of one principle that each other one is asked about; bounds the cost.")
    ] = 8,
    quotes: Annotated[int, typer.Option(min=0, help="Rows quoted for each finding, at most three.")] = 1,
    *,
    json: AsJson = False,
) -> None:
    """What each principle does to a sample of prompts: fires, changes, undoes another, is redundant; and what none covers.

    Every principle is tried on every draft, and on what the others made of it. Calls are remembered in the run's folder, so
    the run itself makes none of these drafts again. The result is also written there, as audit.json.
    """
    from cai.cli.progress import ProgressDisplay
    from cai.pipeline import open_session
    from cai.pipeline.auditing import audit_constitution
    from cai.store import write_bytes_atomically

    inputs = checked_inputs(read(config, settings), None)
    with resumable(), ProgressDisplay() as display, open_session(inputs, display.show, calls_only=True) as session:
        result = audit_constitution(
            session,
            items=items,
            rows_per_pair=rows_per_pair,
            on_event=session.tell,
        )
        path = session.folder.path / "audit.json"
        write_bytes_atomically(path, f"{result.model_dump_json(indent=1)}\n".encode())
    if json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        from cai.cli.terminal import tables

        print_audit(result, tables(), quotes=quotes)
        typer.echo(f"all of it: {path}")
    if result.failures:
        typer.echo(f"{result.failures} calls could not be answered; their rows are not counted.", err=True)
        raise typer.Exit(ROWS_FAILED)


def print_audit(result: AuditResult, out: Console, *, quotes: int) -> None:
    """The four tables of an audit, with quoted rows."""
    from rich.text import Text

    table = _titled(f"Each principle alone, on {result.items} drafts")
    table.add_column("principle", no_wrap=True)
    for name in ("applies", "fires", "keeps", "changes", "then content"):
        table.add_column(name, justify="right")
    table.add_column("fires with", overflow="fold")
    for each in result.principles:
        near = f"{each.nearest} ({each.nearest_rows})" if each.nearest else "–"
        table.add_row(
            each.principle_id,
            str(each.applies),
            str(each.fired),
            f"{each.kept / each.applies:.0%}" if each.applies else "–",
            str(each.changed),
            f"{each.mended} of {each.judged}" if each.judged else "–",
            near + (", redundant" if each.redundant else ""),
        )
    out.print(table)
    silent = [each.principle_id for each in result.principles if each.applies and not each.fired]
    idle = [each.principle_id for each in result.principles if not each.applies]
    if any(each.redundant for each in result.principles):
        out.print(Text("  redundant: on every draft it faults, some other principle does too; on this sample, that is"))
        out.print(
            Text(f"  may all be left out together, and no draft would pass that now does not: {', '.join(result.removable)}")
        )
    if silent:
        out.print(Text(f"  never fire on this sample: {', '.join(silent)}"))
    if idle:
        out.print(Text(f"  apply to none of these prompts: {', '.join(idle)}", style="yellow"))
    out.print()

    _print_pairs(
        "One principle objects to what another made of a draft it had nothing against",
        [(pair, pair.objected, pair.rows, pair.objections) for pair in result.pairs if pair.objected],
        "objects to",
        out,
        quotes,
    )
    _print_pairs(
        "A later principle undoes an earlier one: the earlier finds its fault again",
        [(pair, pair.undone, pair.rewrote, pair.undoings) for pair in result.pairs if pair.undone],
        "undoes",
        out,
        quotes,
    )
    if result.orders:
        table = _titled("Does the order matter? Principles that alter the same drafts")
        table.add_column("principles", overflow="fold")
        for name in ("rows", "texts differ", "content, first one first", "content, second one first"):
            table.add_column(name, justify="right")
        for order in sorted(result.orders, key=lambda each: -each.rows)[:NOTED]:
            table.add_row(
                f"{order.one}, {order.other}",
                str(order.rows),
                str(order.differ),
                f"{order.satisfied_one_first:.0%}",
                f"{order.satisfied_other_first:.0%}",
            )
        out.print(table)
        out.print()
    _print_groups(result, out, quotes)


def _print_pairs(
    title: str,
    found: Sequence[tuple[PairAudit, int, int, Sequence[AuditRow]]],
    verb: str,
    out: Console,
    quotes: int,
) -> None:
    from rich.text import Text

    out.print(Text(title, style="bold"))
    if not found:
        out.print(Text("  not once on this sample"))
    for pair, count, of, rows in sorted(found, key=lambda each: (-each[1] / each[2], -each[1]))[:NOTED]:
        out.print(Text(f"  {pair.second} {verb} {pair.first}: {count} of {of}"))
        for row in rows[:quotes]:
            _print_row(row, out)
    if len(found) > NOTED:
        out.print(Text(f"  … and {len(found) - NOTED} more pairs"))
    out.print()


def _print_groups(result: AuditResult, out: Console, quotes: int) -> None:
    from rich.text import Text

    exact = any(group.bad is not None for group in result.groups)
    table = _titled("What is covered" + (", bad by exact truth" if exact else ""))
    table.add_column("prompts", overflow="fold")
    for name in ("rows", "one applies", "one fires", *(("bad drafts", "of these passed by all") if exact else ())):
        table.add_column(name, justify="right")
    for group in result.groups:
        cells = [Text(group.group), str(group.rows), str(group.applicable), str(group.fired)]
        if exact:
            known = group.bad is not None
            cells += [str(group.bad) if known else "–", str(group.bad_passed) if known else "–"]
        table.add_row(*cells)
    out.print(table)
    for group in result.groups:
        for row in group.bare[:quotes]:
            out.print(Text(f"  {group.group}: no principle applies to this prompt", style="yellow"))
            _print_row(row, out)
        for row in group.passed[:quotes]:
            out.print(Text(f"  {group.group}: no principle objects to this bad draft"))
            _print_row(row, out)


def _print_row(row: AuditRow, out: Console) -> None:
    from rich.text import Text

    from cai.cli.summary import diff_text
    from cai.cli.terminal import visible

    out.print(Text(f"    “{visible(row.prompt)}”  [{visible(row.uid)}]", style="dim"))
    if row.before == row.after:
        out.print(Text(f"    {visible(row.before)}"))
    else:
        out.print(Text("    ").append_text(diff_text(row.before, row.after, colour=out.color_system is not None)))
    if row.critique:
        out.print(Text(f"    {visible(row.critique)}", style="cyan"))


def _titled(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
