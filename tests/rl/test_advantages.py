"""Advantages and divergences against the formulas of the papers, by hand and by naive loops, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cai.rl.advantages import (
    GROUP_EPSILON,
    gae,
    group_relative,
    k1,
    k3,
    leave_one_out,
    reply_sums,
    spread,
    token_rewards,
    whiten,
)

NUMBERS = st.floats(-50, 50)


def wide(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_gae_is_what_a_pencil_gives_for_three_tokens() -> None:
    """γ = 0.5, λ = 0.5; r = 0, 0, 1; V = 0.2, 0.4, 0.6.

    δ3 = 1 − 0.6 = 0.4; δ2 = 0.5·0.6 − 0.4 = −0.1; δ1 = 0.5·0.4 − 0.2 = 0.
    A3 = 0.4; A2 = −0.1 + 0.25·0.4 = 0; A1 = 0 + 0.25·0 = 0.
    """
    advantages, returns = gae(wide(0, 0, 1), wide(0.2, 0.4, 0.6), [3], gamma=0.5, lam=0.5)
    torch.testing.assert_close(advantages, wide(0, 0, 0.4), rtol=0, atol=1e-15)
    torch.testing.assert_close(returns, wide(0.2, 0.4, 1.0), rtol=0, atol=1e-15)


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    data=st.data(),
)
def test_gae_is_the_discounted_sum_of_all_later_errors_of_the_same_reply(
    lengths: list[int], gamma: float, lam: float, data: st.DataObject
) -> None:
    count = sum(lengths)
    rewards = data.draw(st.lists(NUMBERS, min_size=count, max_size=count))
    values = data.draw(st.lists(NUMBERS, min_size=count, max_size=count))
    expected: list[float] = []
    start = 0
    for length in lengths:
        r, v = rewards[start : start + length], [*values[start : start + length], 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        expected += [sum((gamma * lam) ** (u - t) * deltas[u] for u in range(t, length)) for t in range(length)]
        start += length
    advantages, returns = gae(wide(*rewards), wide(*values), lengths, gamma=gamma, lam=lam)
    torch.testing.assert_close(advantages, wide(*expected), rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(returns, wide(*(a + v for a, v in zip(expected, values, strict=True))), rtol=1e-12, atol=1e-10)


def test_with_lambda_one_and_no_discount_returns_are_the_rewards_to_come() -> None:
    _, returns = gae(wide(1, 2, 3), wide(9, -4, 7), [3], gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, wide(6, 5, 3))


def test_kl_estimators_are_their_formulas() -> None:
    logps, ref = wide(math.log(0.5), math.log(0.1)), wide(math.log(0.25), math.log(0.3))
    torch.testing.assert_close(k1(logps, ref), wide(math.log(2), math.log(1 / 3)), rtol=1e-14, atol=0)
    # r − 1 − log r with r = ref / policy: 0.5 and 3
    torch.testing.assert_close(k3(logps, ref), wide(0.5 - 1 - math.log(0.5), 3 - 1 - math.log(3)), rtol=1e-14, atol=0)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=6), st.lists(st.floats(-8, 8), min_size=6, max_size=6))
def test_both_estimators_have_the_divergence_as_their_mean_and_k3_is_never_negative(
    ours: list[float], theirs: list[float]
) -> None:
    p, q = (
        torch.tensor(ours, dtype=torch.float64).log_softmax(0),
        torch.tensor(theirs[: len(ours)], dtype=torch.float64).log_softmax(0),
    )
    exact = float((p.exp() * (p - q)).sum())
    assert float((p.exp() * k1(p, q)).sum()) == pytest.approx(exact, abs=1e-9)
    assert float((p.exp() * k3(p, q)).sum()) == pytest.approx(exact, rel=1e-9, abs=1e-9)
    assert bool((k3(p, q) >= 0).all())


def test_the_score_comes_with_the_last_token_and_kl_is_paid_at_each() -> None:
    rewards = token_rewards(wide(1.0, -2.0), wide(0.1, 0.2, 0.3), [2, 1], beta=0.5)
    torch.testing.assert_close(rewards, wide(-0.05, -0.1 + 1.0, -0.15 - 2.0))
    assert reply_sums(rewards, [2, 1]).tolist() == pytest.approx([0.85, -2.15])


@given(st.lists(NUMBERS, min_size=2, max_size=8))
def test_each_reply_is_compared_with_the_mean_of_the_others(rewards: list[float]) -> None:
    found = leave_one_out(wide(*rewards)).tolist()
    for at, reward in enumerate(rewards):
        others = rewards[:at] + rewards[at + 1 :]
        assert found[at] == pytest.approx(reward - sum(others) / len(others), abs=1e-9)


def test_group_advantages_are_in_deviations_of_the_group() -> None:
    rewards = wide(1, 2, 6)
    deviation = math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2)
    assert GROUP_EPSILON == 1e-4, "TRL's"
    expected = [each / (deviation + GROUP_EPSILON) for each in (-2, -1, 3)]
    assert group_relative(rewards, scaled=True).tolist() == pytest.approx(expected, rel=1e-14)
    assert group_relative(rewards, scaled=False).tolist() == [-2, -1, 3]


def test_a_reply_alone_and_replies_that_are_all_alike_teach_nothing() -> None:
    for compare in (leave_one_out, lambda x: group_relative(x, scaled=True)):
        assert compare(wide(5)).tolist() == [0]
        assert compare(wide(5, 5, 5)).tolist() == [0, 0, 0]


def test_whitened_values_have_mean_zero_and_deviation_one() -> None:
    found = whiten(wide(1, 5, -3, 4))
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.std()) == pytest.approx(1, abs=1e-6)
    assert whiten(wide(7)).tolist() == [0]


def test_a_reply_s_value_is_spread_over_its_tokens() -> None:
    assert spread(wide(1, 2), [2, 3]).tolist() == [1, 1, 2, 2, 2]
