"""`cai lab`: the small world with exact truth, and what it says of the method."""

from __future__ import annotations

import typer

from cai.cli.lab_compare import compare
from cai.cli.lab_study import study

app = typer.Typer(help="The embedded small world, whose truth is known.", no_args_is_help=True)
app.command("study")(study)
app.command("compare")(compare)
