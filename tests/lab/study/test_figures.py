"""What finished cells come to, worked out by hand."""

from __future__ import annotations

import pytest
from lab_cells import answered, cell

from cai.lab.study.cells import Divergence, Labelled
from cai.lab.study.figures import question_figures, recipe_figures
from cai.lab.study.recipes import DEFAULT, PLAIN, chosen_questions

BETA = DEFAULT.model_copy(update={"beta": 0.3})


def test_changes_are_against_the_plain_model_and_against_the_default_on_the_same_prompts() -> None:
    """Two faults of three are mended by one recipe, one by the default; a control gets worse under both."""
    faults = [("a", "wrong"), ("b", "unsure"), ("c", "harm")]
    control = answered("d", "benign", "good", "bad")
    default = cell(answers=(*(answered(u, b, "bad", "good" if u == "a" else "bad") for u, b in faults), control))
    other = cell(BETA, answers=(*(answered(u, b, "bad", "bad" if u == "c" else "good") for u, b in faults), control))
    found = recipe_figures([other], [default])
    assert found.bad == {"fault": pytest.approx(1 / 3), "control": 1.0}
    assert found.change["fault"].value == pytest.approx(-2 / 3)
    assert found.change["control"].value == 1.0
    assert found.against_default is not None
    assert found.against_default["fault"].value == pytest.approx(-1 / 3)
    assert found.against_default["control"].value == 0.0
    assert (found.by_behaviour["wrong"].before, found.by_behaviour["wrong"].after) == (1.0, 0.0)
    assert found.by_behaviour["benign"].change.value == 1.0
    assert found.words == (20.0, 10.0)


def test_only_seeds_that_both_have_are_compared_with_the_default() -> None:
    default = cell(seed=0, answers=(answered("a", "wrong", "bad", "bad"), answered("d", "benign", "good", "good")))
    others = [
        cell(BETA, seed, (answered("a", "wrong", "bad", "good"), answered("d", "benign", "good", "good"))) for seed in (0, 1)
    ]
    assert recipe_figures(others, [default]).against_default == recipe_figures(others[:1], [default]).against_default
    assert recipe_figures(others[1:], [default]).against_default is None


def test_broken_answers_are_no_bad_ones_and_are_counted_apart() -> None:
    answers = (answered("a", "wrong", "bad", "broken"), answered("d", "benign", "good", "good"))
    found = recipe_figures([cell(answers=answers)], [])
    assert found.bad["fault"] == 0.0
    assert found.broken == (0.0, 0.5)


def test_the_distance_from_the_start_is_nats_over_tokens_of_all_answers_together() -> None:
    answers = (answered("a", "wrong", "bad", "good"), answered("d", "benign", "good", "good"))
    divergences = (Divergence(uid="a", nats=6.0, tokens=10), Divergence(uid="d", nats=1.0, tokens=4))
    found = recipe_figures([cell(answers=answers, divergences=divergences)], [])
    assert found.nats_per_token is not None
    assert found.nats_per_token.value == pytest.approx(7 / 14)


def test_labels_are_right_where_they_go_the_way_of_the_truth_and_only_told_pairs_count() -> None:
    answers = (answered("a", "wrong", "bad", "good"), answered("d", "benign", "good", "good"))
    labels = tuple(
        Labelled(uid=str(number), margin_nats=margin, p_first=0.5, truth=truth)
        for number, (margin, truth) in enumerate([(2.0, 1), (-1.0, -1), (3.0, -1), (0.0, 1), (5.0, 0)])
    )
    found = recipe_figures([cell(answers=answers, labels=labels)], [])
    assert found.right is not None
    assert (found.right.count, found.right.of) == (2, 4)


def test_the_plain_model_has_its_figures_from_the_cells_of_the_default() -> None:
    answers = (answered("a", "wrong", "bad", "good"), answered("d", "benign", "good", "good"))
    plain = question_figures(chosen_questions(["rounds"])[0], [cell(answers=answers)])[0]
    assert plain.variant.recipe == PLAIN
    assert plain.figures is not None
    assert plain.figures.bad["fault"] == 1.0
    assert plain.figures.change["fault"].value == 0.0
    assert plain.figures.against_default is not None
    assert plain.figures.against_default["fault"].value == 1.0


def test_what_came_to_no_model_is_told_with_its_seeds_on_one_line() -> None:
    failed = [cell(BETA, seed, failure="there is no pair\nto train on") for seed in (0, 2)]
    of_beta = question_figures(chosen_questions(["beta"])[0], failed)
    found = next(each for each in of_beta if each.variant.recipe == BETA)
    assert found.figures is None
    assert found.failures == ("seeds 0, 2: there is no pair to train on",)
