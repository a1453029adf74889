"""`cai status`: how a run stands, from another terminal while it runs, or after."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai.cli.quantities import duration, memory, rate
from cai.cli.terminal import visible
from cai.records import Stage

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from cai.review.flow import Waiting
    from cai.store.standing import Standing

WATCH_EVERY_S = 2.0
HOW = {
    "working": "working",
    "finished": "finished",
    "interrupted": "interrupted; the same command goes on",
    "failed": "failed",
    "killed": "its process is gone without a word (killed?); the same command goes on",
    "elsewhere": "in use on another machine, which cannot be asked from here",
    "idle": "nobody works on it",
}


def status(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run, at work or not.")],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until nobody works on it.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (with --watch: one a line).")] = False,
) -> None:
    """How a run stands: stage in work, rows by outcome, calls and tokens, failures, time left, who works on it.

    Reads only: it disturbs no run, and works beside one, after it, and after a kill.
    """
    from cai.cli.run import resumable
    from cai.store.standing import read_standing

    with resumable(""):
        if json:
            _print_json(folder, watch=watch)
        elif watch:
            _watch(folder)
        else:
            from cai.cli.terminal import tables

            out = tables()
            out.print(drawn(read_standing(folder), out))


def _print_json(folder: Path, *, watch: bool) -> None:
    import json

    from cai.store.standing import read_standing

    while True:
        standing = read_standing(folder)
        typer.echo(json.dumps(as_json(standing), indent=None if watch else 1))
        if not watch or standing.activity not in ("working", "elsewhere"):
            return
        time.sleep(WATCH_EVERY_S)


def _watch(folder: Path) -> None:
    from rich.console import Console
    from rich.live import Live

    from cai.store.standing import read_standing

    out = Console(highlight=False)
    standing = read_standing(folder)
    if not out.is_terminal or out.is_dumb_terminal:
        while True:
            out.print(drawn(standing, out))
            if standing.activity not in ("working", "elsewhere"):
                return
            time.sleep(WATCH_EVERY_S)
            standing = read_standing(folder)
    with Live(drawn(standing, out), console=out, auto_refresh=False) as live:
        while standing.activity in ("working", "elsewhere"):
            time.sleep(WATCH_EVERY_S)
            standing = read_standing(folder)
            live.update(drawn(standing, out), refresh=True)


def drawn(standing: Standing, out: Console) -> RenderableType:
    """All of it, for the width of a console."""
    from rich.console import Group
    from rich.text import Text

    from cai.cli.stage_table import stage_table

    parts: list[RenderableType] = [_head(standing)]
    beat = standing.heartbeat
    if beat is not None and beat.stages:
        parts.append(stage_table(beat.stages, beat.figures, out.width, out.height))
    parts.append(_rows(standing))
    if waiting := waiting_for_review(standing):
        parts.append(Text(f"{waiting}: `cai review {visible(str(standing.folder))}`", style="yellow"))
    if standing.calls:
        parts.append(_calls(standing))
    return Group(*parts)


def waiting_for_review(standing: Standing) -> Waiting:
    """What is not learned before a person has judged it; nothing before there are labels."""
    from cai.review.flow import NOTHING_WAITS, waiting
    from cai.store import RunFolder

    if Stage.LABEL not in standing.finished:
        return NOTHING_WAITS
    with RunFolder.open(standing.folder, create=False, read_only=True, checked=False) as run:
        return waiting(run)


def _head(standing: Standing) -> Text:
    from rich.text import Text

    beat, holder = standing.heartbeat, standing.holder
    text = Text()
    text.append(f"{visible(str(standing.folder))}: ", style="bold")
    at = f", in stage {beat.phase}" if standing.activity == "working" and beat is not None and beat.phase else ""
    text.append(HOW[standing.activity] + at)
    if standing.activity == "failed" and beat is not None:
        text.append(f": {visible(beat.problem)}", style="red")
    if standing.doubt:
        text.append(f"\nstalled? {standing.doubt}", style="yellow")
    if holder is not None:
        since = f" since {holder.since}" if holder.since else ""
        text.append(visible(f"\nprocess {holder.pid} on {holder.host}{since}"))
    elif beat is not None:
        text.append(visible(f"\nlast process {beat.pid} on {beat.host}, {duration(standing.seen - beat.written)} ago"))
    ages = [f"last commit {duration(standing.committed_s_ago)} ago"]
    if standing.quiet_s is not None:
        ages.insert(0, f"last unit finished {duration(standing.quiet_s)} ago")
    stages = f"; finished stages: {', '.join(standing.finished)}" if standing.finished else ""
    text.append(f"\n{', '.join(ages)}; {memory(standing.disk_bytes)} on disk{stages}")
    return text


def _rows(standing: Standing) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{sum(standing.rows.values()):,} input rows", title_justify="left", title_style="bold", box=None)
    table.add_column("outcome")
    table.add_column("rows", justify="right")
    table.add_column("reason", overflow="fold")
    for (outcome, reason), count in sorted(standing.reasons.items(), key=lambda entry: (entry[0][0], -entry[1])):
        table.add_row(outcome.value, f"{count:,}", Text(visible(reason)), style="red" if outcome == "failed" else "")
    return table


def _calls(standing: Standing) -> Table:
    from rich.table import Table

    from cai.store.heartbeat import StageCalls

    table = Table(title="Model calls, of all processes", title_justify="left", title_style="bold", box=None)
    table.add_column("kind")
    for name in ("calls", "failed", "tokens in", "tokens out", "in/s", "out/s"):
        table.add_column(name, justify="right")
    at_work = standing.heartbeat if standing.activity == "working" else None
    lately = at_work.figures.calls if at_work is not None else dict[str, StageCalls]()
    for name, usage in standing.calls.items():
        now = lately.get(name)
        rates = [
            "" if value is None else rate(value)
            for value in ((now.prompt_tokens_per_s, now.completion_tokens_per_s) if now else (None, None))
        ]
        counts = (usage.calls, usage.failures, usage.prompt_tokens, usage.completion_tokens)
        table.add_row(visible(name), *(f"{count:,}" for count in counts), *rates)
    if lately:
        table.caption, table.caption_justify = "in/s, out/s: tokens a second over the last minute of this stage", "left"
    return table


def as_json(standing: Standing) -> dict[str, Any]:
    """For programs. Times are seconds since 1970."""
    from dataclasses import asdict

    holder, waiting = standing.holder, waiting_for_review(standing)
    return {
        "folder": str(standing.folder),
        "activity": standing.activity,
        "doubt": standing.doubt,
        "seen": standing.seen,
        "holder": None if holder is None else holder.model_dump(mode="json"),
        "finished": list(standing.finished),
        "rows": dict(standing.rows),
        "reasons": [{"outcome": o, "reason": reason, "rows": count} for (o, reason), count in standing.reasons.items()],
        "calls": {name: asdict(usage) for name, usage in standing.calls.items()},
        "process": None if standing.heartbeat is None else asdict(standing.heartbeat),
        "quiet_s": standing.quiet_s,
        "silent_s": standing.silent_s,
        "committed_s_ago": standing.committed_s_ago,
        "disk_bytes": standing.disk_bytes,
        "waiting_for_review": asdict(waiting),
    }
