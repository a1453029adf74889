"""What is read from metric lines."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cai.training.symptoms import FEWEST_PAIRS, length_correlation, symptoms

Pair = tuple[int, int, float]
"""Tokens of the chosen reply, of the rejected one, reward margin."""
PAIRS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60), st.floats(-8, 8)), min_size=6, max_size=6)


def line(step: int, pairs: list[Pair], **more: float) -> dict[str, float]:
    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return {
        "step": step,
        "rewards/margins": mean([m for _, _, m in pairs]),
        "rewards/accuracies": mean([float(m > 0) for _, _, m in pairs]),
        "length/chosen": mean([c for c, _, _ in pairs]),
        "length/rejected": mean([r for _, r, _ in pairs]),
        "length_margin/product": mean([(c - r) * m for c, r, m in pairs]),
        "length_margin/length_squared": mean([(c - r) ** 2 for c, r, _ in pairs]),
        "length_margin/margin_squared": mean([m * m for _, _, m in pairs]),
        **more,
    }


@given(st.lists(PAIRS, min_size=4, max_size=4))
def test_the_correlation_is_the_one_over_all_pairs_of_the_steps(steps: list[list[Pair]]) -> None:
    """Also where a line averages over more steps than its neighbour."""
    pairs = [pair for step in steps[1:] for pair in step]
    lengths, margins = [float(c - r) for c, r, _ in pairs], [m for _, _, m in pairs]
    assume(statistics.pstdev(lengths) > 0.1 and statistics.pstdev(margins) > 0.01)
    lines = [line(1, steps[0]), line(2, steps[1]), line(4, [*steps[2], *steps[3]])]
    found = length_correlation(lines, 1, 4)
    assert found == pytest.approx(statistics.correlation(lengths, margins), abs=1e-6)


def test_without_variation_there_is_no_correlation() -> None:
    assert length_correlation([line(1, [(9, 4, 0.3), (12, 7, 0.4)])], 0, 1) is None
    assert length_correlation([line(1, [(9, 4, 0.3), (12, 4, 0.3)])], 0, 1) is None
    assert length_correlation([{"step": 1, "nll/replies": 2.0}], 0, 1) is None


HEALTHY: list[Pair] = [(9, 9, 1.0), (4, 9, 1.2), (9, 4, 1.2), (7, 7, -0.5)]
BY_LENGTH: list[Pair] = [(9, 3, 1.0), (9, 1, 1.3), (4, 9, -0.2), (7, 7, 0.4)]


def found(*lines: dict[str, float], steps_per_epoch: int = 1, pairs: int = 40) -> list[str]:
    return symptoms(lines, steps_per_epoch=steps_per_epoch, pairs=pairs)


def test_a_healthy_run_has_none() -> None:
    assert found(line(1, HEALTHY, **{"drift/chosen": -0.1, "satisfied": 0.4})) == []
    assert found() == []


@pytest.mark.parametrize(
    ("drift", "margins", "satisfied", "said"),
    [
        (-0.4, HEALTHY, 0.2, "lost 0.40 nats a token against the reference"),
        (0.0, [(5, 5, 6.5), (4, 6, 6.4), (6, 4, 6.4)], 0.2, "margins are saturated (mean 6.4)"),
        (0.0, HEALTHY, 0.97, "97% of the pairs have the margin"),
        (0.0, [(5, 5, -1.0), (4, 6, 0.5), (6, 4, -0.4)], 0.2, "fewer than half"),
        (0.0, BY_LENGTH, 0.2, "of how margins differ (the longer the chosen reply, the larger)"),
        (0.0, [(r, c, m) for c, r, m in BY_LENGTH], 0.2, "(the shorter the chosen reply, the larger)"),
    ],
)
def test_each_symptom_is_told_alone(drift: float, margins: list[Pair], satisfied: float, said: str) -> None:
    (only,) = found(line(1, margins, **{"drift/chosen": drift, "satisfied": satisfied}))
    assert said in only


def test_few_pairs_say_nothing_of_length() -> None:
    assert found(line(1, BY_LENGTH), pairs=FEWEST_PAIRS - 1) == []


def test_only_the_last_epoch_counts() -> None:
    bad, good = {"drift/chosen": -0.9}, {"drift/chosen": 0.0}
    lines = [line(1, HEALTHY, **bad), line(2, HEALTHY, **bad), line(3, HEALTHY, **good), line(4, HEALTHY, **good)]
    assert found(*lines, steps_per_epoch=2) == []
    assert len(found(*lines[2:], *({**each, "step": each["step"] + 4} for each in lines[:2]), steps_per_epoch=2)) == 1


def test_without_a_reference_the_fall_is_the_one_since_the_first_epoch() -> None:
    lines = [line(step, HEALTHY, **{"logps_per_token/chosen": -1.0 - 0.2 * step}) for step in (1, 2, 3, 4)]
    assert found(*lines[:2]) == []
    (only,) = found(*lines, steps_per_epoch=2)
    assert "lost 0.40 nats a token between the first epoch and the last" in only
    assert found(*lines, steps_per_epoch=4) == []
