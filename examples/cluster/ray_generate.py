"""A run's drafts, critiques, revisions and labels on a Ray cluster, one actor for each GPU, merged at the end.

    pip install 'constitution-cai[ray]'
    python examples/cluster/ray_generate.py run.yaml --shards 16 --actors 8 --gpus-per-actor 1
    cai run run.yaml                       # data sets, training, before and after, report

On a cluster, submit it with `ray job submit`; alone it starts Ray on this machine. Interrupted, run it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cai.config import read_config
from cai.errors import CaiError
from cai.pipeline.merging import merge
from cai.pipeline.ray_shards import run_on_ray


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the shards, tell of each, and merge them into the run folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--actors", type=int, default=8)
    parser.add_argument("--gpus-per-actor", type=float, default=1.0)
    wanted = parser.parse_args(arguments)
    try:
        config = read_config(wanted.config.resolve(), wanted.set).config
        config = config.model_copy(update={"run": config.run.resolve()})
        folders: list[Path] = []
        for done in run_on_ray(config, shards=wanted.shards, actors=wanted.actors, gpus_per_actor=wanted.gpus_per_actor):
            print(f"shard {done.shard}: {done.rows} rows, {done.failed_rows} failed, in {done.folder}", flush=True)
            folders.append(done.folder)
        merged = merge(config.run, folders)
    except CaiError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{sum(merged.ledger.values())} input rows from {merged.shards} shards in {merged.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
