"""Preference losses against their formulas, computed apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from loss_values import BETA, FEW, LOGP, NAMES, OPEN_SOFT, SOFT, TOKENS, USUAL, log_sigmoid, loss, losses, of, slopes
from torch import Tensor

from cai.training.loss_table import LOSS_SETTINGS, LOSSES, PreferenceLoss
from cai.training.losses import CERTAIN_MEAN_LOGP, FORMS, REWARDS


def test_every_loss_that_can_be_asked_for_has_its_formula() -> None:
    assert set(LOSSES) == set(NAMES)
    assert {traits.reward for traits in LOSSES.values()} == set(REWARDS)
    assert {traits.form for traits in LOSSES.values()} == set(FORMS)
    assert {name for traits in LOSSES.values() for name in traits.takes} == set(LOSS_SETTINGS)


# ---- Worked out by hand: β = 0.1, log π/ref = +2 and −3, Δ = 5, so βΔ = 0.5; lengths 4 and 2

SIGMOID_HALF, SIGMOID_MINUS_HALF = 0.6224593312018546, 0.3775406687981454


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("sigmoid", {}, 0.4740769841801067),  # log(1 + e^−0.5)
        ("sigmoid", {"p": 0.9}, 0.9 * 0.4740769841801067 + 0.1 * 0.9740769841801067),
        ("cdpo", {"label_noise": 0.1}, 0.9 * 0.4740769841801067 + 0.1 * 0.9740769841801067),
        ("robust", {"label_noise": 0.1}, (0.9 * 0.4740769841801067 - 0.1 * 0.9740769841801067) / 0.8),
        ("ipo", {}, 0.0),  # the target is 1/0.2 = 5 = Δ
        ("ipo", {"p": 0.5}, 50.0),  # half of (5 + 5)²
        ("ipo_norm", {}, 9.0),  # means 2/4 and −3/2: 2 − 5
        ("hinge", {}, 0.5),
        ("hinge", {"p": 0.75}, 0.75 * 0.5 + 0.25 * 1.5),
        ("apo_zero", {}, 1 - 0.549833997312478 + 0.425557483188341),  # σ(0.2), σ(−0.3)
        ("apo_down", {}, 0.549833997312478 + 1 - SIGMOID_HALF),
        ("exo_pair", {"p": SIGMOID_HALF}, 0.0),
        ("exo_pair", {"p": SIGMOID_MINUS_HALF}, 0.5 * (SIGMOID_HALF - SIGMOID_MINUS_HALF)),
        ("sigmoid_norm", {}, 0.5981388693815918),  # 0.1·(0.5 + 1.5) = 0.2
        ("rdpo", {"length_penalty": 0.25}, 0.3132616875182228),  # 0.5 + 0.25·2 = 1
        ("ld_dpo", {"tail_weight": 0.5, "opening_share": 0.2}, 0.5543552444685272),  # 0.5·(0.2 + 0.5·0.8) = 0.3
        ("simpo", {"beta": 2.0, "target_margin": 8.5}, 0.4740769841801067),  # 2·(−10/4 + 14/2) − 8.5 = 0.5
    ],
)
def test_pairs_worked_out_by_hand(name: PreferenceLoss, options: dict[str, float], wanted: float) -> None:
    assert loss(name, -10, -14, -12, -11, tokens=(4, 2), **options) == pytest.approx(wanted, abs=1e-12)


def test_ipo_away_from_its_target() -> None:
    """From Δ = 3 it is (3 − 5)² = 4."""
    assert loss("ipo", -12, -14, -12, -11, beta=0.1) == pytest.approx(4.0)


def test_orpo_worked_out_by_hand() -> None:
    """P = ½ and ¼ a token: odds 1 and ⅓, log-odds ratio log 3, −log σ(log 3) = log(4/3)."""
    chosen, rejected = 4 * math.log(0.5), 2 * math.log(0.25)
    found = losses("orpo", chosen, rejected, tokens=(4, 2), beta=0.2)
    assert found.losses.item() == pytest.approx(0.2 * math.log(4 / 3), abs=1e-12)
    assert found.chosen_rewards.item() == pytest.approx(0.0, abs=1e-12)
    assert found.rejected_rewards.item() == pytest.approx(-math.log(3), abs=1e-12)


# ---- Naive formulas, each loss written out whole

Naive = Callable[..., Tensor]


def _either(hard: Naive) -> Naive:
    def mixed(c: dict[str, Any], r: dict[str, Any], p: float, beta: float, **options: float) -> Tensor:
        return p * hard(c, r, beta, **options) + (1 - p) * hard(r, c, beta, **options)

    return mixed


def _dpo(c: dict[str, Any], r: dict[str, Any], beta: float) -> Tensor:
    ratio = (torch.exp(c["lp"] - c["ref"])) ** beta / (torch.exp(r["lp"] - r["ref"])) ** beta
    return torch.log(1 + 1 / ratio)


def _robust(c: dict[str, Any], r: dict[str, Any], beta: float, label_noise: float) -> Tensor:
    return ((1 - label_noise) * _dpo(c, r, beta) - label_noise * _dpo(r, c, beta)) / (1 - 2 * label_noise)


def _cdpo(c: dict[str, Any], r: dict[str, Any], beta: float, label_noise: float) -> Tensor:
    return (1 - label_noise) * _dpo(c, r, beta) + label_noise * _dpo(r, c, beta)


def _ld(c: dict[str, Any], r: dict[str, Any], beta: float, tail_weight: float) -> Tensor:
    def reward(y: dict[str, Any]) -> Tensor:
        head = y["share"] * (y["lp"] - y["ref"])
        return head + tail_weight * (1 - y["share"]) * (y["lp"] - y["ref"])

    return torch.log(1 + torch.exp(-beta * (reward(c) - reward(r))))


def _orpo(c: dict[str, Any], r: dict[str, Any], beta: float) -> Tensor:
    def odds(y: dict[str, Any]) -> Tensor:
        mean = torch.exp(y["lp"]) ** (1 / y["n"])
        return mean / (1 - mean)

    ratio = odds(c) / odds(r)
    return -beta * torch.log(ratio / (1 + ratio))


def _exo(c: dict[str, Any], r: dict[str, Any], p: float, beta: float) -> Tensor:
    q = torch.softmax(beta * torch.cat([c["lp"] - c["ref"], r["lp"] - r["ref"]]), 0)
    return (q * torch.log(q / torch.tensor([p, 1 - p], dtype=torch.float64))).sum()


def _sg(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


NAIVE: dict[PreferenceLoss, Naive] = {
    "sigmoid": _either(_dpo),
    "sigmoid_norm": _either(
        lambda c, r, b: -torch.log(_sg(b * (c["lp"] - c["ref"]) / c["n"] - b * (r["lp"] - r["ref"]) / r["n"]))
    ),
    "cdpo": _either(_cdpo),
    "robust": _either(_robust),
    "ipo": _either(lambda c, r, b: (c["lp"] - r["lp"] - c["ref"] + r["ref"] - 1 / (2 * b)) ** 2),
    "ipo_norm": _either(lambda c, r, b: ((c["lp"] - c["ref"]) / c["n"] - (r["lp"] - r["ref"]) / r["n"] - 1 / (2 * b)) ** 2),
    "hinge": _either(lambda c, r, b: torch.clamp(1 - b * (c["lp"] - c["ref"] - r["lp"] + r["ref"]), min=0)),
    "exo_pair": _exo,
    "apo_zero": _either(lambda c, r, b: 1 - _sg(b * (c["lp"] - c["ref"])) + _sg(b * (r["lp"] - r["ref"]))),
    "apo_down": _either(lambda c, r, b: _sg(b * (c["lp"] - c["ref"])) + 1 - _sg(b * (c["lp"] - c["ref"] - r["lp"] + r["ref"]))),
    "rdpo": _either(
        lambda c, r, b, length_penalty: (
            -torch.log(_sg(b * (c["lp"] - c["ref"] - r["lp"] + r["ref"]) + length_penalty * c["n"] - length_penalty * r["n"]))
        )
    ),
    "ld_dpo": _either(_ld),
    "simpo": _either(
        lambda c, r, b, target_margin: -torch.log(_sg(b / c["n"] * c["lp"] - b / r["n"] * r["lp"] - target_margin))
    ),
    "orpo": _either(_orpo),
}


@pytest.mark.parametrize("name", NAMES)
@given(
    st.lists(st.floats(-60, -0.5), min_size=4, max_size=4), st.tuples(TOKENS, TOKENS), st.floats(0.02, 0.3), OPEN_SOFT,
    st.floats(0.1, 1.0),
)  # fmt: skip
@settings(max_examples=FEW)
def test_values_and_gradients_are_those_of_the_naive_formula(
    name: PreferenceLoss, logps: list[float], tokens: tuple[int, int], beta: float, p: float, share: float
) -> None:
    chosen, rejected, ref_chosen, ref_rejected = logps
    margin = beta * (chosen - ref_chosen - rejected + ref_rejected)
    assume(name != "hinge" or abs(abs(margin) - 1) > 1e-6)  # at its knees each slope between the two is right
    leaves = of(chosen).requires_grad_(), of(rejected).requires_grad_()
    c = {"lp": leaves[0], "ref": of(ref_chosen), "n": tokens[0], "share": share}
    r = {"lp": leaves[1], "ref": of(ref_rejected), "n": tokens[1], "share": share}
    value = NAIVE[name](c, r, p, beta, **USUAL.get(name, {})).sum()
    wanted = torch.autograd.grad(value, leaves, allow_unused=True)
    options = {"beta": beta, "p": p, "tokens": tokens, "opening_share": share}
    assert loss(name, *logps, **options) == pytest.approx(value.item(), rel=1e-7, abs=1e-9)
    found = slopes(name, chosen, rejected, ref_chosen, ref_rejected, **options)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs.item(), rel=1e-6, abs=1e-9)


# ---- What holds of all of them


@pytest.mark.parametrize("name", NAMES)
@given(LOGP, LOGP, LOGP, LOGP, BETA, OPEN_SOFT, st.tuples(TOKENS, TOKENS))
@settings(max_examples=FEW)
def test_swapping_the_replies_and_the_label_changes_nothing(
    name: PreferenceLoss,
    chosen: float,
    rejected: float,
    ref_chosen: float,
    ref_rejected: float,
    beta: float,
    p: float,
    tokens: tuple[int, int],
) -> None:
    straight = loss(name, chosen, rejected, ref_chosen, ref_rejected, beta=beta, p=p, tokens=tokens)
    mirrored = loss(name, rejected, chosen, ref_rejected, ref_chosen, beta=beta, p=1 - p, tokens=tokens[::-1])
    assert straight == pytest.approx(mirrored, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if LOSSES[name].bears_certainty])
@given(LOGP, LOGP, LOGP, LOGP, SOFT, st.tuples(TOKENS, TOKENS))
@settings(max_examples=FEW)
def test_a_soft_label_is_the_mixture_of_both_sure_ones(
    name: PreferenceLoss,
    chosen: float,
    rejected: float,
    ref_chosen: float,
    ref_rejected: float,
    p: float,
    tokens: tuple[int, int],
) -> None:
    logps = (chosen, rejected, ref_chosen, ref_rejected)
    sure, reverse = (loss(name, *logps, p=at, tokens=tokens) for at in (1.0, 0.0))
    assert loss(name, *logps, p=p, tokens=tokens) == pytest.approx(p * sure + (1 - p) * reverse, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if not LOSSES[name].bears_certainty])
def test_what_does_not_bear_certainty_is_infinite_for_a_sure_label(name: PreferenceLoss) -> None:
    assert math.isinf(loss(name, -10, -14, -12, -11, p=1.0))
    assert math.isfinite(loss(name, -10, -14, -12, -11, p=0.999))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *((name, lambda p, b: math.log(2)) for name in ("sigmoid", "sigmoid_norm", "cdpo", "robust", "rdpo", "ld_dpo")),
        *((name, lambda p, b: 1 / (4 * b * b)) for name in ("ipo", "ipo_norm")),
        ("hinge", lambda p, b: 1.0),
        ("exo_pair", lambda p, b: -math.log(2) - 0.5 * math.log(p * (1 - p))),
        *((name, lambda p, b: 1.0) for name in ("apo_zero", "apo_down")),
    ],
)
@given(LOGP, LOGP, BETA, st.floats(0.5, 0.98))
@settings(max_examples=FEW)
def test_a_policy_equal_to_its_reference_has_the_loss_of_a_coin(
    name: PreferenceLoss, wanted: Callable[[float, float], float], chosen: float, rejected: float, beta: float, p: float
) -> None:
    found = losses(name, chosen, rejected, chosen, rejected, beta=beta, p=p)
    assert found.losses.item() == pytest.approx(wanted(p, beta), rel=1e-9, abs=1e-12)
    assert found.chosen_rewards.item() == found.rejected_rewards.item() == 0.0


@given(LOGP, LOGP, LOGP, LOGP, BETA, SOFT)
def test_the_sigmoid_loss_is_the_cross_entropy_of_label_and_implicit_reward(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float, p: float
) -> None:
    scaled = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    wanted = -p * log_sigmoid(scaled) - (1 - p) * log_sigmoid(-scaled)
    assert loss("sigmoid", chosen, rejected, ref_chosen, ref_rejected, beta=beta, p=p) == pytest.approx(
        wanted, rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gap", [1e4, -1e4])
@pytest.mark.parametrize("tokens", [(1, 1), (1, 4000)])
@pytest.mark.parametrize("p", [0.5, 0.9, 1.0])
def test_losses_and_gradients_are_finite_far_out(name: PreferenceLoss, gap: float, tokens: tuple[int, int], p: float) -> None:
    chosen, rejected = (-1e-3, -abs(gap)) if gap > 0 else (-abs(gap), -1e-3)
    p = p if LOSSES[name].bears_certainty else min(p, 0.999)
    options: dict[str, Any] = {"beta": 1.0, "p": p, "tokens": tokens}
    assert math.isfinite(loss(name, chosen, rejected, **options))
    assert all(math.isfinite(slope) for slope in slopes(name, chosen, rejected, **options))


@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, -3.0), (-3.0, 0.0), (0.0, 0.0)])
def test_orpo_bears_a_reply_that_is_certain(chosen: float, rejected: float) -> None:
    """Odds of a probability that float32 rounds to 1 are infinite."""
    assert math.isfinite(loss("orpo", chosen, rejected))
    assert all(math.isfinite(slope) for slope in slopes("orpo", chosen, rejected))
    assert slopes("orpo", 11 * CERTAIN_MEAN_LOGP, -3.0)[0] != 0.0
