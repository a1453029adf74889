"""Several people's verdicts → one opinion, and how far people agree."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cai.records import Judgement
from cai.review.opinions import Opinion, opinions, reviewer_agreement
from tests.review.reviewed_runs import pair, unchanged, verdict

A, B, TIE, BAD, SKIP = Judgement.FIRST, Judgement.SECOND, Judgement.TIE, Judgement.BOTH_BAD, Judgement.SKIP


def opinion_of(*said: Judgement) -> Opinion:
    return Opinion(tuple(verdict(pair("p"), each, f"person {n}") for n, each in enumerate(said)))


@pytest.mark.parametrize(
    ("said", "p_first", "unfit", "conflict"),
    [
        ((A,), 1.0, False, False),
        ((A, B), 0.5, False, True),
        ((A, A, B), 2 / 3, False, True),
        ((A, TIE), 0.75, False, False),
        ((B, B), 0.0, False, False),
        ((BAD,), 0.5, True, False),
        ((BAD, A), 0.75, True, True),
        ((BAD, A, A), 2.5 / 3, False, True),
    ],
)
def test_disagreement_makes_an_opinion_soft(said: Sequence[Judgement], p_first: float, unfit: bool, conflict: bool) -> None:
    opinion = opinion_of(*said)
    assert opinion.p_first == pytest.approx(p_first)
    assert (opinion.unfit, opinion.conflict, opinion.reviewers) == (unfit, conflict, len(said))


def test_a_skip_is_no_opinion() -> None:
    assert opinions([verdict(pair("p"), SKIP)]) == {}
    found = opinions([verdict(pair("p"), SKIP), verdict(pair("p"), A, "Bob")])
    assert [each.reviewers for each in found.values()] == [1]


def test_of_a_single_answer_there_is_no_preference() -> None:
    opinion = Opinion((verdict(unchanged("u"), Judgement.GOOD), verdict(unchanged("u"), Judgement.BAD, "Bob")))
    assert opinion.p_first is None
    assert opinion.unfit
    assert opinion.conflict


def naive_alpha(units: Sequence[Sequence[Judgement]]) -> float:
    """Krippendorff's alpha, nominal, from its definition: 1 − observed / expected disagreement over pairs of values."""
    values = [value for unit in units for value in unit]
    n = len(values)
    observed = sum(
        sum(a != b for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j) / (len(unit) - 1) for unit in units
    )
    expected = sum(a != b for i, a in enumerate(values) for j, b in enumerate(values) if i != j) / (n - 1)
    return 1 - observed / expected


def test_agreement_of_people_is_that_of_the_definitions() -> None:
    rows = [(A, A), (A, B), (B, B), (TIE, TIE), (A, TIE), (BAD, BAD), (B, B), (A, A)]
    found = opinions(
        verdict(pair(f"p{n}"), said, who) for n, row in enumerate(rows) for said, who in zip(row, ("Ann", "Bob"), strict=True)
    )
    agreement = reviewer_agreement(found)
    assert agreement is not None
    assert agreement.pairs == 8
    assert agreement.agreeing_share == pytest.approx(6 / 8)
    assert agreement.alpha == pytest.approx(naive_alpha(rows))
    # Cohen's kappa by hand: Ann A4 B2 T1 X1, Bob A2 B3 T2 X1 of 8.
    expected = (4 * 2 + 2 * 3 + 1 * 2 + 1 * 1) / 64
    assert agreement.kappa == pytest.approx((6 / 8 - expected) / (1 - expected))


def test_three_people_have_no_kappa_and_no_double_review_no_agreement() -> None:
    found = opinions([verdict(pair("p"), A, who) for who in ("Ann", "Bob", "Cy")])
    agreement = reviewer_agreement(found)
    assert agreement is not None
    assert (agreement.agreeing_share, agreement.alpha, agreement.kappa) == (1.0, None, None)
    assert reviewer_agreement(opinions([verdict(pair("p"), A)])) is None
