"""Intervals and tests against scipy's, and against what they promise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cai.statistics import (
    benjamini_hochberg,
    bootstrap_interval,
    cluster_bootstrap,
    cluster_share_interval,
    clusters_needed,
    holm,
    nested_bootstrap,
    sign_flip_p,
    wilson_interval,
)

SHARES = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(SHARES)
def test_wilson_is_scipys(share: tuple[int, int]) -> None:
    found = wilson_interval(*share)
    wanted = stats.binomtest(*share).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert 0.0 <= found.low <= share[0] / share[1] <= found.high <= 1.0


@pytest.mark.parametrize("share", [(0, 0), (-1, 5), (6, 5)])
def test_wilson_of_no_share_is_refused(share: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a share"):
        wilson_interval(*share)


def mcnemar_p(better: int, worse: int, same: int = 0) -> float:
    """Every answer a cluster of its own."""
    steps = [-1.0] * better + [1.0] * worse + [0.0] * (same or not (better or worse))
    return sign_flip_p(steps, [str(n) for n in range(len(steps))])


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 50))
def test_without_clusters_a_sign_flip_is_the_exact_binomial_test_of_mcnemar(better: int, worse: int, same: int) -> None:
    changed = better + worse
    wanted = stats.binomtest(better, changed, 0.5).pvalue if changed else 1.0
    assert mcnemar_p(better, worse, same) == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    """Six of six got better: 2 · (1/2)^6 = 1/32."""
    assert mcnemar_p(6, 0) == mcnemar_p(0, 6) == 0.03125
    assert mcnemar_p(3, 3) == 1.0


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=9))
def test_with_clusters_it_is_the_share_of_all_sign_patterns_that_go_as_far(rows: list[tuple[int, int]]) -> None:
    sums: dict[int, int] = {}
    for step, cluster in rows:
        sums[cluster] = sums.get(cluster, 0) + step
    flips = [
        sum(sign * size for sign, size in zip(signs, sums.values(), strict=True))
        for signs in product((-1, 1), repeat=len(sums))
    ]
    wanted = sum(abs(flip) >= abs(sum(sums.values())) for flip in flips) / len(flips)
    assert sign_flip_p([step for step, _ in rows], [str(cluster) for _, cluster in rows]) == pytest.approx(wanted)


def test_ten_answers_to_one_prompt_are_one_piece_of_evidence() -> None:
    """All ten got better: alone p = 2/1024, yet they are answers to two prompts only."""
    assert sign_flip_p([-1.0] * 10, ["a"] * 5 + ["b"] * 5) == 0.5


def test_steps_that_are_no_whole_numbers_are_flipped_at_random_and_agree_with_all_flips() -> None:
    steps = [0.31, -0.12, 0.44, 0.2, 0.05, -0.4, 0.33, 0.27]
    flips = [sum(sign * step for sign, step in zip(signs, steps, strict=True)) for signs in product((-1, 1), repeat=8)]
    wanted = sum(abs(flip) >= abs(sum(steps)) - 1e-12 for flip in flips) / len(flips)
    found = sign_flip_p(steps, [str(n) for n in range(8)])
    assert found == pytest.approx(wanted, abs=0.02)
    assert found == sign_flip_p(steps, [str(n) for n in range(8)])


def test_what_no_random_flip_reaches_is_rare_and_not_impossible() -> None:
    """Forty steps of one sign: 2 of 2^40 flips go as far, and of 99 random ones only the observed one does."""
    assert sign_flip_p([0.3] * 40, [str(n) for n in range(40)], flips=99) == 1 / 100


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_false_discoveries_are_controlled_as_scipy_does(p_values: list[float]) -> None:
    assert benjamini_hochberg(p_values) == pytest.approx(list(stats.false_discovery_control(p_values)))


@pytest.mark.parametrize("cluster_of", [lambda n: n // 2, lambda n: int(n**0.5)], ids=["of one size", "of many sizes"])
def test_any_statistic_of_single_rows_has_the_interval_of_the_mean(cluster_of: Callable[[int], int]) -> None:
    """Of rows, too, where clusters differ in size and in their means: a mean of the clusters' means is another figure."""
    values = np.random.default_rng(1).normal(np.arange(80) / 20)
    clusters = [str(cluster_of(n)) for n in range(80)]
    found = bootstrap_interval(lambda index: float(values[index].mean()), clusters, resamples=4000)
    wanted = cluster_bootstrap(values.tolist(), clusters)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_as_many_clusters_as_needed_show_the_difference_four_times_in_five() -> None:
    """Independent oracle: draw experiments of that size, and count how often a z-test at 5 % sees the difference."""
    rng = np.random.default_rng(0)
    pilot = rng.choice([-1.0, 0.0, 1.0], size=4000, p=[0.15, 0.6, 0.25])
    needed = clusters_needed(pilot.tolist(), [str(n) for n in range(4000)], 0.1)
    experiments = rng.choice([-1.0, 0.0, 1.0], size=(2000, needed), p=[0.15, 0.6, 0.25])
    z = experiments.mean(axis=1) / (experiments.std(axis=1, ddof=1) / needed**0.5)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.03)


def test_clusters_needed_by_hand() -> None:
    """Means −1 and 1 have the variance 2 (of a sample): (1.95996 + 0.84162)² · 2 / 0.5² = 62.8."""
    assert clusters_needed([-1.0, 1.0], ["a", "b"], 0.5) == 63


def test_no_change_among_few_rows_still_asks_for_more() -> None:
    """With 20 prompts of which none changed, the variance is taken to be 1/20."""
    assert clusters_needed([0.0] * 20, [str(n) for n in range(20)], 0.1) == 40


@pytest.mark.parametrize(
    "call", [lambda: sign_flip_p([], []), lambda: clusters_needed([1.0], ["a"], 0), lambda: bootstrap_interval(float, [])]
)
def test_nothing_is_not_tested(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"steps in|no rows"):
        call()


def test_the_bootstrap_is_scipys_where_every_cluster_has_one_answer() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 80)
    found = cluster_bootstrap(values.tolist(), [str(n) for n in range(80)])
    wanted = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2))
    assert (found.low, found.high) == pytest.approx((wanted.confidence_interval.low, wanted.confidence_interval.high), abs=0.02)


def test_answers_to_one_prompt_do_not_count_as_new_evidence() -> None:
    values, clusters = [0.0, 1.0] * 10, [str(n) for n in range(20)]
    once = cluster_bootstrap(values, clusters)
    often = cluster_bootstrap(values * 5, clusters * 5)
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-12)
    taken_for_independent = cluster_bootstrap(values * 5, [str(n) for n in range(100)])
    assert taken_for_independent.high - taken_for_independent.low < 0.6 * (once.high - once.low)


def test_a_share_of_rows_that_go_together_is_as_unsure_as_one_of_their_clusters() -> None:
    bad, clusters = [True, False, False, False] * 5, ["a", "b", "c", "d"] * 5
    assert cluster_share_interval(bad, clusters) == wilson_interval(1, 4)
    assert cluster_share_interval(bad, [str(n) for n in range(20)]) == wilson_interval(5, 20)
    with pytest.raises(ValueError, match="2 rows in 1 named"):
        cluster_share_interval([True, False], ["a"])


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        intervals = cluster_bootstrap((draw.random(60) < 0.4).astype(float).tolist(), [str(n) for n in range(60)])
        hits += intervals.low <= 0.4 <= intervals.high
    assert 0.88 <= hits / 200 <= 0.99


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.integers(0, 3))
def test_the_bootstrap_is_a_function_of_its_seed_and_stays_between_the_values(values: list[float], seed: int) -> None:
    clusters = [str(n % 7) for n in range(len(values))]
    found = cluster_bootstrap(values, clusters, seed=seed)
    assert found == cluster_bootstrap(values, clusters, seed=seed)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_the_bootstrap_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 values"):
        cluster_bootstrap([], [])
    with pytest.raises(ValueError, match="2 values in 1 "):
        cluster_bootstrap([1.0, 0.0], ["a"])


@given(p_values=st.lists(st.floats(0.0, 1.0), max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    """Holm 1979: go up the sorted p-values and stop at the first with p > alpha / (n − k + 1)."""
    corrected = holm(p_values)
    assert all(0.0 <= p <= 1.0 for p in corrected)
    for alpha in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for k, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] * (len(p_values) - k) > alpha:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(corrected) if p <= alpha} == rejected


def test_a_nested_bootstrap_is_the_one_of_a_naive_loop() -> None:
    rng = np.random.default_rng(3)
    groups = [str(g) for g in range(4) for _ in range(30)]
    clusters = [str(c // 2) for _ in range(4) for c in range(30)]
    values = [float(v) for v in rng.normal(np.repeat([0.0, 1.0, 2.0, 5.0], 30))]
    members = {g: {c: [] for c in set(clusters)} for g in set(groups)}
    for value, group, cluster in zip(values, groups, clusters, strict=True):
        members[group][cluster].append(value)
    means: list[float] = []
    for _ in range(3000):
        drawn: list[float] = []
        for group in rng.choice(sorted(members), 4):
            for cluster in rng.choice(sorted(members[group]), len(members[group])):
                drawn += members[group][cluster]
        means.append(float(np.mean(drawn)))
    low, high = np.quantile(means, [0.025, 0.975])
    found = nested_bootstrap(values, groups, clusters)
    assert found.low == pytest.approx(low, abs=0.15)
    assert found.high == pytest.approx(high, abs=0.15)
    # What all prompts of a training have in common is not forgotten.
    prompts_alone = cluster_bootstrap(values, [f"{group}/{cluster}" for group, cluster in zip(groups, clusters, strict=True)])
    assert found.high - found.low > 2 * (prompts_alone.high - prompts_alone.low)


def test_a_nested_bootstrap_of_one_group_is_that_of_its_clusters() -> None:
    values, clusters = [float(v % 3) for v in range(60)], [str(v // 2) for v in range(60)]
    one, other = nested_bootstrap(values, ["only"] * 60, clusters), cluster_bootstrap(values, clusters)
    assert one.low == pytest.approx(other.low, abs=0.03)
    assert one.high == pytest.approx(other.high, abs=0.03)


@pytest.mark.parametrize(("sd", "least", "most"), [(0.0, 0.95, 1.0), (0.1, 0.86, 0.96)])
def test_a_nested_bootstrap_of_three_trainings_holds_the_truth_about_as_often_as_the_studys_page_says(
    monkeypatch: pytest.MonkeyPatch, sd: float, least: float, most: float
) -> None:
    """400 studies are told to differ from 98 and 91 % by chance no more than three standard errors."""
    monkeypatch.setattr("cai.statistics.RESAMPLES", 400)
    rng, change, of, studies = np.random.default_rng(1), -0.3, 60, 400
    groups, clusters = [str(g) for g in range(3) for _ in range(of)], [str(c) for _ in range(3) for c in range(of)]
    held = 0
    for study in range(studies):
        shares = np.clip(0.9 + change + rng.normal(0, sd, size=3), 0.02, 0.98)
        steps = (rng.random((3, of)) < shares[:, None]).astype(float) - (rng.random((3, of)) < 0.9)
        found = nested_bootstrap(steps.ravel().tolist(), groups, clusters, seed=study)
        held += found.low <= change <= found.high
    assert least <= held / studies <= most


def test_a_nested_bootstrap_refuses_rows_without_a_group() -> None:
    with pytest.raises(ValueError, match="named groups"):
        nested_bootstrap([1.0], [], ["a"])
