"""`cai import`: other people's principles as principle files; and what could not be carried over."""

from __future__ import annotations

import json as json_
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cai.cli.importing import Made

SOME_LEFT_OUT = 3
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
    from cai.cli.importing import as_json, told
    from cai.cli.output_files import refuse_existing, write
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
        typer.echo(json_.dumps({"files": [as_json(each, dry_run=dry_run) for each in made]}, indent=1, ensure_ascii=False))
    else:
        typer.echo(visible("\n\n".join(told(each, dry_run=dry_run) for each in made)))
    if any(each.left_out for each in made):
        raise typer.Exit(SOME_LEFT_OUT)


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


def _import_all(sources: Sequence[Path], places: Sequence[Path], format_name: str | None) -> list[Made]:
    """Every source as a principle file; the problems of all that cannot be read together."""
    from cai.cli.importing import Made
    from constitution.errors import ConstitutionError
    from constitution.importing import import_file, principle_file_of, way_back

    taken: dict[str, int] = {}
    made: list[Made] = []
    errors: list[Any] = []
    for path, target in zip(sources, places, strict=True):
        try:
            chosen, source, imported = import_file(path, format_name, taken)
            text = principle_file_of(imported, target)
        except ConstitutionError as error:
            errors += error.errors
        else:
            made.append(Made(path, target, chosen, imported, text, way_back(imported.constitution, chosen, source, imported)))
    if errors:
        raise ConstitutionError(errors)
    return made


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
