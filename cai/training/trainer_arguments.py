"""Settings of a training → the Trainer's arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from cai.errors import TrainingError
from cai.training.settings import TrainingSettings
from cai.training.tracker_packages import TENSORBOARD
from constitution.nearest import nearest

_OWN_WAY = ("lomo", "layerwise", "schedule_free")
"""Parts of names of optimizers that step in each backward pass, or hold other weights in training than those to be saved."""


def training_arguments(settings: TrainingSettings, steps: int, folder: Path, device: torch.device) -> TrainingArguments:
    """The Trainer's arguments for these settings; checkpoints go into `folder`.

    Raises:
        TrainingError: There is no such optimizer, or the package that has it is missing.
    """
    names = [name.value for name in OptimizerNames]
    if settings.optimizer not in names:
        raise TrainingError(
            f"optimizer {settings.optimizer}: transformers has none of this name",
            f"did you mean {nearest(settings.optimizer, names) or 'adamw_torch'}?",
        )
    if any(kind in settings.optimizer for kind in _OWN_WAY):
        raise TrainingError(
            f"optimizer {settings.optimizer}: moves weights between the passes of a step", "take another, such as adamw_torch"
        )
    schedule = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        max_steps=steps,
        learning_rate=settings.peak_learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=round(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        logging_strategy="steps",
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_every_steps or steps,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[name for name in settings.report_to if name != TENSORBOARD] or "none",
        optim=settings.optimizer,
    )
    try:
        cast("Any", Trainer).get_optimizer_cls_and_kwargs(arguments)
    except (ImportError, ValueError, RuntimeError) as error:
        raise TrainingError(f"optimizer {settings.optimizer}: {error}", "install what it needs, or take adamw_torch") from error
    # One process, one device: with several visible GPUs and no launcher the Trainer would fall back on DataParallel.
    arguments._n_gpu = min(1, arguments.n_gpu)  # pyright: ignore[reportPrivateUsage] - there is no public switch
    return arguments
