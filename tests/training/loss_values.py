"""Preference losses of single pairs, for tests: their values, slopes and usual options."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from hypothesis import strategies as st
from torch import Tensor

from cai.training.loss_table import LossOptions, PreferenceLoss
from cai.training.losses import PairLosses, Replies, preference_losses

NAMES: tuple[PreferenceLoss, ...] = get_args(PreferenceLoss)
LOGP = st.floats(-300, -0.5, allow_nan=False)
BETA = st.floats(0.01, 2.0)
SOFT = st.floats(0.5, 1.0)
OPEN_SOFT = st.floats(0.02, 0.98)
TOKENS = st.integers(1, 300)
FEW = 20
"""Examples of each loss; there are fourteen."""
USUAL: dict[PreferenceLoss, dict[str, float]] = {
    "cdpo": {"label_noise": 0.15},
    "robust": {"label_noise": 0.15},
    "rdpo": {"length_penalty": 0.02},
    "ld_dpo": {"tail_weight": 0.3},
    "simpo": {"target_margin": 0.7},
}


def of(value: float | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor([value], dtype=torch.float64)


def losses(
    name: PreferenceLoss,
    chosen: float | Tensor,
    rejected: float | Tensor,
    ref_chosen: float = 0.0,
    ref_rejected: float = 0.0,
    *,
    beta: float = 0.1,
    p: float = 1.0,
    tokens: tuple[int, int] = (10, 10),
    opening_share: float = 1.0,
    **options: float,
) -> PairLosses:
    """One pair; the openings have a fixed share of the whole replies' log-probabilities."""

    def replies(logps: float | Tensor, ref: float, count: int) -> Replies:
        policy, reference = of(logps), of(ref)
        return Replies(policy, torch.tensor([count]), reference, opening_share * policy, opening_share * reference)

    sides = replies(chosen, ref_chosen, tokens[0]), replies(rejected, ref_rejected, tokens[1])
    return preference_losses(name, *sides, of(p), LossOptions(beta, **{**USUAL.get(name, {}), **options}))


def loss(name: PreferenceLoss, *logps: float, **options: Any) -> float:
    return losses(name, *logps, **options).losses.item()


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def slopes(name: PreferenceLoss, chosen: float, rejected: float, *ref: float, **options: Any) -> tuple[float, float]:
    """∂loss/∂log π of both replies."""
    leaves = of(chosen).requires_grad_(), of(rejected).requires_grad_()
    losses(name, *leaves, *ref, **options).losses.sum().backward()
    first, second = (leaf.grad for leaf in leaves)
    assert first is not None
    assert second is not None
    return first.item(), second.item()
