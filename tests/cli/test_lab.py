"""`cai lab`: what is refused, and what a plan says before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from whole_runs import cai_here

from cai.lab.comparison.methods import METHODS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", vocab=400)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--questions", "rounds,colour", "no question is called colour"),
        ("--seeds", "0,x", "are no whole numbers"),
        ("--seeds", "-1", "a seed is 0 or more"),
    ],
)
def test_questions_and_seeds_that_are_none_are_refused_before_a_model_is_looked_for(
    option: str, value: str, said: str, tmp_path: Path
) -> None:
    done = cai_here("lab", "study", option, value, "--policy", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_plan_names_every_cell_and_computes_nothing(model: Path, tmp_path: Path) -> None:
    arguments = ("lab", "study", "--plan", "--policy", str(model), "--questions", "labels,rounds", "--output", "out")
    done = cai_here(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "15 cells, 0 done" in done.stdout
    assert "not known before the first cell is done" in done.stdout
    cells = json.loads(cai_here(*arguments, "--json", cwd=tmp_path).stdout)
    assert len(cells["cells"]) == 15
    assert cells["expected_seconds"] is None
    assert not (tmp_path / "out").exists()


def test_the_page_of_a_study_that_was_not_begun_says_that_all_is_missing(model: Path, tmp_path: Path) -> None:
    done = cai_here("lab", "study", "--table", "--policy", str(model), "--questions", "beta", "--results", "R.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "R.md").read_text()
    assert "**12 of 12 cells are missing**" in page
    assert str(tmp_path) not in page


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--methods", "dpo,ppo", "no method is called ppo; there are best_of, sl_cai, dpo"),
        ("--seeds", "1.5", "no whole numbers"),
    ],
)
def test_methods_that_are_none_are_refused_before_a_model_is_looked_for(
    option: str, value: str, said: str, tmp_path: Path
) -> None:
    done = cai_here("lab", "compare", option, value, "--policy", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_the_plan_of_a_comparison_names_every_model_and_computes_nothing(model: Path, tmp_path: Path) -> None:
    arguments = ("lab", "compare", "--plan", "--policy", str(model), "--methods", "rloo", "--output", "out")
    done = cai_here(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 models, 0 done" in done.stdout
    assert "not known before the first model is done" in done.stdout
    models = json.loads(cai_here(*arguments, "--json", cwd=tmp_path).stdout)
    assert [(each["method"], each["seed"]) for each in models["models"][:4]] == [
        ("dpo", 0),
        ("dpo", 1),
        ("dpo", 2),
        ("rloo", 0),
    ]
    assert models["expected_seconds"] is None
    assert not (tmp_path / "out").exists()


def test_the_page_of_a_comparison_that_was_not_begun_says_that_all_is_missing(model: Path, tmp_path: Path) -> None:
    done = cai_here("lab", "compare", "--table", "--policy", str(model), "--seeds", "4", "--results", "C.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"C.md: 0 of {len(METHODS)} models" in done.stdout
    page = (tmp_path / "C.md").read_text()
    assert f"**{len(METHODS)} of {len(METHODS)} entries are missing**" in page
    assert f"cai lab compare --items 200 --per-behaviour 20 --seeds 4 --policy {model.name}" in page
    assert str(tmp_path) not in page
