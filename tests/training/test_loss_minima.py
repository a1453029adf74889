"""Where preference losses are least, and what their options come to at their ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_values import BETA, LOGP, NAMES, USUAL, logit, loss, losses, of, slopes
from torch import Tensor

from cai.training.loss_table import LOSSES, LossOptions, PreferenceLoss
from cai.training.losses import PairLosses, Replies, preference_losses


def simpo_target(p: float, gamma: float) -> float:
    """The root of p·σ(γ−m) = (1−p)·σ(γ+m), which is quadratic in e^m."""
    g = math.exp(-gamma)
    return math.log(((2 * p - 1) + math.sqrt((2 * p - 1) ** 2 + 4 * p * (1 - p) * g * g)) / (2 * (1 - p) * g))


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("sigmoid", logit),
        ("sigmoid_norm", logit),
        ("ld_dpo", logit),
        ("orpo", logit),
        ("exo_pair", logit),
        ("cdpo", lambda p: logit(0.85 * p + 0.15 * (1 - p))),
        ("robust", lambda p: logit((p - 0.15) / 0.7)),
        ("ipo", lambda p: (2 * p - 1) / 2),
        ("ipo_norm", lambda p: (2 * p - 1) / 2),
        ("hinge", lambda p: 1.0),
        ("rdpo", lambda p: logit(p) - 0.02 * (9 - 5)),
        ("simpo", lambda p: simpo_target(p, 0.7)),
    ],
)
@pytest.mark.parametrize("p", [0.55, 0.7, 0.84])
@pytest.mark.parametrize("beta", [0.1, 1.5])
def test_the_loss_is_least_and_the_pair_satisfied_at_the_margin_that_is_claimed(
    name: PreferenceLoss, target: Callable[[float], float], p: float, beta: float
) -> None:
    """On either side it pushes back, and `satisfied` turns there."""

    rejected, tokens = -200.0, (9, 5)

    def reward(chosen: float) -> float:
        return losses(name, chosen, rejected, beta=beta, tokens=tokens).chosen_rewards.item()

    held = losses(name, rejected, rejected, beta=beta, tokens=tokens).rejected_rewards.item()

    def at(margin: float) -> PairLosses:
        """The rejected reply's log-probability is held; all rewards but the odds are proportional to the other's."""
        odds = name == "orpo"
        chosen = -9 * math.log1p(math.exp(-held - margin)) if odds else -(held + margin) / reward(-1.0)
        assert reward(chosen) - held == pytest.approx(margin, abs=1e-9)
        return losses(name, chosen, rejected, beta=beta, p=p, tokens=tokens)

    least, below, above = (at(target(p) + step) for step in (0.0, -0.05, 0.05))
    assert below.losses.item() > least.losses.item() < above.losses.item()
    assert not below.satisfied.item()
    assert above.satisfied.item()


@given(st.floats(0.55, 0.95), BETA)
def test_a_soft_label_is_reached_where_the_margin_says_the_same(p: float, beta: float) -> None:
    """σ(βΔ) = p: no gradient; on either side it pushes back."""
    target = logit(p) / beta

    def slope(margin: float) -> float:
        return slopes("sigmoid", margin, 0.0, 0.0, 0.0, beta=beta, p=p)[0]

    assert slope(target) == pytest.approx(0.0, abs=1e-9)
    assert slope(target - 1) < 0 < slope(target + 1)


@pytest.mark.parametrize("name", ["sigmoid", "robust", "apo_zero", "apo_down", "orpo"])
def test_a_sure_label_is_never_satisfied_where_the_loss_has_no_least_value(name: PreferenceLoss) -> None:
    assert not losses(name, -0.5, -40.0, -30.0, -3.0, beta=1.0).satisfied.item()


def test_the_gradient_is_the_one_of_the_paper() -> None:
    """Rafailov et al. 2023, section 4: ∂loss/∂log π(chosen) = −β σ(−βΔ), and its opposite for the rejected reply."""
    found = slopes("sigmoid", -20.0, -18.0, -21.0, -20.0, beta=0.3)
    wanted = -0.3 / (1 + math.exp(0.3 * (1.0 - 2.0)))
    assert found[0] == pytest.approx(wanted, rel=1e-12)
    assert found[1] == pytest.approx(-wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "option", "plain"),
    [("cdpo", "label_noise", "sigmoid"), ("robust", "label_noise", "sigmoid"), ("rdpo", "length_penalty", "sigmoid")],
)
def test_an_option_at_zero_leaves_dpo(name: PreferenceLoss, option: str, plain: PreferenceLoss) -> None:
    logps = (-10, -14, -12, -11)
    assert loss(name, *logps, p=0.8, tokens=(9, 4), **{option: 0.0}) == pytest.approx(loss(plain, *logps, p=0.8))


def test_the_length_penalty_is_not_rounded_to_float32() -> None:
    """An integer tensor times a Python float is float32: the margin was off by 1e-7."""
    wanted = math.log1p(math.exp(-(0.02 * 237 - 3.5)))
    assert loss("rdpo", -1, -1, -1, -29, beta=0.125, tokens=(238, 1)) == pytest.approx(wanted, rel=1e-12)


def test_ld_dpo_weighs_the_tail_between_all_and_nothing() -> None:
    logps = (-10, -14, -12, -11)
    whole = loss("ld_dpo", *logps, tail_weight=1.0, opening_share=0.4)
    cut = loss("ld_dpo", *logps, tail_weight=0.0, opening_share=0.4)
    assert whole == pytest.approx(loss("sigmoid", *logps))
    assert cut == pytest.approx(loss("sigmoid", *(0.4 * value for value in logps)))


@given(LOGP, LOGP, LOGP, LOGP, st.floats(0.05, 0.4))
def test_robust_dpo_over_noisy_labels_is_dpo_over_clean_ones(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, noise: float
) -> None:
    """Chowdhury et al. 2024: with labels swapped at the rate ε, the mean of the debiased loss is the loss without noise."""
    logps = (chosen, rejected, ref_chosen, ref_rejected)
    noisy = (1 - noise) * loss("robust", *logps, label_noise=noise) + noise * loss("robust", *logps, p=0, label_noise=noise)
    assert noisy == pytest.approx(loss("sigmoid", *logps), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_loss_needs_is_asked_for_and_what_it_does_not_need_is_not(name: PreferenceLoss) -> None:
    traits = LOSSES[name]
    options = LossOptions(0.1, **USUAL.get(name, {}))
    tokens, logps, p = torch.tensor([4]), of(-3.0), of(0.9)

    def run(**known: Tensor) -> None:
        preference_losses(name, Replies(logps, tokens, **known), Replies(logps, tokens, **known), p, options)

    if not traits.needs_reference:
        run()
        return
    with pytest.raises(ValueError, match="this loss needs"):
        run()
    if traits.needs_openings:
        with pytest.raises(ValueError, match="first tokens"):
            run(reference=logps)
        run(reference=logps, openings=logps, reference_openings=logps)
    else:
        run(reference=logps)
