"""`cai check`: are principle files sound?"""

from __future__ import annotations

import dataclasses
import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from constitution.errors import PrincipleFileError
    from constitution.loading import PrincipleFile

CHECKS_FAILED = 4


def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATHS]…", help="Principle files and folders; default: `shipped`, those that come along."),
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a principle file, for editors, instead.")
    ] = False,
) -> None:
    """Check principle files: every problem of every file at once, as file:line:column. Exit code 4 if there are any."""
    from constitution.errors import ConstitutionError
    from constitution.loading import load_files
    from constitution.schema import json_schema

    if schema:
        typer.echo(json_.dumps(json_schema(), indent=1, ensure_ascii=False))
        return
    files: Sequence[PrincipleFile] = ()
    problems: Sequence[PrincipleFileError] = ()
    try:
        files = load_files(paths or ["shipped"])
    except ConstitutionError as error:
        problems = error.errors
    if json:
        found = [dataclasses.asdict(each) for each in problems]
        typer.echo(json_.dumps({"problems": found, "files": [_counts(each) for each in files]}, indent=1, ensure_ascii=False))
    elif problems:
        _print_problems(problems)
    else:
        _print_table(files)
    if problems:
        raise typer.Exit(CHECKS_FAILED)


def _counts(file: PrincipleFile) -> dict[str, Any]:
    principles = file.constitution.principles
    return {
        "path": str(file.path),
        "name": file.constitution.name,
        "principles": len(principles),
        "tests": sum(len(principle.tests) for principle in principles),
        "untested": [principle.id for principle in principles if not principle.tests],
    }


def _print_problems(problems: Sequence[PrincipleFileError]) -> None:
    from cai.cli.terminal import visible

    for problem in problems:
        typer.echo(visible(str(problem)))
    files = len({problem.path for problem in problems})
    typer.echo(f"{len(problems)} problem{'s' * (len(problems) != 1)} in {files} file{'s' * (files != 1)}", err=True)


def _print_table(files: Sequence[PrincipleFile]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import visible

    counts = [_counts(each) for each in files]
    totals = [sum(each[key] for each in counts) for key in ("principles", "tests")]
    table = Table(box=None, pad_edge=False, show_footer=len(files) > 1)
    table.add_column("file", Text(f"{len(files)} files"), overflow="fold")
    table.add_column("principles", str(totals[0]), justify="right")
    table.add_column("tests", str(totals[1]), justify="right")
    for each in counts:
        table.add_row(Text(visible(_short(Path(each["path"])))), str(each["principles"]), str(each["tests"]))
    console = Console(highlight=False)
    console.print(table)
    untested = [principle for each in counts for principle in each["untested"]]
    if untested:
        console.print(Text(f"Sound. Without tests of their own: {', '.join(untested)}."))
    else:
        console.print(Text("Sound."))


def _short(path: Path) -> str:
    """A path from the working directory, where it lies below it."""
    resolved, here = path.resolve(), Path.cwd()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)
