"""`cai doctor`: whether a run folder is sound, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.check import CHECKS_FAILED
from cai.cli.run import AsJson

if TYPE_CHECKING:
    from cai.store.examination import Check


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run, finished or not.")], *, json: AsJson = False
) -> None:
    """Look through a run folder: database, ledger, checksums, versions, leftovers; each finding says how to mend it.

    Reads only; works beside a run that is still going. Code 4 if something is damaged; a note alone is code 0.
    """
    import json as json_

    from cai.store.examination import examine

    found = examine(folder)
    if json:
        typer.echo(json_.dumps(found.as_json(), indent=1, ensure_ascii=False))
    else:
        for check in found.checks:
            _print(check)
        damaged = sum(not check.is_sound for check in found.checks)
        typer.echo(f"\n{folder}: {'sound' if found.is_sound else f'damaged in {damaged} of {len(found.checks)} checks'}.")
    if not found.is_sound:
        raise typer.Exit(CHECKS_FAILED)


def _print(check: Check) -> None:
    from cai.cli.terminal import visible

    state = "damage" if not check.is_sound else "note" if check.findings else "ok"
    typer.echo(visible(f"{state:<8}{check.name:<14}{check.result}"))
    for finding in check.findings:
        typer.echo(visible(f"        - {finding.problem}\n          → {finding.mend}"))
