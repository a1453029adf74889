"""Intervals and tests against scipy's, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cai.evaluation.statistics import cluster_bootstrap, holm, mcnemar_p, wilson_interval

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


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(better: int, worse: int) -> None:
    changed = better + worse
    wanted = stats.binomtest(better, changed, 0.5).pvalue if changed else 1.0
    assert mcnemar_p(better, worse) == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    """Six of six got better: 2 · (1/2)^6 = 1/32."""
    assert mcnemar_p(6, 0) == mcnemar_p(0, 6) == 0.03125
    assert mcnemar_p(3, 3) == 1.0


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
    for alpha in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for k, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] * (len(p_values) - k) > alpha:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(corrected) if p <= alpha} == rejected
