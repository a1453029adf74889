"""Losses of tokens against PPO's formulas by hand, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from cai.rl.losses import kl_losses, policy_losses, token_weights, value_losses


def wide(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, False),
        (1.1, 2.0, -2.2, -2.2, False),
        (1.5, 2.0, -2.4, 0.0, True),  # gained enough: held at 1.2, no gradient
        (0.5, 2.0, -1.0, -1.0, False),  # fallen, and should rise: not held
        (0.5, -2.0, 1.6, 0.0, True),  # fallen enough: held at 0.8
        (1.5, -2.0, 3.0, 3.0, False),  # risen, and should fall: not held
    ],
)
def test_the_clipped_loss_and_its_gradient(ratio: float, advantage: float, loss: float, slope: float, clipped: bool) -> None:
    old = wide(-1.3)
    logps = (old + math.log(ratio)).requires_grad_()
    found = policy_losses(logps, old, wide(advantage), 0.2)
    assert found.losses.item() == pytest.approx(loss, rel=1e-12)
    assert found.clipped.item() is clipped
    (gradient,) = torch.autograd.grad(found.losses.sum(), logps)
    assert gradient.item() == pytest.approx(slope, rel=1e-12)  # dρ/dlogp = ρ


def test_where_nothing_has_moved_the_gradient_is_that_of_the_plain_policy_gradient() -> None:
    old = wide(-1.0, -2.0, -0.5)
    logps = old.clone().requires_grad_()
    advantages = wide(0.3, -1.2, 2.0)
    (gradient,) = torch.autograd.grad(policy_losses(logps, old, advantages, 0.2).losses.sum(), logps)
    torch.testing.assert_close(gradient, -advantages)


def test_the_kl_loss_s_mean_gradient_is_that_of_the_divergence_itself() -> None:
    """Over all tokens of a small vocabulary, each as often as the policy draws it; k3's own gradient is another."""
    logits = wide(0.3, -1.0, 0.7).requires_grad_()
    ref = wide(-0.2, 0.1, 0.4).log_softmax(0)
    logps = logits.log_softmax(0)
    old = logps.detach()
    (expected,) = torch.autograd.grad((logps.exp() * (logps - ref)).sum(), logits, retain_graph=True)
    (found,) = torch.autograd.grad((old.exp() * kl_losses(logps, old, ref)).sum(), logits)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_values_are_fitted_to_returns_and_held_near_the_old_ones() -> None:
    values, old, returns = wide(1.0, 1.0), wide(0.5, 0.9), wide(2.0, 0.0)
    torch.testing.assert_close(value_losses(values, old, returns, None), wide(0.5, 0.5))
    # held: 0.5 + 0.2 = 0.7 → (0.7 − 2)² = 1.69 > 1; 0.9 + 0.1 = 1.0 → 1
    torch.testing.assert_close(value_losses(values, old, returns, 0.2), wide(1.69 / 2, 0.5))


@pytest.mark.parametrize(
    ("average", "expected"),
    [("token", [0.25] * 4), ("reply", [0.5, 1 / 6, 1 / 6, 1 / 6]), ("sum", [0.5] * 4)],
)
def test_tokens_are_weighed_as_named(average: str, expected: list[float]) -> None:
    assert token_weights([1, 3], average).tolist() == pytest.approx(expected)  # pyright: ignore[reportArgumentType]
