"""`cai convert`: principle files in another system's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cai.cli.import_ import check_format
from cai.cli.output_files import refuse_existing, write


def convert(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATHS…", help="Principle files and folders, or `shipped` for those that come along.")
    ],
    *,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="The format to write; `cai import --formats` lists them.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; printed when left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists already.")] = False,
) -> None:
    """Write principles in another system's format, the way back from `cai import`; what it cannot say is told on stderr."""
    from cai.cli.terminal import visible
    from cai.errors import CaiError
    from constitution.importing import WRITABLE, export_text, unsaid
    from constitution.loading import load_constitution

    check_format(to, "--to")
    chosen = WRITABLE[to]
    constitution = load_constitution(paths)
    try:
        text = export_text(constitution, chosen)
    except ValueError as error:
        raise CaiError(f"{', '.join(paths)}: {error}.", "`cai import --formats` lists the formats.") from error
    if out is None:
        typer.echo(text, nl=False)
    else:
        refuse_existing(out, force=force)
        write(out, text)
        typer.echo(visible(str(out)))
    for field, ids in unsaid(constitution, chosen).items():
        shown = ", ".join(ids[:5]) + ", …" * (len(ids) > 5)
        typer.echo(f"{to} has no place for `{field}` ({len(ids)}: {shown})", err=True)
    silent = [each.id for each in constitution.principles if chosen.needs and not getattr(each, chosen.needs)]
    if silent:
        typer.echo(f"left out, since they have no {chosen.needs}: {', '.join(silent)}", err=True)
