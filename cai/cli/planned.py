"""A plan on the terminal: what a run would do, and why."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cai.cli.quantities import duration
from cai.cli.terminal import visible
from cai.pipeline import Plan

SHOWN_ROWS = 10


def print_plan(plan: Plan, console: Console | None = None, *, times: bool = True) -> None:
    """Changes, stages, calls and the first rows; nothing of it has been done. `times`: as far as stored calls tell them."""
    out = console or Console(highlight=False)
    out.print(Text(f"Plan for {plan.folder}{'' if plan.begun else ' (a new run)'}; nothing was computed or written.", "bold"))
    if plan.begun:
        out.print(Text("What changed" if plan.changes else "What changed: nothing", style="bold"))
    for change in plan.changes:
        rows = (
            "" if change.rows is None else f"  ({change.rows} of {plan.all_rows} rows use it)" if change.rows else "  (no row)"
        )
        name = f"{change.kind} {change.name}"
        out.print(Text(visible(f"  {name}: {', '.join(change.what)}{rows}")))
    if plan.waiting:
        out.print(Text(f"{plan.waiting}: they are not learned before `cai review {plan.folder}`.", style="yellow"))
    for each in plan.beside:
        out.print(Text(visible(f"Beside the run: {each.name} {each.state}: {each.why}")))
    if plan.nothing_to_do:
        out.print(Text("Nothing to do: every stage is finished, and stays as it is.", style="bold"))
        return
    out.print(_stages(plan))
    if any(each.calls or each.reused for each in plan.calls):
        out.print(_calls(plan, times=times))
        out.print(Text("  ~: hangs on answers that are not there yet, and is guessed from the stored ones of its kind."))
    if plan.rows:
        out.print(Text(f"{len(plan.rows)} of {plan.all_rows} rows wait for a call", style="bold"))
    for row in plan.rows[:SHOWN_ROWS]:
        replica = f" (replica {row.replica})" if row.replica else ""
        out.print(Text(visible(f"  {row.uid}{replica}: {row.stage}: {row.why}")))
    if len(plan.rows) > SHOWN_ROWS:
        out.print(Text(f"  … and {len(plan.rows) - SHOWN_ROWS} more; --json lists all."))
    if not times:
        return
    known = duration(plan.known_seconds)
    unknown = ", ".join(plan.unknown)
    told = f"at least {known}; nothing of {unknown} has been made in this folder yet" if unknown else known
    out.print(Text(f"Expected time: {told}; without loading models.", style="bold"))


def _stages(plan: Plan) -> Table:
    table = Table(title="Stages", title_justify="left", title_style="bold")
    for name in ("stage", "state", "why"):
        table.add_column(name)
    table.add_column("seconds", justify="right")
    for each in plan.stages:
        if each.state == "finished" or not each.trains:
            seconds = ""
        else:
            seconds = "unknown" if each.seconds is None else f"{each.seconds:.0f}"
        table.add_row(each.stage.value, each.state, Text(visible(each.why)), seconds)
    return table


def _calls(plan: Plan, *, times: bool) -> Table:
    table = Table(title="Model calls", title_justify="left", title_style="bold")
    table.add_column("kind")
    for name in ("stored", "to make", "prompt tokens", "new tokens", "at most", *(["seconds"] if times else [])):
        table.add_column(name, justify="right")
    for each in plan.calls:
        about = "" if each.certain == each.calls else "~"
        seconds = "unknown" if each.seconds is None else f"{each.seconds:.0f}"
        table.add_row(
            each.name,
            str(each.reused),
            f"{about}{each.calls}",
            f"{about}{each.prompt_tokens}",
            f"~{each.new_tokens}" if each.new_tokens else "0",
            f"{about}{each.most_new_tokens}",
            *([seconds] if times else []),
        )
    return table
