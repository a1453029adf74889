"""The grid on small real models without sense: its figures say nothing, but cells are shared, kept and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import make_checkpoint

from cai.data.filters.settings import FilterRules
from cai.lab.study.bench import Bench
from cai.lab.study.cells import Made
from cai.lab.study.grid import Grid, work
from cai.lab.study.recipes import DEFAULT, Question, Recipe, Size, Variant
from cai.lab.study.setup import Setup
from cai.loop import LoopSettings
from cai.models.spec import ModelSpec

REPOSITORY = Path(__file__).resolve().parents[3]
NOTHING_FILTERED = FilterRules.model_validate(
    dict.fromkeys(
        (
            *("meta_talk", "critique_talk", "empty", "cut_short", "repetition", "too_long", "role_confusion", "truncated"),
            *("loops", "emoji_runs", "wrong_language"),
        ),
        False,
    )
)
HARD = DEFAULT.model_copy(update={"labelling": DEFAULT.labelling.model_copy(update={"hard": True})})
TUNED = DEFAULT.model_copy(update={"training": ("sft", "dpo")})
KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests"); sys.path.insert(0, "tests/lab/study")
from test_grid import MADE, small_grid
from cai.lab.study.grid import work
work(small_grid(Path(sys.argv[1]), Path(sys.argv[2])), MADE, lambda: None, lambda *told: None)
"""
MADE = Made(at="")


def small_grid(folder: Path, model: Path, *recipes: Recipe) -> Grid:
    spec = ModelSpec(name=str(model), dtype="float32")
    setup = Setup(plain=spec, feedback=spec, filters=NOTHING_FILTERED)
    variants = tuple(Variant(str(number), recipe) for number, recipe in enumerate(recipes or (DEFAULT, HARD, TUNED)))
    return Grid(folder, (Question("one", "One?", variants),), (0,), Size(10, 1), setup, setup.fingerprint)


def test_cells_share_what_they_have_in_common_and_a_finished_grid_does_nothing(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", vocab=400)
    grid = small_grid(tmp_path / "out", model)
    work(grid, MADE, lambda: None, lambda *_: None)
    default, hard, tuned = grid.results()
    assert not any(each.failure for each in (default, hard, tuned))
    assert [len(each.answers) for each in (default, hard, tuned)] == [7] * 3
    assert [len(each.divergences) for each in (default, hard, tuned)] == [2] * 3
    assert default.records + sum(default.lost.values() if default.lost else ()) == 10
    # Drafts, critiques, revisions, labels and the plain model's answers are there already.
    assert hard.price.prompt_tokens < default.price.prompt_tokens / 2
    assert hard.price.reused_calls > default.price.reused_calls
    assert {label.p_first for label in hard.labels} <= {0.0, 0.5, 1.0}
    assert [(a.uid, a.before) for a in hard.answers] == [(a.uid, a.before) for a in default.answers]
    assert tuned.price.trained_tokens > default.price.trained_tokens
    assert len(list((tmp_path / "out" / "reference").glob("reference-*"))) == 2  # of the plain and of the tuned model
    assert not (tmp_path / "out" / "models").exists()
    told: list[object] = []
    work(grid, MADE, lambda: told.append(None), lambda *event: told.append(event))
    assert told == []


def test_prompts_that_a_filter_or_a_failure_takes_are_counted(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", vocab=400)
    spec = ModelSpec(name=str(model), dtype="float32")
    setup = Setup(plain=spec, feedback=spec, loop=LoopSettings.model_validate({"draft": {"max_tokens": 3}}))
    bench = Bench(tmp_path / "out", setup, items=6, per_behaviour=1)
    try:
        kept, lost = bench.records(DEFAULT, 0), bench.lost_chains(DEFAULT, 0)
    finally:
        bench.close()
    assert len(kept) + lost.total() == 6
    assert lost.total() > 0
    assert all(reason.startswith("filter ") for reason in lost)


def test_nothing_to_train_on_is_a_result_a_training_that_fails_is_none_and_is_tried_again(tmp_path: Path) -> None:
    """An installation broke under a study once, and all later cells were kept as recipes that come to no model."""
    model = make_checkpoint(tmp_path / "model", vocab=400)
    nobody = DEFAULT.model_copy(update={"share": 0.01, "principles": ("courtesy-without-flattery",)})
    grid = small_grid(tmp_path / "out", model, HARD, nobody)
    blocked = tmp_path / "out" / "models" / grid.cells[1].key(grid.size, grid.fingerprint)
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    told: list[object] = []
    (failed,) = work(grid, MADE, lambda: told.append(None), lambda *_: None)
    assert failed.work == grid.cells[1]
    assert len(told) == 3
    default, nothing = grid.results()
    assert (default.recipe, default.failure) == (DEFAULT, "")
    assert nothing.recipe == nobody
    assert nothing.failure.startswith("there is no pair to train on")
    blocked.unlink(missing_ok=True)
    assert work(grid, MADE, lambda: told.append(None), lambda *_: None) == []
    assert [each.recipe for each in grid.results()] == [DEFAULT, HARD, nobody]


@pytest.mark.slow
def test_a_grid_killed_at_any_moment_loses_at_most_the_cell_in_work(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", vocab=400)
    straight = small_grid(tmp_path / "straight", model)
    work(straight, MADE, lambda: None, lambda *_: None)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(model)]
    cells = tmp_path / "killed" / "cells"
    for wanted in (0, 1, 2):
        process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
        while process.poll() is None and not (cells.is_dir() and len(list(cells.glob("*.json"))) >= wanted):
            time.sleep(0.05)
        time.sleep(1.0)
        before = {file.name: file.read_bytes() for file in cells.glob("*.json")} if cells.is_dir() else {}
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = {file.name: file.read_bytes() for file in cells.glob("*.json")} if cells.is_dir() else {}
        assert {name: after[name] for name in before} == before
    subprocess.run(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)
    killed = small_grid(tmp_path / "killed", model)
    for one, other in zip(straight.results(), killed.results(), strict=True):
        assert one.answers == other.answers
        assert one.labels == other.labels
        assert one.divergences == other.divergences
