"""What the study tries: questions differ from the default in one thing, and cells are told apart by all that decides them."""

from __future__ import annotations

import pytest

from cai.lab.study.recipes import (
    DEFAULT,
    PLAIN,
    PRINCIPLES,
    QUESTIONS,
    Cell,
    Question,
    Size,
    cells_of,
    chosen_questions,
    recipes_of,
)
from constitution.loading import load_constitution

SIZE = Size(items=96, per_behaviour=20)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_every_question_has_the_default_and_recipes_that_differ_from_it_in_one_thing(question: Question) -> None:
    recipes = [variant.recipe for variant in question.variants]
    assert recipes.count(DEFAULT) == 1
    assert len(set(recipes)) == len(recipes)
    for recipe in recipes:
        changed = {name for name in type(recipe).model_fields if getattr(recipe, name) != getattr(DEFAULT, name)}
        assert recipe in (DEFAULT, PLAIN) or len(changed) == 1


def test_the_questions_of_the_issue_are_all_there() -> None:
    assert {question.id for question in QUESTIONS} == {
        "rounds",
        "sft",
        "critique",
        "noise",
        "labels",
        "data",
        "beta",
        "principles",
    }
    of_rounds = next(question for question in QUESTIONS if question.id == "rounds")
    assert [variant.recipe.rounds for variant in of_rounds.variants] == [0, 1, 2, 3, 4]


def test_the_principles_that_are_named_are_shipped() -> None:
    assert set(PRINCIPLES) <= set(load_constitution(["shipped"]).ids)


def test_the_default_comes_first_and_every_recipe_once_and_the_plain_model_is_no_cell() -> None:
    recipes = recipes_of(QUESTIONS)
    assert recipes[0] == DEFAULT
    assert len(recipes) == len(set(recipes))
    cells = cells_of(QUESTIONS, (0, 1, 2))
    assert [cell.seed for cell in cells[:4]] == [0, 1, 2, 0]
    assert len(cells) == 3 * (len(recipes) - 1)


def test_a_question_alone_is_still_compared_with_the_default() -> None:
    assert recipes_of(chosen_questions(["beta"]))[0] == DEFAULT


def test_an_unknown_question_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"colour.*rounds, sft"):
        chosen_questions(["beta", "colour"])


def test_a_cell_has_another_name_when_anything_that_decides_it_differs() -> None:
    keys = {
        Cell(DEFAULT, 0).key(SIZE, "setup"),
        Cell(DEFAULT, 1).key(SIZE, "setup"),
        Cell(DEFAULT.model_copy(update={"beta": 0.3}), 0).key(SIZE, "setup"),
        Cell(DEFAULT, 0).key(Size(97, 20), "setup"),
        Cell(DEFAULT, 0).key(Size(96, 21), "setup"),
        Cell(DEFAULT, 0).key(SIZE, "another"),
    }
    assert len(keys) == 6
