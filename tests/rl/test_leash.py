"""The leash: when a run is stopped, and which weights are kept."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.rl.leash import change, first_snap, good_step, snapped
from cai.rl.settings import LeashSettings

WINDOW = LeashSettings(window=10)


def rows(rewards: list[float], truths: list[float], *, noise: float = 0.05, seed: int = 0) -> list[dict[str, float]]:
    rng = random.Random(seed)
    return [
        {"step": at + 1, "reward": r + rng.gauss(0, noise), "truth": t + rng.gauss(0, noise), "kl": float(at)}
        for at, (r, t) in enumerate(zip(rewards, truths, strict=True))
    ]


def ramp(start: float, end: float, count: int) -> list[float]:
    return [start + (end - start) * at / (count - 1) for at in range(count)]


def first_stop(table: list[dict[str, float]], settings: LeashSettings = WINDOW) -> int | None:
    return next((n for n in range(1, len(table) + 1) if snapped(table[:n], settings)), None)


def test_a_reward_that_rises_while_the_truth_falls_is_stopped_within_two_windows_of_the_turn() -> None:
    """Gao et al.'s shape: both rise, then the truth turns at step 40."""
    table = rows(ramp(0, 4, 100), ramp(0, 1, 40) + ramp(1, -1, 60))
    stop = first_stop(table)
    assert stop is not None
    assert 40 < stop <= 40 + 2 * WINDOW.window
    found = snapped(table[:stop], WINDOW)
    assert found is not None
    assert "while the truth fell" in found.reason


def test_nothing_is_stopped_while_both_rise_or_both_fall_or_nothing_happens() -> None:
    for rewards, truths in ((ramp(0, 4, 80), ramp(0, 1, 80)), (ramp(4, 0, 80), ramp(1, 0, 80))):
        assert first_stop(rows(rewards, truths)) is None


def test_noise_alone_seldom_stops_a_run() -> None:
    stopped = sum(first_stop(rows([0.0] * 60, [0.0] * 60, noise=1.0, seed=seed)) is not None for seed in range(40))
    assert stopped <= 4


def test_without_a_truth_or_before_two_windows_there_is_nothing_to_stop_by() -> None:
    assert snapped([], WINDOW) is None
    table = rows(ramp(0, 4, 60), ramp(1, -1, 60))
    assert first_stop([{k: v for k, v in row.items() if k != "truth"} for row in table]) is None
    assert snapped(table[:19], WINDOW) is None
    assert snapped(table[:20], WINDOW) is not None


def test_steps_whose_reward_failed_are_passed_over() -> None:
    table = rows(ramp(0, 4, 60), ramp(1, -1, 60), noise=0.01)
    holes = [row if row["step"] % 3 else {"step": row["step"]} for row in table]
    assert first_stop(holes) is not None


def test_a_policy_too_far_from_its_reference_is_stopped() -> None:
    settings = LeashSettings(max_kl_nats=5.5)
    assert first_stop(rows([0.0] * 20, [0.0] * 20), settings) == 7  # kl is the step less one


@given(values=st.lists(st.floats(-1e3, 1e3), max_size=60), window=st.integers(2, 8), back=st.integers(1, 4))
def test_two_windows_so_many_apart_are_compared(values: list[float], window: int, back: int) -> None:
    found = change(values, window, back)
    assert (found is None) == (len(values) < (back + 1) * window)
    if found is not None:
        at = len(values) - window
        assert found.after == fmean(values[at:])
        assert found.before == fmean(values[at - back * window : at - (back - 1) * window])


def test_a_drift_too_slow_for_neighbouring_windows_is_stopped() -> None:
    """Story: a truth that fell by a tenth of its noise a window passed, as long as it fell that slowly."""
    table = rows(ramp(0, 3, 400), ramp(1, 0, 400), noise=0.25)
    pairs = [(change([row["truth"] for row in table[:n]], WINDOW.window), n) for n in range(20, 401)]
    assert sum(found is not None and found.sigmas <= -WINDOW.sigmas for found, _ in pairs) < len(pairs) / 10
    stop = first_stop(table)
    assert stop is not None
    assert stop < 250


def test_a_run_that_went_on_is_told_of_the_same_step_as_one_that_is_watched() -> None:
    table = [row if row["step"] % 4 else {"step": row["step"]} for row in rows(ramp(0, 4, 80), ramp(1, -1, 80), noise=0.3)]
    found = first_snap(table, WINDOW)
    assert found is not None
    assert found.step == first_stop(table)


def test_the_weights_kept_are_those_before_which_the_truth_was_highest() -> None:
    table = rows(ramp(0, 4, 60), ramp(0, 1, 30) + ramp(1, -1, 30), noise=0.001)
    assert good_step(table, [10, 20, 30, 40, 50, 60], 10) == 30
    assert good_step([{"step": 1.0}], [10, 20], 10) == 20
    assert good_step(table, [], 10) is None


def test_the_truth_of_a_saved_step_is_part_of_what_speaks_for_it() -> None:
    table = [{"step": step, "truth": 5.0 if step == 10 else 0.0} for step in range(1, 21)]
    assert good_step(table, [9, 10, 20], 1) == 10


def test_of_weights_that_are_equally_good_the_newest_are_kept() -> None:
    table = [{"step": step, "truth": 1.0} for step in range(1, 21)]
    assert good_step(table, [5, 10, 20], 5) == 20


def test_a_difference_without_noise_is_sure() -> None:
    found = change([0.0, 0.0, 1.0, 1.0], 2)
    assert found is not None
    assert found.sigmas == pytest.approx(float("inf"))
