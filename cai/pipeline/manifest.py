"""What the manifest of a run says: everything one needs to repeat it, and what it came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, cast

from cai.pipeline.preflight import Inputs
from cai.pipeline.provenance import commits, environment, file_facts, packages
from cai.records import Stage
from cai.store import MANIFEST_VERSION, PROGRAM, RunFolder


def manifest_of(inputs: Inputs, models: Mapping[str, Mapping[str, Any]], folder: RunFolder) -> dict[str, Any]:
    """The whole manifest, with its paths, which `RunFolder.write_manifest` takes out.

    Args:
        inputs: Of the run.
        models: Role → what there is to say of the model.
        folder: What has been made so far.
    """
    config, human = inputs.config, inputs.human
    tree = config.model_dump(mode="json")
    return {
        "version": MANIFEST_VERSION,
        "program": packages()[PROGRAM],
        "seed": config.seed,
        "seeds": dict(_seeds(tree)),
        "config": tree,
        "origins": {key: _shown_origin(origin) for key, origin in sorted(inputs.origins.items())},
        "constitution": inputs.constitution.model_dump(mode="json") | {"fingerprint": inputs.constitution.fingerprint},
        "models": models,
        "prompts": {
            "source": inputs.source,
            "rows": len(inputs.items) + len(inputs.failures),
            "items": len(inputs.items),
            "failures": len(inputs.failures),
            "held_out": len(inputs.held_out_items),
            "fingerprint": inputs.fingerprint,
        },
        "human_labels": None
        if human is None
        else {"source": human.source, "rows": human.rows, "pairs": len(human.pairs), "fingerprint": human.fingerprint},
        "files": file_facts(config),
        "shard": None if inputs.shard is None else str(inputs.shard),
        "reproduces": inputs.reproduces or None,
        "packages": packages(),
        "environment": environment(),
        "git": commits(),
        **results_of(folder),
    }


def results_of(folder: RunFolder) -> dict[str, Any]:
    """What a run has come to: the ledger, the finished stages, the files that they wrote."""
    stages = {stage.value: finished.fingerprint for stage in Stage if (finished := folder.stage(stage)) is not None}
    return {
        "ledger": {
            "rows": {outcome.value: count for outcome, count in folder.ledger_counts().items()},
            "reasons": {
                f"{outcome.value}: {reason}": count for (outcome, reason), count in folder.ledger_reasons().items() if reason
            },
        },
        "stages": stages,
        "outputs": {
            file.path: {"stage": file.stage, "bytes": file.size_bytes, "sha256": file.sha256} for file in folder.files()
        },
    }


def _shown_origin(origin: str) -> str:
    """`file:line:column` without the folders of the file; other origins are what was typed."""
    return origin if origin.startswith(("--set ", "environment ")) else PurePath(origin).name


def _seeds(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting that seeds something, by its key."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _seeds(cast("dict[str, Any]", value), f"{above}{name}.")
        elif name in {"seed", "seeds", "shuffle_seed"} and value is not None:
            yield f"{above}{name}", value
