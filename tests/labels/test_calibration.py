"""Calibration: against naive loops, scipy's minimiser and labels whose calibration is known by construction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy

from cai.labels.calibration import (
    GREATEST_TEMPERATURE,
    LEAST_TEMPERATURE,
    calibration,
    fit_temperature,
    tempered,
)

_LABELS = st.lists(st.tuples(st.floats(0.5, 1.0), st.sampled_from([0.0, 1.0, 0.3])), min_size=1, max_size=60)


@given(_LABELS)
def test_ece_brier_and_log_loss_are_those_of_their_definitions(labels: list[tuple[float, float]]) -> None:
    bins: dict[int, list[tuple[float, float]]] = {}
    for p, target in labels:
        bins.setdefault(min(9, int((p - 0.5) * 20 + 1e-9)), []).append((p, target))
    ece = sum(
        len(rows) / len(labels) * abs(sum(p for p, _ in rows) / len(rows) - sum(t for _, t in rows) / len(rows))
        for rows in bins.values()
    )
    found = calibration(np.array([p for p, _ in labels]), np.array([t for _, t in labels]))
    assert found.ece == pytest.approx(ece)
    assert found.brier == pytest.approx(sum((p - t) ** 2 for p, t in labels) / len(labels))
    p_N, t_N = (np.array(values) for values in zip(*labels, strict=True))
    p_N = np.clip(p_N, 1e-12, 1 - 1e-12)
    assert found.log_loss_nats == pytest.approx(-(xlogy(t_N, p_N) + xlogy(1 - t_N, 1 - p_N)).mean())
    assert sum(each.labels for each in found.bins) == len(labels)
    assert found.ece_interval.low <= found.ece_interval.high


def test_labels_that_are_as_right_as_they_are_sure_have_no_error_and_overconfident_ones_have_theirs() -> None:
    p = np.repeat([0.6, 0.8, 0.95], 1000)
    right = np.concatenate([np.arange(1000) < share * 1000 for share in (0.6, 0.8, 0.95)]).astype(float)
    assert calibration(p, right).ece == pytest.approx(0.0, abs=1e-12)
    sure = calibration(np.full(1000, 0.95), (np.arange(1000) < 700).astype(float))
    assert sure.ece == pytest.approx(0.25)
    assert sure.ece_interval.low < 0.25 < sure.ece_interval.high
    # binomial: 1.96·√(0.7·0.3/1000) = 0.0284
    assert sure.ece_interval.high - sure.ece_interval.low == pytest.approx(2 * 0.0284, rel=0.15)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(true_temperature: float) -> None:
    generator = np.random.default_rng(0)
    margins = generator.normal(0, 3, size=20_000)
    right = (generator.random(20_000) < expit(margins / true_temperature)).astype(float)
    assert fit_temperature(margins, right) == pytest.approx(true_temperature, rel=0.05)


@given(st.lists(st.tuples(st.floats(-8, 8), st.sampled_from([0.0, 1.0, 0.7])), min_size=2, max_size=40))
def test_no_other_temperature_has_less_log_loss(rows: list[tuple[float, float]]) -> None:
    margins, targets = (np.array(values) for values in zip(*rows, strict=True))

    def loss(log_t: float) -> float:
        x = margins * np.exp(-log_t)
        return float((np.logaddexp(0, x) - targets * x).mean())

    found = fit_temperature(margins, targets)
    best = minimize_scalar(
        loss, bounds=(np.log(LEAST_TEMPERATURE), np.log(GREATEST_TEMPERATURE)), method="bounded", options={"xatol": 1e-9}
    )
    assert loss(np.log(found) if found else np.log(GREATEST_TEMPERATURE)) <= best.fun + 1e-3 * (found is None) + 1e-7
    if found is None:
        assert float((margins * (targets - 0.5)).sum()) <= 0


def test_a_temperature_makes_labels_less_sure_and_keeps_their_limit() -> None:
    assert tempered(np.array([0.0, 2.0, 50.0]), 2.0, 0.95) == pytest.approx([0.5, expit(1.0), 0.95])


def test_what_is_no_label_is_refused() -> None:
    for p, target in (([], []), ([0.4], [1.0]), ([0.7], [1.2]), ([0.7], [1.0, 0.0])):
        with pytest.raises(ValueError, match="label"):
            calibration(np.array(p), np.array(target))


def test_the_error_of_labels_in_clusters_is_as_uncertain_as_their_clusters() -> None:
    """Oracle: five copies of every label say no more than one; the interval used to shrink by √5."""
    generator = np.random.default_rng(0)
    p = generator.uniform(0.5, 1, 60)
    right = (generator.random(60) < p).astype(float)
    alone = calibration(p, right)
    copies = calibration(np.repeat(p, 5), np.repeat(right, 5), clusters=[f"q{n:02}" for n in range(60) for _ in range(5)])
    assert copies.ece == pytest.approx(alone.ece)
    assert copies.ece_interval.low == pytest.approx(alone.ece_interval.low)
    assert copies.ece_interval.high == pytest.approx(alone.ece_interval.high)
    with pytest.raises(ValueError, match="clusters"):
        calibration(p, right, clusters=["a"])
