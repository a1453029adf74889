"""Online DPO: two replies of the policy to each prompt, the reward says which is better, and DPO's own loss is taken a step of.

Guo et al. 2024 (arXiv 2402.04792). Rows, loss and metrics are those of `cai dpo`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from cai.rl.advantages import reply_sums
from cai.rl.experience import Batch, Known, Piece, minibatches
from cai.rl.learner import Learner
from cai.rl.settings import RLSettings
from cai.training.objectives import PreferenceObjective, StepSize
from cai.training.packing import PackedBatch
from cai.training.rows import Pair, PreferenceRow
from cai.training.settings import DPOSettings

_LOGGED: tuple[str, ...] = ("rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")


def preference_rows(batch: Batch, known: Known, settings: RLSettings) -> dict[int, PreferenceRow]:
    """By number of the prompt: the pair its two replies make. Equal rewards make none."""
    reference_R: list[float] = cast("Any", reply_sums(known.ref_logps, batch.lengths)).tolist()
    rewards: list[float] = cast("Any", batch.rewards).tolist()
    rows: dict[int, PreferenceRow] = {}
    for piece in batch.pieces:
        first, second = rewards[piece.replies]
        if first == second:
            continue
        p_chosen = 1 / (1 + math.exp(-abs(first - second))) if settings.soft_labels else 1.0
        chosen = int(second > first)
        pair = Pair(batch.rollouts[piece.prompt].item.uid, 0, chosen=chosen, rejected=1 - chosen, p_chosen=p_chosen)
        rows[piece.prompt] = PreferenceRow(piece.group, (pair,), tuple(reference_R[piece.replies]))
    return rows


def preference_update(
    learner: Learner, batch: Batch, rows: dict[int, PreferenceRow], settings: RLSettings, step: int
) -> dict[str, float]:
    """All passes over the pairs of one batch. Returns means over its optimizer steps.

    Raises:
        Diverged: As `Learner.update`.
    """
    objective = PreferenceObjective(DPOSettings(beta=settings.beta, nll_weight=0.0, anchor_weight=0.0))
    order = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    found: list[dict[str, float]] = []
    for _ in range(settings.epochs):
        for pieces in minibatches(batch, settings.minibatches, order):
            paired = [piece for piece in pieces if piece.prompt in rows]
            if paired:
                found.append(_minibatch(learner, objective, paired, rows, step))
    return {name: sum(row[name] for row in found) / len(found) for name in found[0]} if found else {}


def _minibatch(
    learner: Learner, objective: PreferenceObjective, pieces: Sequence[Piece], rows: dict[int, PreferenceRow], step: int
) -> dict[str, float]:
    size = StepSize(pairs=len(pieces), replies=0, reply_tokens=0)
    sums: dict[str, float] = dict.fromkeys(["loss", *_LOGGED], 0.0)
    for some in learner.passes(pieces):
        own = [rows[piece.prompt] for piece in some]

        def loss_of(packed: PackedBatch, groups: slice, logps_R: Tensor, own: list[PreferenceRow] = own) -> Tensor:
            first = packed.parts[groups][0].sequences.start
            lengths_R = packed.sequence_lengths[first : first + len(logps_R)]
            loss, metrics = objective(own[groups], logps_R, lengths_R, size)
            for name in _LOGGED:
                sums[name] += float(metrics[name][0]) / size.pairs
            return loss

        learner.add_gradient(some, loss_of, sums)
    return {**sums, **learner.make_step(step)}
