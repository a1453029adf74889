"""What is the Trainer's own and passed on to it: trackers, optimizers, callbacks, sharding."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin, ParallelismConfig
from safetensors.torch import load_file
from training_runs import DPO, SFT, make_pairs, make_replies, spec_of
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from cai.errors import TrainingError
from cai.training.dpo import train_dpo
from cai.training.sft import train_sft
from cai.training.sharding import refuse_unsupported
from cai.training.trackers import PACKAGES, refuse_missing_trackers


class Logs(TrainerCallback):
    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.lines.append(dict(logs))


def test_callbacks_are_called_with_what_is_logged(llama: Path, tmp_path: Path) -> None:
    logs, of_sft = Logs(), Logs()
    result = train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "dpo", callbacks=[logs])
    assert [line["rewards/margins"] for line in logs.lines if "loss" in line][-1] == result.last_metrics["rewards/margins"]
    train_sft(spec_of(llama), make_replies(8), SFT, tmp_path / "sft", callbacks=[of_sft])
    assert [line for line in of_sft.lines if "nll/replies" in line]


class Breaking(TrainerCallback):
    """Spoils a trained weight after a step, as an overflow in the optimizer would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model: torch.nn.Module = kwargs["model"]
        if state.global_step == self.step:
            next(weight for weight in model.parameters() if weight.requires_grad).data.view(-1)[0] = math.nan


@pytest.mark.parametrize(("step", "told"), [(2, "is no longer finite"), (1, "the loss is nan")], ids=["last", "first"])
@pytest.mark.parametrize("adapted", [True, False], ids=["lora", "full"])
def test_no_run_ends_in_a_model_of_nans(step: int, told: str, adapted: bool, llama: Path, tmp_path: Path) -> None:
    settings = DPO if adapted else DPO.model_copy(update={"lora": None})
    with pytest.raises(TrainingError, match=told):
        train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "out", callbacks=[Breaking(step)])
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert not (tmp_path / "out" / "training.json").exists()
    assert not list((tmp_path / "out").glob("checkpoints/*/complete"))
    result = train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "out")
    assert all(bool(torch.isfinite(weight).all()) for weight in load_file(result.folder / "model.safetensors").values())


@pytest.mark.parametrize("adapted", [True, False], ids=["lora", "full"])
def test_recomputed_activations_teach_the_same(adapted: bool, llama: Path, tmp_path: Path) -> None:
    settings = DPO if adapted else DPO.model_copy(update={"lora": None})
    kept = train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "kept")
    again = settings.model_copy(update={"gradient_checkpointing": True})
    recomputed = train_dpo(spec_of(llama), make_pairs(8), [], again, tmp_path / "recomputed")
    assert recomputed.last_metrics == pytest.approx(kept.last_metrics, rel=1e-4, abs=1e-6)


def test_every_tracker_is_one_that_transformers_knows() -> None:
    assert set(PACKAGES) <= set(INTEGRATION_TO_CALLBACK)


def test_trackers_that_cannot_work_are_refused_before_anything_is_done(llama: Path, tmp_path: Path) -> None:
    absent = next(name for name in ("comet_ml", "swanlab", "clearml", "wandb") if not _has(name))
    with pytest.raises(TrainingError, match="not installed") as caught:
        train_dpo(spec_of(llama), make_pairs(8), [], DPO.model_copy(update={"report_to": (absent,)}), tmp_path / "out")
    assert caught.value.hint == f"pip install {PACKAGES[absent]}"
    with pytest.raises(TrainingError, match="no tracker is named tensorbord") as caught:
        train_sft(spec_of(llama), make_replies(8), SFT.model_copy(update={"report_to": ("tensorbord",)}), tmp_path / "out")
    assert caught.value.hint == "use tensorboard"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_a_tracker_left_is_not_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = next(name for name in ("comet_ml", "swanlab", "clearml", "wandb") if not _has(name))
    (tmp_path / absent).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainingError, match="not installed"):
        refuse_missing_trackers([absent])


def _has(name: str) -> bool:
    try:
        refuse_missing_trackers([name])
    except TrainingError:
        return False
    return True


def test_tensorboard_gets_the_metrics_in_the_folder(llama: Path, tmp_path: Path) -> None:
    events: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = DPO.model_copy(update={"report_to": ("tensorboard",)})
    result = train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "out")
    found = events.EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    found.Reload()
    margins = found.Scalars("train/rewards/margins")
    assert len(margins) == result.steps
    assert margins[-1].value == pytest.approx(result.last_metrics["rewards/margins"], rel=1e-5)
    plain = train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "out")
    assert plain == result, "trackers are no part of what a run computes"


def test_another_optimizer_takes_other_steps(llama: Path, tmp_path: Path) -> None:
    settings = DPO.model_copy(update={"lora": None, "optimizer": "sgd", "max_grad_norm": 100.0, "learning_rate": 1e-3})
    result = train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "out")
    before, after = load_file(llama / "model.safetensors"), load_file(result.folder / "model.safetensors")
    largest = max(float((after[name] - before[name]).abs().max()) for name in before)
    moved = sum(float((after[name] - before[name]).square().sum()) for name in before) ** 0.5
    assert largest > 0
    assert moved <= result.steps * 1e-3 * 100.0
    sizes = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    assert float(sizes[sizes > 0].quantile(0.9)) > 10 * float(sizes[sizes > 0].quantile(0.1)), "AdamW's are all of one size"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("adamw_torhc", "did you mean adamw_torch"),
        ("galore_adamw", "install what it needs"),
        ("galore_adamw_layerwise", "take another"),
        ("adalomo", "take another"),
        ("schedule_free_adamw", "take another"),
    ],
)
def test_optimizers_that_are_not_there_are_refused_before_training(name: str, told: str, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=name) as caught:
        train_dpo(spec_of(llama), make_pairs(8), [], DPO.model_copy(update={"optimizer": name}), tmp_path / "out")
    assert told in caught.value.hint
    assert not list((tmp_path / "out").glob("*.json*"))


# ---- ways of sharing the work


def accelerator(**state: Any) -> Any:
    """What `refuse_unsupported` looks at of one that needs several GPUs to be made."""
    split = state.pop("parallelism_config", None)
    return SimpleNamespace(state=SimpleNamespace(**state), parallelism_config=split)


def test_ways_of_sharding_that_would_fail_late_are_refused() -> None:
    refuse_unsupported(accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2)))
    with pytest.raises(TrainingError, match="FSDP 1"):
        refuse_unsupported(accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=1)))
    with pytest.raises(TrainingError, match="tensor, context and sequence"):
        refuse_unsupported(accelerator(parallelism_config=ParallelismConfig(tp_size=2)))
