"""The page says what is there, what is missing, and what made no difference; nothing of whose machine it was."""

from __future__ import annotations

from pathlib import Path

from lab_cells import answered, cell

from cai.lab.study.cells import CellResult, write_cell
from cai.lab.study.grid import Grid, plan
from cai.lab.study.recipes import DEFAULT, Cell, Size, chosen_questions
from cai.lab.study.results_page import results_page
from cai.lab.study.setup import Setup
from cai.models.spec import ModelSpec
from cai.pipeline.studying import write_results

HARD = next(v.recipe for v in chosen_questions(["labels"])[0].variants if v.recipe != DEFAULT)


def grid(folder: Path, *results: CellResult, seeds: tuple[int, ...] = (0, 1), setup: Setup | None = None) -> Grid:
    made = Grid(folder, chosen_questions(["labels"]), seeds, Size(8, 1), setup or Setup(), "setup")
    for result in results:
        write_cell(folder, Cell(result.recipe, result.seed).key(made.size, "setup"), result)
    return made


def answers(mended: int, of: int = 40):
    faults = (answered(f"f{n}", "wrong", "bad", "good" if n < mended else "bad") for n in range(of))
    return (*faults, *(answered(f"c{n}", "benign", "good", "good") for n in range(of)))


def test_no_difference_is_said_as_plainly_as_a_difference(tmp_path: Path) -> None:
    same = grid(tmp_path / "same", *(cell(recipe, seed, answers(20)) for recipe in (DEFAULT, HARD) for seed in (0, 1)))
    page = results_page(same, "cai lab study", {})
    assert "*hard*: no difference shown in faults (+0 [+0, +0] points); no difference shown in bad controls" in page
    cells = (cell(recipe, seed, answers(20 if recipe == DEFAULT else 2)) for recipe in (DEFAULT, HARD) for seed in (0, 1))
    assert "*hard*: more faults (+45 [" in results_page(grid(tmp_path / "other", *cells), "cai lab study", {})


def test_a_page_of_a_study_cut_off_says_what_is_missing(tmp_path: Path) -> None:
    page = results_page(grid(tmp_path, cell(DEFAULT, 0, answers(20))), "cai lab study", {})
    assert "**3 of 4 cells are missing**" in page
    assert "*hard*: not finished." in page
    assert "| **soft** | 1 | 50% |" in page
    assert "| hard | 0 | not finished |" in page


def test_rows_that_came_to_nothing_are_told_by_reason_and_cells_that_did_not_count_them_say_so(tmp_path: Path) -> None:
    one, other, old = (cell(recipe, seed, answers(20)) for recipe, seed in ((DEFAULT, 0), (DEFAULT, 1), (HARD, 0)))
    counted = (
        one.model_copy(update={"lost": {"filter cut_short": 7, "draft: refused": 1}}),
        other.model_copy(update={"lost": {}}),
    )
    page = results_page(grid(tmp_path / "a", *counted, old), "cai lab study", {})
    assert "rows in the mean of 2 cells, by reason: filter cut_short 3.5, draft: refused 0.5; not counted in 1 older" in page
    assert "by reason: nothing." in results_page(grid(tmp_path / "b", counted[1]), "cai lab study", {})
    assert "not counted when these cells were made" in results_page(grid(tmp_path / "c", old), "cai lab study", {})


def test_a_damaged_cell_counts_as_not_done(tmp_path: Path) -> None:
    made = grid(tmp_path, cell(DEFAULT, 0, answers(20)))
    (file,) = (tmp_path / "cells").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert made.results() == []
    assert not any(each.done for each in plan(made))


def test_the_plan_foretells_from_the_same_recipe_or_else_from_all(tmp_path: Path) -> None:
    cells = (cell(DEFAULT, 0, seconds=100.0), cell(DEFAULT, 1, seconds=50.0), cell(HARD, 0, seconds=30.0))
    planned = {(each.work.recipe, each.work.seed): each for each in plan(grid(tmp_path, *cells, seeds=(0, 1, 2)))}
    assert planned[DEFAULT, 2].seconds == 75.0
    assert planned[HARD, 1].seconds == 30.0
    assert [each.done for each in planned.values()] == [True, True, False, True, False, False]
    assert plan(grid(tmp_path / "empty"))[0].seconds is None
    first = plan(grid(tmp_path / "one", cell(DEFAULT, 0, seconds=9.0)))
    assert [each.seconds for each in first] == [9.0] * 4


def test_the_page_names_no_folder_of_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "secret" / "model"
    folder.mkdir(parents=True)
    setup = Setup(plain=ModelSpec(name=str(folder)), feedback=ModelSpec(name=str(folder)))
    page = results_page(grid(tmp_path, cell(DEFAULT, 0, answers(20)), setup=setup), "cai lab study", {})
    assert "model is trained" in page
    assert "secret" not in page


def test_page_and_pictures_are_written_together_and_equal_cells_give_equal_bytes(tmp_path: Path) -> None:
    made = grid(tmp_path, *(cell(DEFAULT, seed, answers(20)) for seed in (0, 1)))
    write_results(made, "cai lab study", tmp_path / "a" / "RESULTS.md")
    write_results(made, "cai lab study", tmp_path / "b" / "RESULTS.md")
    assert "![Soft or hard labels?](figures/labels.svg)" in (tmp_path / "a" / "RESULTS.md").read_text()
    for name in ("RESULTS.md", "figures/labels.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
