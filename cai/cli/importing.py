"""What `cai import` says of one file: as text for people, and as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from constitution.importing import Format, Imported, Return

SHOWN = 10
"""Losses printed for each file; `--json` has them all."""


@dataclass(frozen=True)
class Made:
    """One source and the principle file made of it. `back` is None when such a source cannot be written again."""

    source: Path
    target: Path
    format: Format
    imported: Imported
    text: str
    back: Return | None

    @property
    def left_out(self) -> int:
        from constitution.importing import Fate

        return sum(loss.fate is Fate.ENTRY for loss in self.imported.losses)

    @property
    def counts(self) -> dict[str, int]:
        principles = self.imported.constitution.principles
        return {
            "principles": len(principles),
            "demonstrations": sum(len(principle.demonstrations) for principle in principles),
            "tests": sum(len(principle.tests) for principle in principles),
        }


def as_json(made: Made, *, dry_run: bool) -> dict[str, Any]:
    back = made.back
    return {
        "source": str(made.source),
        "format": made.format.name,
        "entries": made.imported.entries,
        "file": str(made.target),
        "written": not dry_run,
        **made.counts,
        "entries_left_out": made.left_out,
        "not_carried_over": [dataclasses.asdict(loss) for loss in made.imported.losses],
        "remarks": list(made.imported.remarks),
        "written_back": None if back is None else {"same": back.same, "places": list(back.places)},
    }


def told(made: Made, *, dry_run: bool) -> str:
    counts = ", ".join(_many(number, name[:-1]) for name, number in made.counts.items() if number)
    losses = made.imported.losses
    lines = [
        f"{made.source}: {made.format.title}",
        f"  read       {_many(made.imported.entries, 'entry', 'entries')} ({made.format.name})",
        f"  {'would give' if dry_run else 'written   '} {made.target}: {counts}",
        *(f"  note       {remark}" for remark in made.imported.remarks),
        f"  not carried over: {len(losses) or 'nothing'}" + f" ({_fates(made.imported)})" * bool(losses),
        *(f"    {loss}" for loss in losses[:SHOWN]),
    ]
    if len(losses) > SHOWN:
        lines.append(f"    … and {len(losses) - SHOWN} more (--json lists all)")
    lines.append(f"  back       {_back(made)}")
    return "\n".join(lines)


def _fates(imported: Imported) -> str:
    from collections import Counter

    counted = Counter(str(loss.fate) for loss in imported.losses)
    return "; ".join(f"{number} {fate}" for fate, number in counted.items())


def _back(made: Made) -> str:
    import shlex

    command = f"cai convert {shlex.quote(str(made.target))} --to {made.format.name}"
    if made.back is None:
        return "this cannot be written back"
    if made.back.same == "bytes":
        return f"{command}: identical, byte for byte"
    if made.back.same == "data":
        return f"{command}: the same data, laid out differently"
    places = ", ".join(made.back.places[:3]) + ", …" * (len(made.back.places) > 3)
    return f"{command}: differs in {_many(len(made.back.places), 'place')}: {places}"


def _many(number: int, name: str, names: str = "") -> str:
    return f"{number} {name if number == 1 else names or name + 's'}"
