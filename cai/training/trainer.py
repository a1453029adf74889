"""The training loop: transformers' Trainer over steps that are planned beforehand.

A data set item is one process's share of one step; the step is cut into forward passes by tokens. What is overridden: how a
step is computed, how it is logged. Optimizer, schedule, clipping, checkpoints, resuming, DDP are the Trainer's own.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cai.errors import TrainingError
from cai.models.memory import return_free_memory
from cai.training.logps import ReplyScorer
from cai.training.objectives import Objective, StepSize, Sums
from cai.training.packing import Layout, micro_batches, pack
from cai.training.plan import Step
from cai.training.results import OnEvent, TrainingEvent
from cai.training.rows import ReplyRow, TrainingRow
from cai.training.settings import TrainingSettings


def training_arguments(settings: TrainingSettings, steps: int, folder: Path, device: torch.device) -> TrainingArguments:
    """The Trainer's arguments for these settings; checkpoints go into `folder`."""
    schedule = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        max_steps=steps,
        learning_rate=settings.learning_rate,
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
        save_total_limit=2,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        optim="adamw_torch",
    )
    # One process, one device: with several visible GPUs and no launcher the Trainer would fall back on DataParallel.
    arguments._n_gpu = min(1, arguments.n_gpu)  # pyright: ignore[reportPrivateUsage] - there is no public switch
    return arguments


class _Shares(Dataset[int]):
    """Item i: share i % world of step i // world. accelerate deals items to processes in just this order."""

    def __init__(self, steps: int, world: int) -> None:
        self._count = steps * world

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return index


def _collate(shares: list[int]) -> dict[str, Tensor]:
    return {"share": torch.tensor(shares)}


class StepTrainer(Trainer):
    """Trains a model on planned steps.

    Args:
        model: On which `scorer` was made; moved to the device that `arguments` say.
        arguments: Of `training_arguments`.
        rows: What the plan's `rows` index.
        anchors: What the plan's `anchors` index.
        plan: All steps.
        scorer: Gives log-probabilities.
        objective: Makes the loss of them.
        layout: How rows with several replies are laid out.
        tokens_per_forward: Most positions of one pass.
        on_metrics: Gets each logged line, with `step` and `epoch`.
        on_event: Told after every step.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        *,
        rows: Sequence[TrainingRow],
        anchors: Sequence[ReplyRow],
        plan: Sequence[Step],
        epochs: int,
        scorer: ReplyScorer,
        objective: Objective,
        layout: Layout,
        tokens_per_forward: int,
        on_metrics: Callable[[dict[str, float]], None],
        on_event: OnEvent | None,
    ) -> None:
        place = cast("Any", arguments)
        self._world, self._rank = int(place.world_size), int(place.process_index)
        self._dataset = _Shares(len(plan), self._world)
        cast("Any", super()).__init__(model=model, args=arguments, train_dataset=self._dataset, data_collator=_collate)
        self.remove_callback(PrinterCallback)
        self._rows = rows
        self._anchors = anchors
        self._plan = plan
        self._epochs = epochs
        self._scorer = scorer
        self._objective = objective
        self._layout: Layout = layout
        self._tokens_per_forward = tokens_per_forward
        self._on_metrics = on_metrics
        self._accelerator = cast("Any", self.accelerator)
        self._sums: Sums = {}
        self.step_loss = math.nan
        self.tokens = 0
        self.add_callback(_Course(self, on_event))

    def _get_train_sampler(self, train_dataset: Dataset[int] | None = None) -> Sampler[int]:  # noqa: ARG002 - there is one
        return SequentialSampler(self._dataset)

    def _passes(self, step: Step, rank: int) -> list[list[TrainingRow]]:
        """Forward passes of one process in one step; rows are dealt like cards, longest first, so that shares weigh alike."""
        rows: list[TrainingRow] = [*(self._rows[i] for i in step.rows), *(self._anchors[i] for i in step.anchors)]
        if self._world > 1:
            rows = sorted(rows, key=lambda row: -row.group.longest)[rank :: self._world]
        return micro_batches(rows, lambda row: row.group, self._layout, self._tokens_per_forward)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - normalised by what the plan says of the step
    ) -> Tensor:
        """One step's share: forward and backward of all its passes. Returns the loss, times the number of processes."""
        model.train()
        world = self._world
        index = int(inputs["share"]) // world
        step = self._plan[index]
        everything: list[TrainingRow] = [*(self._rows[i] for i in step.rows), *(self._anchors[i] for i in step.anchors)]
        size = StepSize.of(everything)
        passes = self._passes(step, self._rank)
        # Processes must make equally many passes, or those that gather weights (FSDP) wait for ever: fill up with weight 0.
        most = max(len(self._passes(step, other)) for other in range(world)) if world > 1 else len(passes)
        total = torch.zeros((), device=self.args.device)
        for turn in range(most):
            real = turn < len(passes)
            rows = passes[turn] if real else everything[:1]
            last = turn == most - 1
            with contextlib.nullcontext() if last else self._accelerator.no_sync(model):
                # The mean over processes is what DDP makes of gradients and the Trainer of losses: hence times `world`.
                loss = self._loss(model, rows, size, count=real) * (world if real else 0.0)
                self._accelerator.backward(loss)
            total += loss.detach()
        self.step_loss = float(total)
        if not math.isfinite(self.step_loss):
            uids = ", ".join(sorted({row.uid for row in everything})[:8])
            raise TrainingError(
                f"step {index + 1}: the loss is {self.step_loss}; rows in it: {uids}",
                "lower learning_rate, or train in float32; the last checkpoint is from before this step",
            )
        return total

    def _loss(self, model: nn.Module, rows: Sequence[TrainingRow], size: StepSize, *, count: bool) -> Tensor:
        batch = pack([row.group for row in rows], self._layout).to(self.args.device)
        lengths_R = torch.tensor(batch.sequence_lengths, device=self.args.device)
        logps_R = self._scorer.logps(model, batch)
        loss, sums = self._objective(rows, logps_R, lengths_R, size)
        if count:
            self.tokens += batch.tokens
            for name, (value, examples) in sums.items():
                before, seen = self._sums.get(name, (0.0, 0))
                self._sums[name] = (before + value, seen + examples)
        return loss.float()

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        try:
            cast("Any", super())._save_checkpoint(*arguments, **options)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what torch.save makes of a full disk
            raise TrainingError(
                f"{self.args.output_dir}: a checkpoint could not be written ({str(error).splitlines()[0]})", MAKE_ROOM
            ) from error

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objective's metrics, averaged over examples since the last line, to the Trainer's own."""
        if "loss" not in logs:
            return  # the Trainer's closing summary, of wall-clock times
        logs.update(self._averages())
        super().log(logs, start_time)
        logs["epoch"] = self.state.global_step / len(self._plan) * self._epochs
        if self.is_world_process_zero():
            self._on_metrics({"step": self.state.global_step, **logs})

    def _averages(self) -> dict[str, float]:
        names = self._objective.metric_names
        # float64 does not exist on Apple's GPUs; sums of this size lose nothing in float32 there.
        wide = torch.float32 if self.args.device.type == "mps" else torch.float64
        table = torch.zeros(len(names), 2, dtype=wide, device=self.args.device)
        for row, name in enumerate(names):
            value, examples = self._sums.get(name, (0.0, 0))
            table[row, 0], table[row, 1] = value, examples
        self._sums.clear()
        if self._world > 1:
            table = self._accelerator.gather(table[None]).sum(0)
        cells: list[list[float]] = cast("Any", table).tolist()
        return {name: total / seen for name, (total, seen) in zip(names, cells, strict=True) if seen}


class _Course(TrainerCallback):
    """Tells of every step, and closes a line of metrics with every checkpoint, so that a resumed run logs the same lines."""

    def __init__(self, trainer: StepTrainer, on_event: OnEvent | None) -> None:
        self._trainer, self._on_event = trainer, on_event
        self._started, self._first = time.monotonic(), 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self._started, self._first = time.monotonic(), state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        control.should_log = control.should_log or control.should_save
        if args.device.type == "cpu" and state.global_step % _STEPS_BETWEEN_TRIMS == 0:
            return_free_memory()
        if self._on_event is None or not state.is_world_process_zero:
            return
        seconds = max(time.monotonic() - self._started, 1e-9)
        eta = seconds / (state.global_step - self._first) * (state.max_steps - state.global_step)
        loss, rate = self._trainer.step_loss, self._trainer.tokens / seconds
        self._on_event(TrainingEvent("train", state.global_step, state.max_steps, loss, rate, eta))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        refuse_broken_weights(cast("Any", self._trainer).model, state.global_step)
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            (checkpoint / COMPLETE).touch()


MAKE_ROOM = "make room or mend the folder's rights, then run again: it resumes"
"""What to do about files that cannot be written."""

_STEPS_BETWEEN_TRIMS = 16
"""On a CPU: seldom enough to cost nothing, often enough that the process does not grow by a gigabyte in a hundred steps."""
COMPLETE = "complete"
"""Written into a checkpoint's folder last of all: without it the checkpoint is a torso that a kill has left."""


def refuse_broken_weights(model: nn.Module | Any, step: int) -> None:
    """Raise TrainingError if a trained weight is not finite: such a checkpoint would only spread the damage."""
    for name, weight in model.named_parameters():
        if weight.requires_grad and not bool(torch.isfinite(weight).all()):
            raise TrainingError(
                f"step {step}: {name} is no longer finite", "lower learning_rate or max_grad_norm, or train in float32"
            )
