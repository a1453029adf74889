"""The training loop: transformers' Trainer over steps that are planned beforehand.

A data set item is one process's share of one step; the step is cut into forward passes by tokens. What is overridden: how a
step is computed, how it is logged. Optimizer, schedule, clipping, checkpoints, resuming, trackers, DDP, FSDP2 and DeepSpeed are
the Trainer's own; the last three are asked for by `accelerate launch`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cai.engines.forward import is_out_of_memory
from cai.errors import TrainingError
from cai.models.memory import Tidying
from cai.models.progress import no_bars
from cai.training import processes
from cai.training.checkpoint_files import (
    COMPLETE,
    MAKE_ROOM,
    drop_superseded,
    refuse_broken_weights,
)
from cai.training.head import sum_dtype
from cai.training.held_out import Evaluating
from cai.training.objectives import Objective, StepSize, Sums
from cai.training.packing import micro_batches
from cai.training.parts import parts_of
from cai.training.plan import Step
from cai.training.results import OnEvent, TrainingEvent
from cai.training.rows import ReplyRow, TrainingRow
from cai.training.scorer import Scorer
from cai.training.sharding import refuse_unsupported
from cai.training.stopping import Standing, evaluations_in, standing

MakeRows: TypeAlias = "Callable[[nn.Module, int], tuple[Sequence[TrainingRow], Sequence[TrainingRow]]]"
"""Of the prepared model and the step resumed from (0: none): the rows to train on and those held out, complete."""


class Measure(Protocol):
    """More figures of a line of metrics, of the prepared model after a step; {} where none are due and none `wanted`."""

    def __call__(self, model: nn.Module, step: int, *, wanted: bool) -> dict[str, float]: ...


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
        make_rows: Called before the first step; gives what the plan's `rows` index, and what is held out.
        anchors: What the plan's `anchors` index.
        plan: All steps.
        scorer: Gives log-probabilities.
        objective: Makes the loss of them.
        tokens_per_forward: Most positions of one pass.
        evaluation: Of held-out rows; None: none.
        measure: Called for each logged line, by all processes; wanted after evaluated steps and the last.
        on_metrics: Gets each logged line, with `step` and `epoch`.
        on_event: Told after every step.
        callbacks: More of transformers' callbacks.
        keep_checkpoints: Whether the weights of all checkpoints stay.

    Raises:
        TrainingError: If the processes share the work in a way that is not supported.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        *,
        make_rows: MakeRows,
        anchors: Sequence[ReplyRow],
        plan: Sequence[Step],
        epochs: int,
        scorer: Scorer,
        objective: Objective,
        tokens_per_forward: int,
        evaluation: Evaluating | None,
        on_metrics: Callable[[dict[str, float]], None],
        on_event: OnEvent | None,
        measure: Measure | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        keep_checkpoints: bool = False,
    ) -> None:
        self._world, self._rank = processes.world(), processes.rank()
        self._dataset = _Shares(len(plan), self._world)
        cast("Any", super()).__init__(
            model=model, args=arguments, train_dataset=self._dataset, data_collator=_collate, callbacks=list(callbacks)
        )
        self.remove_callback(PrinterCallback)
        self._make_rows = make_rows
        self._rows: Sequence[TrainingRow] = ()
        self._parts: Sequence[Sequence[TrainingRow]] = ()
        self._anchors = anchors
        self._plan = plan
        self._epochs = epochs
        self._scorer = scorer
        self._objective = objective
        self._tokens_per_forward = tokens_per_forward
        self.evaluation = evaluation
        self._on_metrics = on_metrics
        self._measure = measure
        self._accelerator = cast("Any", self.accelerator)
        refuse_unsupported(self._accelerator)
        self._sums: Sums = {}
        self.step_loss = math.nan
        self.tokens = 0
        self.add_callback(_Course(self, on_event, keep_checkpoints=keep_checkpoints))

    def _get_train_sampler(self, train_dataset: Dataset[int] | None = None) -> Sampler[int]:  # noqa: ARG002 - there is one
        return SequentialSampler(self._dataset)

    def open(self, step: int) -> None:
        """Complete the rows, on the prepared model."""
        self._rows, held_out = self._make_rows(cast("Any", self).model_wrapped, step)
        if self.evaluation is not None:
            self.evaluation = replace(self.evaluation, held_out=replace(self.evaluation.held_out, rows=held_out))
        self._parts = [parts_of([row], self._scorer.layout, self._tokens_per_forward) for row in self._rows]

    def _passes(self, step: Step, rank: int) -> list[list[TrainingRow]]:
        """Forward passes of one process in one step; rows are dealt like cards, longest first, so that shares weigh alike."""
        rows: list[TrainingRow] = [part for i in step.rows for part in self._parts[i]]
        rows += [self._anchors[i] for i in step.anchors]
        if self._world > 1:
            rows = sorted(rows, key=lambda row: -row.group.longest)[rank :: self._world]
        return micro_batches(rows, lambda row: row.group, self._scorer.layout, self._tokens_per_forward)

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
        most = max(len(self._passes(step, other)) for other in range(world)) if world > 1 else len(passes)
        # Processes must make equally many passes, or those that gather weights (FSDP) or buffers (DDP) wait for ever.
        idle = min(everything, key=lambda row: row.group.longest)
        total = torch.zeros((), dtype=sum_dtype(self.args.device), device=self.args.device)
        with self._scorer.at_work():
            for turn in range(most):
                real = turn < len(passes)
                rows = passes[turn] if real else [idle]
                with self._gradients(model, last=turn == most - 1):
                    # The mean over processes is what they make of gradients: hence times `world`.
                    loss = self._loss(model, rows, size, weight=float(world) if real else 0.0)
                    self._backward(loss)
                total += loss.detach()
        if world > 1:  # so that all stop, or none
            total = self._accelerator.reduce(total, reduction="mean")
        loss = total.float()  # as the Trainer logs it
        self.step_loss = float(loss)
        if not math.isfinite(self.step_loss):
            uids = ", ".join(sorted({row.uid for row in everything})[:8])
            raise TrainingError(
                f"step {index + 1}: the loss is {self.step_loss}; rows in it: {uids}",
                "lower learning_rate, or train in float32; the last checkpoint is from before this step",
            )
        return loss

    @contextlib.contextmanager
    def _gradients(self, model: nn.Module, *, last: bool) -> Generator[None]:
        """One pass of a step: gradients are exchanged in the last one. Sharded ones in each: whole ones would take room."""
        accumulating = not last and isinstance(model, DistributedDataParallel)
        if self._deepspeed:  # its engine steps after every backward pass but those it is told of
            self._accelerator.gradient_state._set_sync_gradients(last)
        with cast("Any", model).no_sync() if accumulating else contextlib.nullcontext():
            yield

    def _backward(self, loss: Tensor) -> None:
        if self._deepspeed:
            self._accelerator.backward(loss, scale_wrt_gas=False)
        else:
            self._accelerator.backward(loss)

    @property
    def _deepspeed(self) -> bool:
        return self._accelerator.distributed_type == "DEEPSPEED"

    def _loss(self, model: nn.Module, rows: Sequence[TrainingRow], size: StepSize, *, weight: float) -> Tensor:
        batch = self._scorer.pack([row.group for row in rows], self.args.device)

        def loss_of(groups: slice, logps_R: Tensor) -> Tensor:
            first = batch.parts[groups][0].sequences.start
            loss, sums = self._objective(rows[groups], logps_R, batch.sequence_lengths[first : first + len(logps_R)], size)
            if weight:
                self._add(sums)
            return loss * weight

        if weight:
            self.tokens += batch.tokens
        return self._scorer.loss(model, batch, loss_of)

    def _add(self, sums: Sums) -> None:
        for name, (value, examples) in sums.items():
            before, seen = self._sums.get(name, (0.0, 0))
            self._sums[name] = (before + value, seen + examples)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        try:
            with no_bars():
                cast("Any", super())._save_checkpoint(*arguments, **options)
        except RuntimeError as error:  # what torch.save makes of a full disk
            if is_out_of_memory(error):
                raise
            raise TrainingError(
                f"{self.args.output_dir}: a checkpoint could not be written ({str(error).splitlines()[0]})", MAKE_ROOM
            ) from error

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objective's metrics, averaged over examples since the last line, and what is measured, to the Trainer's."""
        if "loss" not in logs:
            return  # the Trainer's closing summary, of wall-clock times
        logs.update(self._averages())
        if self._measure is not None:
            step = self.state.global_step
            wanted = self.evaluates_after(step) or step == self.state.max_steps
            logs.update(self._measure(cast("Any", self).model_wrapped, step, wanted=wanted))
        super().log(logs, start_time)
        logs["epoch"] = self.state.global_step / len(self._plan) * self._epochs
        if self.is_world_process_zero():
            self._on_metrics({"step": self.state.global_step, **logs})

    def evaluates_after(self, step: int) -> bool:
        """Whether the held-out rows are evaluated after this step."""
        plan = self.evaluation
        return plan is not None and (step % plan.every_steps == 0 or step == self.state.max_steps)

    def evaluate(self, *_arguments: Any, **_options: Any) -> dict[str, float]:
        """Evaluate the held-out rows; called by the Trainer when a step's evaluation is due."""
        assert self.evaluation is not None
        model: nn.Module = cast("Any", self).model_wrapped
        place = {"rank": self._rank, "world": self._world}
        found = self.evaluation.held_out.evaluate(model, self.args.device, **place, gather=processes.gather)
        logs = {f"eval/{name}": value for name, value in found.items()}
        super().log(logs)
        logs["epoch"] = self.state.global_step / len(self._plan) * self._epochs
        if self.is_world_process_zero():
            self._on_metrics({"step": self.state.global_step, **logs})
        trainer: Any = self  # its control has no type
        trainer.control = trainer.callback_handler.on_evaluate(self.args, self.state, trainer.control, logs)
        now = self.standing
        assert now is not None
        if self.evaluation.patience is not None:
            self.state.best_global_step = now.best.step  # which keeps its checkpoint from being cleared away
            trainer.control.should_training_stop |= now.stops(self.evaluation.patience)
        return logs

    @property
    def standing(self) -> Standing | None:
        """Where the evaluations so far leave training."""
        return standing(evaluations_in(self.state.log_history))

    def keep_best(self) -> int:
        """Put the weights with the lowest held-out loss into the model. Returns their step."""
        now = self.standing
        assert now is not None
        if now.best.step != self.state.global_step:
            self.state.best_model_checkpoint = str(Path(self.args.output_dir or ".") / f"checkpoint-{now.best.step}")
            self._load_best_model()
        return now.best.step

    def _averages(self) -> dict[str, float]:
        names = self._objective.metric_names
        table = torch.zeros(len(names), 2, dtype=sum_dtype(self.args.device), device=self.args.device)
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

    def __init__(self, trainer: StepTrainer, on_event: OnEvent | None, *, keep_checkpoints: bool) -> None:
        self._trainer, self._on_event = trainer, on_event
        self._keep_checkpoints = keep_checkpoints
        self._started, self._first = time.monotonic(), 0
        self._tidying = Tidying()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self._trainer.open(state.global_step)
        self._started, self._first = time.monotonic(), state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        plan = self._trainer.evaluation
        if plan is not None and self._trainer.evaluates_after(state.global_step):
            control.should_evaluate = True
            control.should_save = control.should_save or plan.patience is not None
            control.should_log = True
        control.should_log = control.should_log or control.should_save
        if args.device.type == "cpu":
            self._tidying.step_ended()
        if self._on_event is None or not state.is_world_process_zero:
            return
        seconds = max(time.monotonic() - self._started, 1e-9)
        eta = seconds / (state.global_step - self._first) * (state.max_steps - state.global_step)
        loss, rate = self._trainer.step_loss, self._trainer.tokens / seconds
        self._on_event(TrainingEvent("train", state.global_step, state.max_steps, loss, rate, eta))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        refuse_broken_weights(cast("Any", self._trainer).model, state.global_step)
        processes.wait()  # each has written its own files
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            (checkpoint / COMPLETE).touch()
            # Not left to the Trainer, which goes by times of files, and warns where two lie close together.
            drop_superseded(checkpoint.parent, best_step=state.best_global_step, keep_weights=self._keep_checkpoints)
