"""`cai report`: a run folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run, finished or not.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; default: report.html in the run.")] = None,
) -> None:
    """Write the report of a run: one HTML file that needs no network. Works beside a run that is still going."""
    from cai.report import write_report
    from cai.store import RunFolder

    with RunFolder.open(folder, create=False, read_only=True) as run:
        typer.echo(write_report(run, output))
