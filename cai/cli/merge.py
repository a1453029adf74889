"""`cai merge`: the shards of a run into one run folder."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from cai.cli.run import AsJson


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Run folder to put the whole in: a new or an empty one.")],
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD...", help="Folders of all shards, in any order.")],
    *,
    json: AsJson = False,
) -> None:
    """Put the shards of a run together; refused unless every input row is there exactly once. `cai run` goes on from there."""
    from cai.pipeline.merging import merge as merge_shards

    merged = merge_shards(out, shards)
    if json:
        content = {
            "folder": str(merged.folder),
            "shards": merged.shards,
            "labelled": merged.labelled,
            "ledger": {outcome.value: count for outcome, count in merged.ledger.items()},
        }
        typer.echo(json_.dumps(content, indent=1, ensure_ascii=False))
        return
    outcomes = ", ".join(f"{outcome.value} {count}" for outcome, count in merged.ledger.items() if count)
    typer.echo(f"{sum(merged.ledger.values())} input rows from {merged.shards} shards in {merged.folder}: {outcomes}")
    labels = (
        "" if merged.labelled else " Labels are still to be put together: not every shard had them, or a filter needs all rows."
    )
    typer.echo(f"Go on with `cai run CONFIG --set run={merged.folder}`.{labels}")
