"""Why two runs differ: every difference that was made on purpose is named, and no other."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_runs import write_scripted_run
from whole_runs import cai_here

from cai.evaluation.results import AnswerPair, EvaluationResult
from cai.pipeline.differences import differences
from cai.pipeline.side_by_side import beside_view
from cai.records import EVALUATION
from cai.store import RunFolder

PRINCIPLES: dict[str, Any] = {
    "name": "mine",
    "principles": [
        {"id": "kind", "principle": "Be kind to the person who asks.", "weight": 1.0},
        {"id": "brief", "principle": "Be brief."},
    ],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs: one principle reworded, one removed, one added, a setting changed, one prompt more."""
    place = tmp_path_factory.mktemp("runs")
    (place / "one.yaml").write_text(yaml.safe_dump(PRINCIPLES))
    other = {
        "name": "mine",
        "principles": [
            {"id": "kind", "principle": "Be kind to everybody who asks.", "weight": 1.0},
            {"id": "honest", "principle": "Say \x1b what is so.".replace("\x1b", "")},
        ],
    }
    (place / "other.yaml").write_text(yaml.safe_dump(other))
    first = write_scripted_run(place / "first", 24, constitution=[str(place / "one.yaml")])
    second = write_scripted_run(place / "second", 24, constitution=[str(place / "other.yaml")])
    with (place / "second" / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": "One \\u001b[31m more?"}\n')
    assert cai_here("run", first).returncode == 3
    assert cai_here("run", second, "--set", "labels.min_margin_nats=0.0").returncode == 3
    return place / "first" / "run", place / "second" / "run"


def test_principles_differ_word_by_word(runs: tuple[Path, Path]) -> None:
    found = {each.id: each for each in differences(*runs).causes.principles}
    assert {name: each.fate for name, each in found.items()} == {"kind": "changed", "brief": "removed", "honest": "added"}
    pieces = found["kind"].fields["principle"]
    assert "".join(p.text for p in pieces if p.kind != "added") == "Be kind to the person who asks."
    assert "".join(p.text for p in pieces if p.kind != "removed") == "Be kind to everybody who asks."
    assert [p.text for p in pieces if p.kind == "added"] == ["everybody"]
    assert set(found["kind"].fields) == {"principle"}


def test_settings_differ_with_their_origins_and_paths_make_no_difference(runs: tuple[Path, Path]) -> None:
    (setting,) = differences(*runs).causes.settings
    assert (setting.key, setting.first, setting.second) == ("labels.min_margin_nats", 0.1, 0.0)
    assert (setting.first_origin, setting.second_origin) == ("default", "--set labels.min_margin_nats")


def test_a_stage_that_one_run_does_not_have_is_one_line_of_each_kind(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """It used to be dozens: every default of the section and every figure and file of the training, each "not noted"."""
    first, second = (shutil.copytree(run, tmp_path / name / "run") for name, run in zip("ab", runs, strict=True))
    with RunFolder.open(first) as folder:
        whole = folder.whole_manifest
        whole["config"]["dpo"] = {"beta": 0.1, "lora": {"r": 4, "alpha": 8}}
        whole["origins"]["dpo.lora.r"] = "mine.yaml:3:1"
        del whole["config"]["seed"]
        folder.write_manifest(whole)
        (first / "dpo").mkdir()
        (first / "dpo" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5, "grad_norm": 1.0}\n')
        (first / "dpo" / "config.json").write_text("{}")
        folder.put_stage("dpo", "d", files=[first / "dpo" / "metrics.jsonl", first / "dpo" / "config.json"])
    shown = cai_here("diff", first, second).stdout.splitlines()
    assert "  setting dpo: a section of 3 settings (mine.yaml:3:1) → null (run.yaml:9:1)" in shown
    assert "  setting seed: not noted → 5 (run.yaml:2:1)" in shown
    assert [line for line in shown if "trained" in line] == ["  dpo: trained in the first run only"]
    assert [line for line in shown if "dpo/" in line] == ["  dpo/: 2 files in the first run only"]
    page = beside_view(differences(first, second))
    assert "dpo: trained in the first run only" in page.lines
    assert page.metrics == ()
    assert ("dpo", "a section of 3 settings", "null") in page.settings


def test_runs_in_folders_of_the_same_name_are_called_what_the_user_called_them(runs: tuple[Path, Path]) -> None:
    assert runs[0].name == runs[1].name
    shown = cai_here("diff", *runs).stdout.splitlines()
    assert shown[:2] == [f"first:  {runs[0]}", f"second: {runs[1]}"]
    assert json.loads(cai_here("diff", *runs, "--json").stdout)["first"] == runs[0].name


def test_prompts_and_rows_differ_as_was_made_so(runs: tuple[Path, Path]) -> None:
    found = differences(*runs)
    assert {each.name for each in found.causes.prompts} >= {"items", "rows", "fingerprint"}
    assert (found.effects.items.different, found.effects.items.only_first, found.effects.items.only_second) == (0, 0, 1)
    assert not found.same
    assert found.causes.models == found.causes.packages == found.causes.environment == ()


def test_a_run_does_not_differ_from_itself(runs: tuple[Path, Path]) -> None:
    found = differences(runs[0], runs[0])
    assert found.same
    assert found.causes.named == []
    assert found.effects.labels.flips == 0
    assert found.effects.changed_outcomes == {}


def test_what_a_stopped_run_lacks_is_told_to_be_that(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """A run that was killed has no finished stage; its missing rows used to read like a difference of what it makes."""
    shutil.copytree(runs[0], tmp_path / "killed")
    with contextlib.closing(sqlite3.connect(tmp_path / "killed" / "run.sqlite")) as connection, connection:
        connection.execute("DELETE FROM stages")
        connection.execute("DELETE FROM records WHERE kind = 'revision' AND rowid % 2")
    (told,) = differences(runs[0], tmp_path / "killed").effects.not_compared
    assert "second run" in told
    assert "stopped in generate" in told
    (told,) = differences(tmp_path / "killed", runs[0]).effects.not_compared
    assert "first run" in told
    assert differences(*runs).effects.not_compared == ()


def test_a_run_that_has_not_come_to_its_labels_is_told_not_to(runs: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "begun")
    with contextlib.closing(sqlite3.connect(tmp_path / "begun" / "run.sqlite")) as connection, connection:
        connection.execute("DELETE FROM stages WHERE name <> 'generate'")
        connection.execute("DELETE FROM records WHERE kind NOT IN ('revision', 'failure')")
    (told,) = differences(runs[0], tmp_path / "begun").effects.not_compared
    assert told == "rows that the second run does not have: it has not come to label"


def test_the_terminal_shows_no_control_characters_and_json_has_it_all(runs: tuple[Path, Path]) -> None:
    for folder in runs:
        with RunFolder.open(folder) as run:
            whole = run.whole_manifest
            whole["constitution"]["name"] = f"mine\x1b[2J {folder.parent.name}"
            run.write_manifest(whole)
    shown = cai_here("diff", *runs)
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert "\\x1b[2J first → " in shown.stdout
    assert "[-the person-]{+everybody+}" in shown.stdout
    told = json.loads(cai_here("diff", *runs, "--json").stdout)
    assert told["causes"]["settings"][0]["key"] == "labels.min_margin_nats"
    assert told["effects"]["outcomes"]
    assert sum(each["rows"] for each in told["effects"]["outcomes"]) == 24


def evaluated(bad: list[bool]) -> EvaluationResult:
    answers = tuple(
        AnswerPair(
            uid=f"p{n}",
            behaviour="agrees",
            prompt="?",
            temperature=0.0,
            seed=0,
            before="b",
            before_outcome="bad",
            before_why="",
            after="a",
            after_outcome="bad" if each else "good",
            after_why="",
        )
        for n, each in enumerate(bad)
    )
    table = {"by_temperature": {}, "showcase": (), "failures": 0, "rows": ()}
    return EvaluationResult(suite="lab", judge="j", policy_before="a", policy_after="b", answers=answers, **table)  # pyright: ignore


def test_figures_after_training_are_compared_on_the_same_prompts(runs: tuple[Path, Path]) -> None:
    bad = [True] * 12 + [False] * 8, [False] * 9 + [True] * 3 + [True] * 1 + [False] * 7
    for folder, each in zip(runs, bad, strict=True):
        with RunFolder.open(folder) as run:
            result = evaluated(each)
            row = {"behaviour": "agrees", "label": "agrees with what is false"}
            run.put_measurements(EVALUATION, [result.model_copy(update={"rows": (_row(row),)})])
    (found,) = differences(*runs).effects.behaviours
    assert (found.prompts, found.first, found.second) == (20, 12 / 20, 4 / 20)
    assert found.difference == pytest.approx(-8 / 20)
    assert found.interval.low < found.difference < found.interval.high < 0
    assert found.p_holm == pytest.approx(2 * (1 + 10) / 2**10)  # exact McNemar: 9 better, 1 worse


def _row(names: dict[str, str]) -> Any:
    from cai.evaluation.results import BehaviourRow

    sides = [f"{side}{end}" for side in ("before", "after", "difference") for end in ("", "_low", "_high")]
    numbers = dict.fromkeys((*sides, "mcnemar_p", "broken_before", "broken_after"), 0.0)
    return BehaviourRow(**names, kind="fault", prompts=20, answers=20, **numbers)  # pyright: ignore
