"""Where `cai rl` starts in a run, and where it leaves its model. Loads no torch."""

from __future__ import annotations

from cai.config.settings import RunConfig
from cai.models.spec import ModelSpec
from cai.pipeline.learning import trained_place
from cai.records import Stage
from cai.report.leash import FOLDER
from cai.store import RunFolder


def start_of(config: RunConfig) -> ModelSpec:
    """The model that a run's optimisation starts from: the newest that it has trained, unless told otherwise."""
    folder = RunFolder.look_at(config.run) if config.rl.start == "newest" else None
    if folder is None:
        return config.policy
    with folder:
        for stage in (Stage.DPO, Stage.SFT):
            place = trained_place(config, stage)
            if place is not None and folder.stage(stage) is not None:
                return place
    return config.policy


def reinforced_place(config: RunConfig) -> ModelSpec | None:
    """The model that `cai rl` has left in the run's folder, as a model to load; None where it has finished none."""
    folder = config.run / FOLDER
    if not (folder / "training.json").is_file():
        return None
    if config.rl.lora is not None and not config.rl.merge:
        return start_of(config).model_copy(update={"adapter": str(folder / "adapter")})
    whole = {"name": str(folder), "adapter": None, "revision": None, "chat_template": None}
    return config.policy.model_copy(update=whole)
