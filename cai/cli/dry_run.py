"""A dry run on the terminal: figures, and the first batch as text with its mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cai.cli.quantities import duration, memory
from cai.cli.terminal import visible

if TYPE_CHECKING:
    from cai.training.dry_run import DryRun
    from cai.training.shown_batch import Piece, ShownRow

SHOWN_ROWS, SHOWN_DROPPED = 4, 10
_READ, _BOTH, _CHOSEN, _REJECTED, _LEARNT = "read", "learnt =", "learnt +", "learnt -", "learnt"
_STYLES = {_READ: "dim", _BOTH: "cyan", _CHOSEN: "green", _REJECTED: "red", _LEARNT: "green"}


def print_dry_run(name: str, found: DryRun, out: Console) -> None:
    """Everything it says; text of rows is escaped, so that it cannot steer the terminal."""
    out.print(Text(f"{name}: a dry run; nothing was trained or written.", style="bold"))
    table = Table.grid(padding=(0, 2))
    for label, value in _figures(found):
        table.add_row(label, Text(visible(value), overflow="fold"))
    out.print(table)
    for uid, reason, detail in found.dropped_rows[:SHOWN_DROPPED]:
        out.print(Text(visible(f"  ! {uid}: left out ({reason}): {detail}"), style="yellow"))
    if len(found.dropped_rows) > SHOWN_DROPPED:
        out.print(Text(f"  ! … and {len(found.dropped_rows) - SHOWN_DROPPED} more; --json lists all", style="yellow"))
    if found.memory.process_bytes > found.free_bytes:
        out.print(Text("  ! more memory than is free now: lower tokens_per_forward, or set gradient_checkpointing", "yellow"))
    rows = found.first_batch
    shown = f", {SHOWN_ROWS} of {len(rows)} rows" if len(rows) > SHOWN_ROWS else ""
    out.print(Text(f"First batch{shown}", style="bold"))
    out.print(
        Text(
            "read: not learnt · learnt +: of the chosen reply · learnt -: of the rejected one · learnt =: of several, computed "
            "once · ‹…›: a control token · ⏎: a line break",
            style="dim",
        )
    )
    for row in rows[:SHOWN_ROWS]:
        _print_row(row, out)


def _figures(found: DryRun) -> list[tuple[str, str]]:
    load, size, times = found.load, found.memory, found.times
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.dropped.items())) or "none"
    saved = f" ({load.apart / load.positions:.1f} times less than {load.apart:,} without sharing)" if load.positions else ""
    parts = [
        f"{memory(size.weights)} weights",
        f"{memory(size.trained)} what is trained with gradients and moments",
        f"{memory(size.activations)} activations{'' if size.counted else ' (rough: the architecture could not be counted)'}",
        f"{memory(size.head)} head",
    ]
    path = f"{found.path}{f': {found.path_reason}' if found.path_reason else ''}"
    where = (
        f"{memory(size.device_bytes)} of the GPU's, {memory(size.process_bytes)}" if size.on_gpu else memory(size.process_bytes)
    )
    reference = f", {duration(times.reference)} of reference before" if times.reference else ""
    return [
        ("model", f"{found.model}: {found.parameters:,} parameters, {found.trainable:,} trained"),
        (
            "rows",
            f"{found.trained_rows:,} on {found.prompts:,} prompts, {found.anchors:,} anchors, {found.held_out:,} held out",
        ),
        ("left out", dropped),
        (
            "steps",
            f"{found.steps:,} in {found.epochs} epoch{'s' * (found.epochs > 1)}, learning rate {found.learning_rate:g} at most",
        ),
        ("tokens", f"{load.positions:,} computed in an epoch{saved}, {load.slots:,} learnt"),
        ("path", f"{path} ({'tried' if found.tried else 'expected; decided on the loaded model'})"),
        ("memory", f"about {where} at most ({memory(found.free_bytes)} free): {', '.join(parts)}"),
        ("time", f"about {duration(times.train)}{reference} (at {times.flops_per_second / 1e9:,.0f} GFLOP/s, {times.basis})"),
    ]


def _print_row(row: ShownRow, out: Console) -> None:
    labels = ", ".join(f"{pair.uid} (p_chosen {pair.p_chosen:.2f})" for pair in row.pairs) or row.uid
    out.print(
        Text(
            visible(f"{labels}: {row.read_tokens} tokens read, {row.learnt_tokens} learnt, {row.shared_tokens} shared"), "bold"
        )
    )
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for mark, pieces in _lines(row):
        text = Text(overflow="fold")
        for piece in pieces:
            shown = visible(piece.text).replace("\n", "⏎")
            text.append(f"‹{shown}›" if piece.control else shown, style="magenta" if piece.control else _STYLES[mark[0]])
        label = f"  {mark[0]}" + (f" {mark[1]}" if mark[1] else "")
        table.add_row(Text(label, style=_STYLES[mark[0]]), str(sum(piece.tokens for piece in pieces)), text)
    out.print(table)


def _lines(row: ShownRow) -> list[tuple[tuple[str, str], list[Piece]]]:
    """Pieces that are treated alike and follow each other, with their mark and, among more than two replies, whose they are."""
    lines: list[tuple[tuple[str, str], list[Piece]]] = []
    for piece in row.pieces:
        mark = _mark(row, piece)
        last = lines[-1] if lines else None
        if last is not None and last[0] == mark and last[1][-1].replies == piece.replies:
            last[1].append(piece)
        else:
            lines.append((mark, [piece]))
    return lines


def _mark(row: ShownRow, piece: Piece) -> tuple[str, str]:
    several = max((max(pair.chosen, pair.rejected) for pair in row.pairs), default=0) > 1
    whose = ",".join(str(reply + 1) for reply in piece.replies) if several else ""
    if not piece.learnt:
        return _READ, whose
    if not row.pairs:
        return _LEARNT, whose
    chosen = any(pair.chosen in piece.replies for pair in row.pairs)
    rejected = any(pair.rejected in piece.replies for pair in row.pairs)
    return (_BOTH if chosen and rejected else _CHOSEN if chosen else _REJECTED), whose
