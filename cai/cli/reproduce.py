"""`cai reproduce`: a run again, from its own manifest, and what came out otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.check import CHECKS_FAILED
from cai.cli.run import AsJson, resumable
from cai.records import Stage

if TYPE_CHECKING:
    from cai.pipeline.causes import Causes


def reproduce(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run, or one with its manifest.json only.")],
    into: Annotated[
        Path | None, typer.Option(help="Folder for the new run; default: RUN-again. Interrupted, it goes on there.")
    ] = None,
    until: Annotated[Stage | None, typer.Option(help="Last stage; default: the last one that RUN finished.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only so many of its prompts, up to the labels.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Where things lie here, e.g. --set policy.name=PATH. May be repeated."),
    ] = None,
    *,
    json: AsJson = False,
) -> None:
    """Do a run again from its own copies of principles, prompts and settings, and say which bytes or figures differ.

    Models and files are compared by content before anything is computed: what is missing or changed is refused, all at once.
    Code 0: all the same, byte for byte; 4: something differs, and what else was different here; 1: it cannot be done again.
    """
    import json as json_

    from cai.cli.progress import ProgressDisplay
    from cai.pipeline.reproducing import prepare
    from cai.pipeline.reproducing import reproduce as do_again

    place = into or folder.resolve().with_name(f"{folder.resolve().name}-again")
    ready = prepare(folder, place, until=until, sample=sample, changes=settings or [])
    if not json:
        _print_surroundings(ready.surroundings)
    with resumable(), ProgressDisplay(json=json) as display:
        found = do_again(ready, display.show)
    if json:
        content = {"folder": str(place), "until": ready.until.value, "sample": ready.sampled, **found.as_json()}
        typer.echo(json_.dumps(content, indent=1, ensure_ascii=True))
    else:
        from cai.cli.diff import print_differences
        from cai.cli.terminal import tables

        typer.echo("\n".join(f"{name:<10}{'the same' if same else 'DIFFERS'}" for name, same in found.stages.items()))
        print_differences(found, tables(), named=(str(folder), str(place)))
    if not found.same:
        raise typer.Exit(CHECKS_FAILED)


def _print_surroundings(around: Causes) -> None:
    from cai.cli.terminal import visible
    from cai.pipeline.causes import NOT_NOTED
    from cai.pipeline.differences_in_words import shown_setting

    for each in (*around.packages, *around.environment, *around.git):
        typer.echo(visible(f"different here: {each.name}: {each.first} → {each.second}"), err=True)
    for each in around.settings:
        if each.first_origin != NOT_NOTED:
            typer.echo(visible("set otherwise: {}: {} → {}".format(each.key, *shown_setting(each))), err=True)
    if later := [each.key for each in around.settings if each.first_origin == NOT_NOTED]:
        typer.echo(visible(f"not noted by the run, which is older: {', '.join(later)}"), err=True)
