"""`cai import`: other people's principles as principle files; and what could not be carried over."""

from __future__ import annotations

import dataclasses
import json as json_
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from constitution.importing import Format, Imported, Return

SOME_LEFT_OUT = 3
SHOWN = 10
"""Losses printed for each file; `--json` has them all."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def import_(
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="SOURCE…", help="Files of another format; `--formats` lists those known.")
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .yaml file for one source, or a folder. Default: SOURCE's name, here."),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FORMAT", help="The sources' format; found by their content when left out.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; only tell what would be written.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace principle files that exist already.")] = False,
    formats: Annotated[bool, typer.Option("--formats", help="List the known formats instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, with every loss.")] = False,
) -> None:
    """Turn another system's principles into principle files, and tell exactly what could not be carried over.

    Exit code 3 if entries were left out. `cai convert` goes the other way.
    """
    from cai.cli.terminal import visible

    if formats:
        _print_formats(as_json=json)
        return
    if not sources:
        raise typer.BadParameter("name at least one file; --formats lists what can be read", param_hint="SOURCE")
    check_format(from_, "--from")
    made = _import_all(sources, targets(sources, out), from_)
    if not dry_run:
        for each in made:
            refuse_existing(each.target, force=force)
        for each in made:
            write(each.target, each.text)
    if json:
        typer.echo(json_.dumps({"files": [_as_json(each, dry_run=dry_run) for each in made]}, indent=1, ensure_ascii=False))
    else:
        typer.echo(visible("\n\n".join(_told(each, dry_run=dry_run) for each in made)))
    if any(each.left_out for each in made):
        raise typer.Exit(SOME_LEFT_OUT)


@dataclass(frozen=True)
class _Made:
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


def check_format(name: str | None, option: str) -> None:
    """Refuse a name that is none of the known formats, with the nearest one.

    Raises:
        typer.BadParameter: If it is none.
    """
    import difflib

    from constitution.importing import FORMATS, WRITABLE

    known = list(WRITABLE) if option == "--to" else [each.name for each in FORMATS]
    if name is None or name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    told = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise typer.BadParameter(f"`{name}` is no format here; {told}", param_hint=option)


def targets(sources: Sequence[Path], out: Path | None) -> list[Path]:
    """Where each source's principle file goes.

    Raises:
        CaiError: If two would go to one place, or one onto its own source.
    """
    from cai.errors import CaiError
    from constitution.importing.naming import slug

    if out is not None and out.suffix.lower() in {".yaml", ".yml"}:
        if len(sources) > 1:
            raise CaiError(f"{out}: {len(sources)} sources give {len(sources)} principle files.", "Give a folder with --out.")
        found = [out]
    else:
        folder = Path() if out is None else out
        names = [_HUMP.sub("-", source.stem) for source in sources]
        found = [folder / f"{slug(name) or 'imported'}.yaml" for name in names]
    for number, (source, target) in enumerate(zip(sources, found, strict=True)):
        if target.resolve() == source.resolve():
            raise CaiError(f"{source}: the principle file would replace its own source.", "Give another place with --out.")
        if target in found[:number]:
            raise CaiError(
                f"{target}: two sources would give this file.", "Import them one at a time, each with its own --out."
            )
    return found


def refuse_existing(target: Path, *, force: bool) -> None:
    """Raise a `CaiError` if there is something at `target` already and it may not be replaced."""
    from cai.errors import CaiError

    if target.is_dir() or (target.exists() and not force):
        hint = (
            "Give another place with --out."
            if target.is_dir()
            else "Give another place with --out, or replace it with --force."
        )
        raise CaiError(f"{target}: exists already; nothing was written.", hint)


def write(target: Path, text: str) -> None:
    """Put `text` at `target`, whole or not at all.

    Raises:
        CaiError: If it cannot be written.
    """
    from cai.errors import CaiError, StoreError
    from cai.store.files import write_bytes_atomically

    try:
        write_bytes_atomically(target, text.encode())
    except (StoreError, OSError) as error:
        cause = error.__cause__ if isinstance(error, StoreError) else error
        told = (cause.strerror if isinstance(cause, OSError) else None) or error
        raise CaiError(f"{target}: cannot be written ({told}).", "Give another place with --out.") from error


def _import_all(sources: Sequence[Path], places: Sequence[Path], format_name: str | None) -> list[_Made]:
    """Every source as a principle file; the problems of all that cannot be read together."""
    from constitution.errors import ConstitutionError
    from constitution.importing import import_file, principle_file_of, way_back

    taken: set[str] = set()
    made: list[_Made] = []
    errors: list[Any] = []
    for path, target in zip(sources, places, strict=True):
        try:
            chosen, source, imported = import_file(path, format_name, taken)
            text = principle_file_of(imported, target)
        except ConstitutionError as error:
            errors += error.errors
        else:
            made.append(_Made(path, target, chosen, imported, text, way_back(imported.constitution, chosen, source, imported)))
    if errors:
        raise ConstitutionError(errors)
    return made


def _as_json(made: _Made, *, dry_run: bool) -> dict[str, Any]:
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


def _told(made: _Made, *, dry_run: bool) -> str:
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


def _back(made: _Made) -> str:
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


def _print_formats(*, as_json: bool) -> None:
    from constitution.importing import FORMATS

    rows = [
        {"name": each.name, "title": each.title, "shape": each.shape, "writable": each.write is not None} for each in FORMATS
    ]
    if as_json:
        typer.echo(json_.dumps(rows, indent=1, ensure_ascii=False))
        return
    for each in FORMATS:
        back = "" if each.write else "; cannot be written back"
        typer.echo(f"{each.name:18} {each.title}{back}\n{'':18} {each.shape}")
