"""Preference losses against their formulas, computed apart in Python's own floats."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cai.training.losses import ipo_preference_loss, sigmoid_preference_loss

LOGP = st.floats(-300, 0, allow_nan=False)
BETA = st.floats(0.01, 2.0)
SOFT = st.floats(0.5, 1.0)


def of(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_a_pair_worked_out_by_hand() -> None:
    """β = 0.1, Δ = (−10 + 12) − (−14 + 11) = 5, so βΔ = 0.5: −log σ(0.5) = log(1 + e^−0.5) = 0.474077 nats."""
    loss = sigmoid_preference_loss(of(-10), of(-14), of(-12), of(-11), beta=0.1)
    assert loss.item() == pytest.approx(0.4740769841801067, abs=1e-12)
    softened = sigmoid_preference_loss(of(-10), of(-14), of(-12), of(-11), beta=0.1, p_chosen_B=0.9)
    assert softened.item() == pytest.approx(0.9 * 0.4740769841801067 + 0.1 * 0.9740769841801067, abs=1e-12)


def test_ipo_worked_out_by_hand() -> None:
    """β = 0.1 puts the target at 1/0.2 = 5 = Δ: nothing is left to learn; from Δ = 3 it is (3 − 5)² = 4."""
    assert ipo_preference_loss(of(-10), of(-14), of(-12), of(-11), beta=0.1).item() == 0.0
    assert ipo_preference_loss(of(-12), of(-14), of(-12), of(-11), beta=0.1).item() == pytest.approx(4.0)


@given(LOGP, LOGP, LOGP, LOGP, BETA, SOFT)
def test_the_sigmoid_loss_is_the_cross_entropy_of_label_and_implicit_reward(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float, p: float
) -> None:
    scaled = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))

    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))

    wanted = -p * log_sigmoid(scaled) - (1 - p) * log_sigmoid(-scaled)
    found = sigmoid_preference_loss(of(chosen), of(rejected), of(ref_chosen), of(ref_rejected), beta=beta, p_chosen_B=p)
    assert found.item() == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@given(LOGP, LOGP, BETA, SOFT)
def test_a_policy_equal_to_its_reference_loses_log_2(chosen: float, rejected: float, beta: float, p: float) -> None:
    loss = sigmoid_preference_loss(of(chosen), of(rejected), of(chosen), of(rejected), beta=beta, p_chosen_B=p)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("loss", [sigmoid_preference_loss, ipo_preference_loss])
@given(LOGP, LOGP, LOGP, LOGP, BETA, SOFT)
def test_swapping_the_replies_and_the_label_changes_nothing(
    loss: Callable[..., Tensor], chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float, p: float
) -> None:
    straight = loss(of(chosen), of(rejected), of(ref_chosen), of(ref_rejected), beta=beta, p_chosen_B=p)
    mirrored = loss(of(rejected), of(chosen), of(ref_rejected), of(ref_chosen), beta=beta, p_chosen_B=1 - p)
    assert straight.item() == pytest.approx(mirrored.item(), rel=1e-9, abs=1e-9)


@given(st.floats(0.55, 0.95), BETA)
def test_a_soft_label_is_reached_where_the_margin_says_the_same(p: float, beta: float) -> None:
    """σ(βΔ) = p: no gradient; on either side it pushes back."""
    target = math.log(p / (1 - p)) / beta

    def slope(margin: float) -> float:
        chosen = of(margin).requires_grad_()
        sigmoid_preference_loss(chosen, of(0), of(0), of(0), beta=beta, p_chosen_B=p).sum().backward()
        assert chosen.grad is not None
        return chosen.grad.item()

    assert slope(target) == pytest.approx(0.0, abs=1e-9)
    assert slope(target - 1) < 0 < slope(target + 1)


def test_the_gradient_is_the_one_of_the_paper() -> None:
    """Rafailov et al. 2023, section 4: ∂loss/∂log π(chosen) = −β σ(−βΔ), and its opposite for the rejected reply."""
    chosen, rejected = of(-20.0).requires_grad_(), of(-18.0).requires_grad_()
    sigmoid_preference_loss(chosen, rejected, of(-21.0), of(-20.0), beta=0.3).sum().backward()
    wanted = -0.3 / (1 + math.exp(0.3 * (1.0 - 2.0)))
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(wanted, rel=1e-12)
    assert rejected.grad.item() == pytest.approx(-wanted, rel=1e-12)
