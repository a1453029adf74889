"""The models of a run: its policy, what training made of it, and the checkpoints that training has kept so far."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from cai.config.settings import RunConfig
from cai.errors import CaiError
from cai.models.spec import ModelSpec
from cai.pipeline.describing import shown_model
from cai.pipeline.evaluating import NamedModel
from cai.pipeline.learning import trained_place
from cai.pipeline.reinforced import reinforced_place
from cai.records import Stage
from cai.store import RunFolder

CHECKPOINT = " at step "
"""In the name of a checkpoint, between its stage and its step."""


@contextmanager
def models_of_run(config: RunConfig, *, checkpoints: bool) -> Generator[list[NamedModel]]:
    """The policy, and what training made of it, in order; with `checkpoints`, also those that training has kept so far.

    A checkpoint of whole weights has no tokenizer beside it: it is put together with the policy's in a folder that is gone
    after the block.
    """
    with tempfile.TemporaryDirectory(prefix="cai-checkpoints-") as scratch:
        yield list(_models_of_run(config, Path(scratch), checkpoints=checkpoints))


def _models_of_run(config: RunConfig, scratch: Path, *, checkpoints: bool) -> Iterator[NamedModel]:
    base = config.policy
    yield NamedModel(shown_model(base), base)
    for stage in (Stage.SFT, Stage.DPO):
        place = trained_place(config, stage)
        if place is None:
            continue
        for step, folder in _checkpoints(config.run / stage / "checkpoints") if checkpoints else ():
            yield NamedModel(f"{stage}{CHECKPOINT}{step}", _checkpoint_spec(base, folder, scratch / f"{stage}-{step}"))
        if (config.run / stage / "training.json").is_file():
            yield NamedModel(f"after {stage}", place)
            base = place
    if (reinforced := reinforced_place(config)) is not None:
        yield NamedModel("after rl", reinforced)


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    from cai.training.checkpoint_files import whole_checkpoints

    return whole_checkpoints(folder)


def _checkpoint_spec(base: ModelSpec, checkpoint: Path, scratch: Path) -> ModelSpec:
    if (checkpoint / "adapter_config.json").is_file():
        if base.adapter is not None:
            hint = "Leave --checkpoints out: the trained model itself holds both."
            raise CaiError(f"{checkpoint}: its adapter lies on top of another one ({base.adapter}).", hint)
        return base.model_copy(update={"adapter": str(checkpoint)})
    from cai.models.loading import load_tokenizer

    scratch.mkdir()
    load_tokenizer(base).tokenizer.save_pretrained(scratch)
    for file in checkpoint.iterdir():
        if file.suffix in (".json", ".safetensors") and not (scratch / file.name).exists():
            (scratch / file.name).symlink_to(file.resolve())
    return base.model_copy(update={"name": str(scratch), "adapter": None, "revision": None, "chat_template": None})


def run_of_folder(folder: Path) -> RunConfig:
    """The configuration that a run's manifest holds.

    Raises:
        CaiError: If the folder is no run, or one of another version.
    """
    with RunFolder.open(folder, create=False, read_only=True) as run:
        try:
            config = RunConfig.model_validate(run.whole_manifest["config"])
        except (KeyError, ValidationError) as error:
            raise CaiError(
                f"{folder}: its manifest holds no configuration of this version.", "Give the run's YAML file."
            ) from error
    return config.model_copy(update={"run": folder})
