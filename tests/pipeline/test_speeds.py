"""Costs of tokens: found again from made-up work whose costs are known, and against scipy's own solver."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from cai.pipeline.speeds import Stretch, Work, fit

TRUE = (0.0004, 0.0002, 0.002)


def work_of(chance: random.Random, count: int, noise: float, engine: int = 0) -> list[Stretch]:
    found: list[Stretch] = []
    for _ in range(count):
        prompt, rows, steps = chance.randrange(0, 3000, 100), chance.randint(1, 64), chance.randint(1, 10)
        amounts = (prompt, 64 * steps, rows * steps)
        seconds = sum(cost * amount for cost, amount in zip(TRUE, amounts, strict=True)) * (1 + chance.uniform(-noise, noise))
        found.append(Stretch(engine, seconds, *amounts))
    return found


def test_known_costs_are_found_again() -> None:
    speeds = fit(work_of(random.Random(1), 30, 0.0), 1)
    assert speeds is not None
    assert list(speeds.costs) == pytest.approx([*TRUE, 0])
    assert speeds.prompt_tokens_per_s(0) == pytest.approx(2500)
    assert speeds.completion_tokens_per_s(0, 0.5) == pytest.approx(1 / (0.002 + 0.0004))
    found = speeds.seconds([Work(0, 1000, 640, 320)])
    assert found.expected_s == pytest.approx(0.4 + 0.128 + 0.64)
    assert found.low_s == pytest.approx(found.expected_s)
    assert found.high_s == pytest.approx(found.expected_s)


def test_with_too_few_stretches_nothing_is_said() -> None:
    assert fit([], 1) is None
    assert fit(work_of(random.Random(1), 5, 0.1), 1) is None


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=8, max_value=40))
def test_the_costs_are_those_of_scipys_non_negative_least_squares(seed: int, count: int) -> None:
    chance = random.Random(seed)
    stretches = [
        Stretch(0, chance.uniform(0.1, 3), chance.randrange(2000), chance.randrange(1, 800), chance.randrange(500))
        for _ in range(count)
    ]
    speeds = fit(stretches, 1)
    assert speeds is not None
    amounts = np.array([[each.prompt_tokens, each.slot_steps, each.completion_tokens] for each in stretches], float)
    oracle, _ = nnls(amounts, np.array([each.seconds for each in stretches]))
    assert list(speeds.costs[:3]) == pytest.approx(list(oracle), rel=1e-5, abs=1e-9)


def test_two_engines_are_told_apart_and_an_unasked_one_costs_nothing() -> None:
    chance = random.Random(3)
    stretches = [*work_of(chance, 20, 0.0), *work_of(chance, 20, 0.0, engine=1)]
    speeds = fit(stretches, 3)
    assert speeds is not None
    assert list(speeds.costs) == pytest.approx([*TRUE, 0, *TRUE, 0, 0, 0, 0, 0])
    assert speeds.prompt_tokens_per_s(2) is None


def test_nine_intervals_in_ten_hold_what_the_work_takes() -> None:
    """Of 150 calibrations on a machine whose speed wavers by up to a third, each foretells work like that it has seen."""
    chance = random.Random(4)
    held = 0
    for _ in range(150):
        speeds = fit(work_of(chance, 25, 0.33), 1)
        assert speeds is not None
        ahead = work_of(chance, 400, 0.33)
        amounts = [(each.prompt_tokens, each.slot_steps, each.completion_tokens) for each in ahead]
        found = speeds.seconds([Work(0, *(float(sum(kind)) for kind in zip(*amounts, strict=True)))])
        held += found.low_s <= sum(each.seconds for each in ahead) <= found.high_s
    assert 0.82 <= held / 150 <= 0.98
