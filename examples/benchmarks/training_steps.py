"""One step of preference training as `preference_training` measures it: ours, and TRL's beside it on the same rows."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from training_peers import dpo_trainer
from training_shapes import Shape

from cai.training.logps import ReplyScorer
from cai.training.objectives import Objective, PreferenceObjective, StepSize
from cai.training.packing import PackedBatch, TokenGroup, micro_batches
from cai.training.plan import Step
from cai.training.probing import choose_path
from cai.training.rows import Pair, PreferenceRow, TrainingRow
from cai.training.settings import DPOSettings
from cai.training.trainer import MakeRows, StepTrainer
from cai.training.trainer_arguments import training_arguments

DPO = DPOSettings(nll_weight=0.0, anchor_weight=0.0, warmup_share=0.0, schedule="constant", learning_rate=1e-5, lora=None)


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured on what."""

    shape: Shape
    device: torch.device
    dtype: torch.dtype
    rounds: int
    lora: bool = False
    tokens_per_forward: int = 2048

    def model(self) -> Any:
        made = self.shape.model(self.device, self.dtype)
        if not self.lora:
            return made
        from peft import LoraConfig, get_peft_model

        return get_peft_model(made, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))

    def scorer(self, model: Any, groups: Sequence[TokenGroup]) -> ReplyScorer:
        scorer = ReplyScorer(model)
        if reason := choose_path(model, scorer, groups, self.device):
            print(f"rows are padded: {reason}", file=sys.stderr)
        return scorer


# ---- ours


def preference_rows(
    groups: Sequence[TokenGroup], pairs: Sequence[tuple[int, int]] = ((0, 1),), p_chosen: float = 1.0
) -> list[PreferenceRow]:
    """Rows whose reference is far from any model, so that gradients are not all alike: see `references`."""
    return [
        PreferenceRow(group, tuple(Pair(f"{n}", at, c, r, p_chosen) for at, (c, r) in enumerate(pairs)), references(group))
        for n, group in enumerate(groups)
    ]


def references(group: TokenGroup) -> tuple[float, ...]:
    """As if a reference knew nothing of the vocabulary: about what a random model gives, but not quite."""
    return tuple(-10.5 * tokens for tokens in group.sequence_lengths)


def trained_step(
    model: Any, scorer: ReplyScorer, objective: Objective, rows: Sequence[TrainingRow], bench: Bench
) -> tuple[float, list[PackedBatch]]:
    """Forward and backward passes of one step: its loss, and what was computed."""
    size, loss, batches = StepSize.of(rows), 0.0, list[PackedBatch]()
    with scorer.at_work():
        for some in micro_batches(rows, lambda row: row.group, scorer.layout, bench.tokens_per_forward):
            batch = scorer.pack([row.group for row in some], bench.device)

            def loss_of(
                groups: slice, logps_R: torch.Tensor, batch: PackedBatch = batch, some: Sequence[TrainingRow] = some
            ) -> torch.Tensor:
                first = batch.parts[groups][0].sequences.start
                return objective(some[groups], logps_R, batch.sequence_lengths[first : first + len(logps_R)], size)[0]

            part = scorer.loss(model, batch, loss_of)
            part.backward()
            loss += float(part.detach())
            batches.append(batch)
    return loss, batches


def step_trainer(
    bench: Bench, model: Any, scorer: ReplyScorer, make_rows: MakeRows, steps: Sequence[Step], folder: Path
) -> tuple[StepTrainer, list[dict[str, float]]]:
    """The trainer of `cai dpo` on planned steps, and the list that its lines of metrics go to."""
    lines: list[dict[str, float]] = []
    trainer = StepTrainer(
        model,
        training_arguments(DPO, len(steps), folder, bench.device),
        make_rows=make_rows,
        anchors=[],
        plan=steps,
        epochs=1,
        scorer=scorer,
        objective=PreferenceObjective(DPO),
        tokens_per_forward=bench.tokens_per_forward,
        evaluation=None,
        on_metrics=lines.append,
        on_event=None,
    )
    return trainer, lines


# ---- TRL's


def tuned_peer(bench: Bench, groups: Sequence[TokenGroup]) -> Any:
    """TRL with a precomputed reference and nothing checkpointed."""
    return dpo_trainer(bench.model(), bench.shape, groups, precompute=True, checkpointing=False)


def default_peer(bench: Bench, groups: Sequence[TokenGroup]) -> Any:
    """TRL as it comes, but in the benchmark's precision: activations checkpointed, the reference in every step."""
    model = bench.model()
    reference = None if bench.lora else copy.deepcopy(model)
    return dpo_trainer(model, bench.shape, groups, precompute=False, checkpointing=True, reference=reference)


def with_end(group: TokenGroup) -> TokenGroup:
    """Replies end with the token that TRL ends them with."""
    return TokenGroup(group.prompt_ids, tuple((*reply[:-1], 2) for reply in group.replies))


def reference_pairs(rows: Sequence[PreferenceRow]) -> list[tuple[float, float]]:
    return [(row.reference[pair.chosen], row.reference[pair.rejected]) for row in rows for pair in row.pairs]
