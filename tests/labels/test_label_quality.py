"""What a label run says of its labeller: figures worked out by hand or by a naive loop, whatever the order of the pairs."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from compared_pairs import compared
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cai.labels import LabelTally
from cai.labels.agreement import MOST_UNITS, AgreementTally
from cai.labels.shares import Share
from cai.records import ComparedPair

UNSURE = "the judge does not know"


def quality_of(pairs: list[ComparedPair]):
    tally = LabelTally()
    for each in pairs:
        tally.add(each)
    return tally.quality()


def test_position_bias_is_half_the_sum_of_both_orders_and_is_counted_on_undecided_pairs_too() -> None:
    """Margins speak of the first answer: in the second order, A is the second one, so its log-odds have the other sign."""
    pairs = [
        compared("a", {"kind": (3.0, 1.0)}, method="letters"),  # A: 3, then −1: bias 1
        compared("b", {"kind": (2.0, -2.0)}, method="letters", reason=UNSURE),  # A: 2 and 2: bias 2, the same letter
        compared("c", {"kind": (-1.0, 4.0)}, method="letters"),  # A: −1 and −4: bias −2.5, the same letter (B)
    ]
    quality = quality_of(pairs)
    biases = [1.0, 2.0, -2.5]
    assert quality.mean_position_bias_nats == pytest.approx(np.mean(biases))
    assert quality.position_bias_spread_nats == pytest.approx(np.std(biases))
    assert quality.same_slot_share == Share.of(2, 3)
    assert quality.named_a_share == pytest.approx(3 / 6)
    assert quality.undecided_reasons == {UNSURE: 1}
    assert quality.agreement_of_orders is not None
    assert quality.agreement_of_orders.agreeing_share == pytest.approx(1 / 3)


def test_of_a_method_that_asks_for_no_word_nothing_is_said_of_other_words() -> None:
    assert quality_of([compared("a", {"kind": (1.0,)}, method="contrast")]).mean_mass_outside is None
    assert quality_of([compared("a", {"kind": (1.0,)}, method="yes_no")]).mean_mass_outside == 0.0


def test_a_pair_names_a_letter_by_all_its_principles_together_and_each_principle_by_itself() -> None:
    pairs = [compared("a", {"kind": (3.0, -1.0), "brief": (1.0, 3.0)}, method="letters")]
    quality = quality_of(pairs)
    assert quality.same_slot_share == Share.of(0, 1)
    assert {each.principle_id: each.same_slot for each in quality.principles} == {
        "brief": Share.of(0, 1),
        "kind": Share.of(1, 1),
    }


def test_a_principle_conflicts_where_it_prefers_the_answer_that_all_together_do_not() -> None:
    pairs = [
        compared("a", {"kind": (3.0,), "brief": (-1.0,)}),
        compared("b", {"kind": (-2.0,), "brief": (-1.0,)}),
        compared("c", {"kind": (1.0,)}),  # alone: it cannot disagree
    ]
    kind = next(each for each in quality_of(pairs).principles if each.principle_id == "kind")
    brief = next(each for each in quality_of(pairs).principles if each.principle_id == "brief")
    assert (kind.pairs, kind.conflicts, kind.agreeing) == (3, 0, Share.of(2, 2))
    assert kind.mean_margin_nats == pytest.approx((3 + 2 + 1) / 3)
    assert (brief.pairs, brief.conflicts, brief.agreeing) == (2, 1, Share.of(1, 2))
    assert brief.mean_margin_nats == pytest.approx((-1 + 1) / 2)


def test_several_models_are_compared_with_each_other() -> None:
    def other(uid: str, margin: float) -> dict[str, object]:
        return {
            "uid": uid,
            "labeller": 1,
            "principle_id": "kind",
            "method": "pointwise",
            "order": "none",
            "margin_nats": margin,
        }

    pairs = [
        compared(uid, {"kind": (margin,)}, more=[other(uid, margin * sign)])
        for uid, margin, sign in (("a", 1.0, 1), ("b", -2.0, 1), ("c", 2.0, -0.5), ("d", 1.0, 3))
    ]
    found = quality_of(pairs).agreement_of_labellers
    assert found is not None
    assert (found.pairs, found.agreeing_share) == (4, 0.75)
    assert quality_of(pairs).agreement_of_principles is None


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400), st.floats(-20, 20)), min_size=4, max_size=40))
def test_length_bias_is_that_of_an_ordinary_regression(rows: list[tuple[int, int, float]]) -> None:
    pairs = [
        compared(str(n), {"kind": (margin,)}, first="x" * one, second="y" * other, reason=UNSURE)
        for n, (one, other, margin) in enumerate(rows)
    ]
    x = [math.log2(one / other) for one, other, _ in rows]
    y = [margin for _, _, margin in rows]
    quality = quality_of(pairs)
    if np.var(x) < 1e-6 or np.var(y) < 1e-6:
        return
    slope, _intercept, correlation, *_ = stats.linregress(x, y)
    assert quality.margin_per_doubling_nats == pytest.approx(slope, rel=1e-5, abs=1e-6)
    assert quality.length_correlation == pytest.approx(correlation, abs=1e-5)


def test_the_interval_of_a_correlation_is_fishers() -> None:
    generator = random.Random(0)
    x = [generator.gauss(0, 1) for _ in range(60)]
    y = [value + generator.gauss(0, 1) for value in x]
    pairs = [
        compared(str(n), {"kind": (margin,)}, first="x" * round(100 * 2**size), second="y" * 100, reason=UNSURE)
        for n, (size, margin) in enumerate(zip(x, y, strict=True))
    ]
    quality = quality_of(pairs)
    expected = stats.pearsonr([math.log2(round(100 * 2**size) / 100) for size in x], y).confidence_interval(0.95)
    interval = quality.length_correlation_interval
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


_MARGINS = st.floats(-30, 30, allow_nan=False).map(lambda value: value / 7)


@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("pqr"), st.tuples(_MARGINS, _MARGINS), min_size=1), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_pairs_in_any_order_give_the_same_figures_to_the_last_digit(
    rows: list[tuple[dict[str, tuple[float, float]], bool]], generator: random.Random
) -> None:
    """Merged shards are summed up in another order than the run of all rows."""
    pairs = [
        compared(str(n), margins, method="letters", first="x" * (n + 1), reason=UNSURE if undecided else "")
        for n, (margins, undecided) in enumerate(rows)
    ]
    shuffled = list(pairs)
    generator.shuffle(shuffled)
    assert quality_of(pairs).model_dump_json() == quality_of(shuffled).model_dump_json()


# ---- agreement


def _alpha(units: list[tuple[float, ...]]) -> float:
    """Krippendorff's nominal alpha, pair by pair, as his textbook defines it (Content Analysis, 2004)."""
    values = [[value > 0 for value in unit] for unit in units]
    all_values = [value for unit in values for value in unit]
    n = len(all_values)
    observed = sum(sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in values) / n
    expected = sum(a != b for a, b in itertools.permutations(all_values, 2)) / (n * (n - 1))
    return 1 - observed / expected


@given(st.lists(st.lists(st.sampled_from([-1.0, 2.0]), min_size=2, max_size=4).map(tuple), min_size=2, max_size=20))
def test_alpha_is_that_of_its_definition(units: list[tuple[float, ...]]) -> None:
    tally = AgreementTally()
    for unit in units:
        tally.add(unit)
    found = tally.agreement()
    assert found is not None
    if len({value for unit in units for value in unit}) == 1:
        assert found.alpha is None
        assert found.agreeing_share == 1
    else:
        assert found.alpha == pytest.approx(_alpha(units))


def test_a_single_judgement_and_one_without_a_side_are_no_agreement() -> None:
    tally = AgreementTally()
    tally.add([1.0])
    tally.add([1.0, 0.0])
    assert tally.agreement() is None


def test_alpha_of_very_many_pairs_is_that_of_fewer_in_the_same_proportion() -> None:
    few, many = AgreementTally(), AgreementTally()
    mixtures = [([1, 1], 50), ([1, -1], 20), ([-1, -1], 30)]
    for margins, count in mixtures:
        for _ in range(count):
            few.add(margins)
        for _ in range(count * MOST_UNITS // 50):
            many.add(margins)
    one, other = few.agreement(), many.agreement()
    assert one is not None
    assert other is not None
    assert one.alpha is not None
    assert other.alpha == pytest.approx(one.alpha, abs=0.01)  # the correction for small numbers differs
    assert other.pairs == 2 * MOST_UNITS
