"""`cai report`: a run folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run, finished or not.")],
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; default: report.html in the run.")] = None,
    beside: Annotated[
        Path | None, typer.Option("--beside", metavar="RUN", help="Folder of another run, to show side by side with this one.")
    ] = None,
    megabytes: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Most that transcripts and answers take in the file; default: 4.7 for every 10,000 transcripts."
        ),
    ] = None,
) -> None:
    """Write the report of a run: one HTML file that needs no network. Works beside a run that is still going."""
    from cai.report import write_report
    from cai.store import RunFolder

    budget_bytes = None if megabytes is None else megabytes * 1e6
    if beside is not None:
        from cai.pipeline.side_by_side import write_report_beside

        typer.echo(write_report_beside(folder, beside, output, budget_bytes=budget_bytes))
        return
    with RunFolder.open(folder, create=False, read_only=True) as run:
        typer.echo(write_report(run, output, budget_bytes=budget_bytes))
