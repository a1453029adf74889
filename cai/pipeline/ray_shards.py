"""Shards of a run on a Ray cluster: Ray Data maps them over a pool of actors, one for each GPU. Needs the extra `ray`.

Each actor works on whole shards, one after the other, exactly as `cai run CONFIG --shard i/n` does, in the shard's own run
folder. A shard whose actor or node was lost is given to another one and goes on from its remembered calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cai.config.settings import RunConfig
from cai.errors import ConfigError
from cai.pipeline.preflight import read_inputs
from cai.pipeline.running import run
from cai.pipeline.session import open_session
from cai.pipeline.sharding import Shard
from cai.records import Stage


@dataclass(frozen=True, slots=True)
class FinishedShard:
    """A shard with labels in `folder`, of whose `rows` input rows `failed_rows` failed."""

    shard: Shard
    folder: Path
    rows: int
    failed_rows: int


class ShardWorker:
    """What an actor does: `{"id": 0}` in, the first shard done."""

    def __init__(self, config: str, count: int) -> None:
        self._config = RunConfig.model_validate_json(config)
        self._count = count

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(int(row["id"]) + 1, self._count)
        with open_session(read_inputs(shard.placed(self._config), shard)) as session:
            summary = run(session, until=Stage.LABEL)
        rows = sum(summary.ledger.values())
        return {"number": shard.number, "folder": str(summary.folder), "rows": rows, "failed_rows": summary.failed_rows}


def run_on_ray(config: RunConfig, *, shards: int, actors: int, gpus_per_actor: float) -> Iterator[FinishedShard]:
    """Draft, critique, revise and label every shard; yields each as it is finished. Ray is started here, or joined.

    Args:
        config: Of the whole run. Its paths must be the same folders on every node, and the run's one of a file system with
            locks: each shard's folder has a single writer.
        shards: How many; as many as actors, or a few times more, so that a lost node costs little.
        actors: Shards worked on at once.
        gpus_per_actor: GPUs that Ray keeps for each, 0 for none.

    Raises:
        ConfigError: If Ray is not installed.
        CaiError: Whatever is wrong with the configuration, before an actor starts.
    """
    try:
        data: Any = import_module("ray.data")
    except ImportError:
        raise ConfigError("Ray is not installed.", "pip install 'constitution-cai[ray]'") from None
    read_inputs(config)
    mapped = data.range(shards, override_num_blocks=shards).map(
        ShardWorker,
        fn_constructor_args=(config.model_dump_json(), shards),
        compute=data.ActorPoolStrategy(size=actors),
        num_gpus=gpus_per_actor,
    )
    for row in mapped.iter_rows():
        yield FinishedShard(Shard(row["number"], shards), Path(row["folder"]), row["rows"], row["failed_rows"])
