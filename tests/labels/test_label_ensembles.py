"""Ensembles: many principles and several models become one label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from candidate_answers import BOTH, chain, graded, settings, two
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cai.engines.base import GenerationRequest, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.labels import (
    LabelSettings,
    MarginScales,
    label_candidates,
    margin_scales,
    pair_margin,
    run_labels,
)
from cai.models.spec import ModelSpec
from cai.records import ComparisonRecord


def heard(*margins: tuple[int, str, float]) -> list[ComparisonRecord]:
    return [
        ComparisonRecord(uid="x", labeller=n, principle_id=p, method="pointwise", order="none", margin_nats=m)
        for n, p, m in margins
    ]


def test_margins_are_averaged_over_principles_then_over_models() -> None:
    """Model 0: (2 + 4)/2 = 3; model 1: −1 under one principle; together 1."""
    assert pair_margin(heard((0, "kind", 2.0), (0, "brief", 4.0), (1, "kind", -1.0))) == pytest.approx(1.0)


def test_principles_weigh_what_their_files_say() -> None:
    """(3 · 2 + 1 · 4) / 4 = 2.5."""
    found = pair_margin(heard((0, "kind", 2.0), (0, "brief", 4.0)), "weighted", weights={"kind": 3.0, "brief": 1.0})
    assert found == pytest.approx(2.5)


def test_a_loud_principle_does_not_decide_alone_when_margins_are_normalised() -> None:
    """Scales 10 and 1: 5/10 − 1/1 = −0.5 in units, whose mean −0.25 is given back the typical scale 5.5."""
    comparisons = heard((0, "loud", 5.0), (0, "soft", -1.0))
    assert pair_margin(comparisons) == pytest.approx(2.0)
    found = pair_margin(comparisons, "normalised", scales={(0, "loud"): 10.0, (0, "soft"): 1.0})
    assert found == pytest.approx(-0.25 * 5.5)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=20), st.floats(0.1, 10))
def test_scales_are_root_mean_squares_and_do_not_know_which_answer_came_first(margins: list[float], factor: float) -> None:
    straight, turned = MarginScales(), MarginScales()
    for n, margin in enumerate(margins):
        straight.add(heard((0, "kind", margin), (1, "kind", factor * margin)))
        turned.add(heard((0, "kind", -margin if n % 2 else margin), (1, "kind", factor * margin)))
    expected = math.sqrt(sum(m * m for m in margins) / len(margins))
    assert straight.result() == pytest.approx({(0, "kind"): expected, (1, "kind"): factor * expected})
    assert turned.result() == pytest.approx(straight.result())


def test_several_models_judge_every_pair_and_each_is_recorded() -> None:
    """+3 and −1: a margin of 1 nat; the draft is judged by its own ground where the critic labels alone, and anew else."""
    engines = [graded({"draft": 0.0, "revision": 3.0}), graded({"draft": 1.0, "revision": 0.0})]
    models = (ModelSpec(name="one"), ModelSpec(name="other"))
    (made,) = run_labels([chain("draft", "revision")], BOTH, engines, settings("pointwise", models=models), seed=0)
    assert made.pairs[0].margin_nats == pytest.approx(1.0)
    assert [(c.labeller, c.margin_nats) for c in made.pairs[0].comparisons] == [(0, 3.0), (1, -1.0)]
    for engine in engines:
        assert len([each for each in engine.asked if isinstance(each, GenerationRequest)]) == 2


def by_place(margins: dict[str, tuple[float, float]], outside: dict[str, float] | None = None) -> ScriptedEngine:
    """A judge by letters: principle → margins for "first" where it stands first, and where it stands second."""

    def score(request: ScoreRequest) -> tuple[float, ...]:
        text = request.messages[-1].content
        (name,) = (name for name in margins if f"Principle: {name}" in text)
        straight, swapped = margins[name]
        p_a = 1 / (1 + math.exp(-(straight if "Reply A:\nfirst" in text else -swapped)))
        inside = 1 - (outside or {}).get(name, 0.0)
        return tuple(math.log(inside * p / 2) for p in (p_a, p_a, 1 - p_a, 1 - p_a))

    return ScriptedEngine({}, score)


@pytest.mark.parametrize(
    ("ensemble", "kind", "brief", "agreed"),
    [
        ("mean", (3.0, -1.0), (1.0, 2.0), True),  # kindness contradicts itself; together 2 and 0.5
        ("mean", (2.0, 2.0), (-1.0, -1.0), True),  # principles contradict each other; orders do not
        ("mean", (1.0, 1.0), (2.0, -2.0), False),  # 1.5 and −0.5
        ("weighted", (1.0, 1.0), (2.0, -2.0), True),  # kindness counts three times: 1.25 and 0.25
        ("normalised", (1.0, 1.0), (2.0, -2.0), True),  # brevity is ten times as loud: in units 1.2 and 0.8
        ("mean", (1.0, 0.0), (0.0, 0.0), True),  # an order that prefers neither answer contradicts nothing
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_orders_agree_or_not_by_all_principles_together_as_the_ensemble_has_it(
    ensemble: str, kind: tuple[float, float], brief: tuple[float, float], agreed: bool, turned: bool
) -> None:
    """Story: orders were added up without weights and scales, and (1, 0) was a contradiction while (−1, 0) was none."""
    sign = -1.0 if turned else 1.0
    engine = by_place({name: (sign * m[0], sign * m[1]) for name, m in (("Be kind.", kind), ("Be brief.", brief))})
    chosen = settings("letters", ensemble=ensemble, require_agreement=True)
    scales = {(0, "kind"): 1.0, (0, "brief"): 10.0}
    (made,) = label_candidates([two("first", "second", BOTH.principles)], [engine], chosen, seed=0, scales=scales)
    assert bool(made.pairs) == agreed
    assert agreed or made.entry.reason == "undecided: the two orders contradict each other"


def test_orders_agree_or_not_by_all_models_together() -> None:
    """One model names a place, the other is surer of an answer: 0.5 · (2 + 3) and 0.5 · (−2 + 3)."""
    place, answer = by_place({"Be kind.": (2.0, -2.0)}), by_place({"Be kind.": (3.0, 3.0)})
    chosen = settings("letters", require_agreement=True)
    assert not label_candidates([two("first", "second")], [place, by_place({"Be kind.": (1.0, 1.0)})], chosen, seed=0)[0].pairs
    (pair,) = label_candidates([two("first", "second")], [place, answer], chosen, seed=0)[0].pairs
    assert pair.margin_nats == pytest.approx(1.5)


@pytest.mark.parametrize(("of_kind", "of_brief", "decided"), [(0.9, 0.2, False), (0.9, 0.05, True), (0.5, 0.5, True)])
def test_what_goes_to_other_words_is_limited_in_the_mean_of_all_comparisons(
    of_kind: float, of_brief: float, decided: bool
) -> None:
    outside = {"Be kind.": of_kind, "Be brief.": of_brief}
    engine = by_place({"Be kind.": (2.0, 2.0), "Be brief.": (2.0, 2.0)}, outside)
    chosen = settings("letters", max_mass_outside=0.5 + 1e-9)
    (made,) = label_candidates([two("first", "second", BOTH.principles)], [engine], chosen, seed=0)
    assert bool(made.pairs) == decided
    assert decided or made.entry.reason == "undecided: the judge answers with other words"
    to_the_word = by_place({"Be kind.": (2.0, 2.0), "Be brief.": (2.0, 2.0)})
    (of_two,) = label_candidates([two("first", "second", BOTH.principles)], [engine, to_the_word], chosen, seed=0)
    assert of_two.pairs, "the other model's comparisons count as well"


def test_one_model_is_no_jury_of_two() -> None:
    with pytest.raises(ValidationError, match="twice"):
        LabelSettings(models=(ModelSpec(name="one"), ModelSpec(name="one")))


def test_the_run_measures_its_scales_before_it_decides() -> None:
    records = [chain("draft", "revision", uid=f"{n}") for n in range(3)]
    engine = graded({"draft": 0.0, "revision": 2.0})
    chosen = settings("pointwise", ensemble="normalised")
    scales = margin_scales(records, BOTH, [engine], chosen, seed=0)
    assert scales == {(0, "kind"): pytest.approx(2.0)}
    made = list(run_labels(records, BOTH, [engine], chosen, seed=0, scales=scales))
    assert [each.pairs[0].margin_nats for each in made] == pytest.approx([2.0] * 3), "one voice is not changed by its own scale"


@given(st.floats(0.01, 30), st.floats(0.2, 5))
def test_a_temperature_softens_labels_and_never_turns_them(margin: float, temperature: float) -> None:
    engine = graded({"first": margin, "second": 0.0})
    (made,) = label_candidates([two("first", "second")], [engine], settings("pointwise", temperature=temperature), seed=0)
    assert made.pairs[0].chosen == "first"
    assert made.pairs[0].p_chosen == pytest.approx(1 / (1 + math.exp(-margin / temperature)))
    assert made.pairs[0].margin_nats == pytest.approx(margin)


def test_progress_over_several_models_counts_on() -> None:
    told: list[tuple[int, int]] = []
    engines: Sequence[Any] = [graded({"first": 1.0, "second": 0.0}) for _ in range(2)]
    label_candidates(
        [two("first", "second")], engines, settings("pointwise", ground_tokens=0), seed=0, on_done=lambda *e: told.append(e)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(not isinstance(each, GenerationRequest) for engine in engines for each in engine.asked), "no ground is written"
