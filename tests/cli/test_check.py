"""`cai check`: all problems with their places on stdout, exit code 4; a short table when there are none."""

from __future__ import annotations

import json
from pathlib import Path

from constitution.loading import load_constitution
from constitution.schema import json_schema
from tests.cli.conftest import Cai

BROKEN = "principles:\n  - id: kind\n    principle: Be kind.\n    weigth: 2\n    tests: no\n"


def test_the_shipped_principles_are_checked_by_default_and_are_sound(cai: Cai) -> None:
    result = cai("check")
    shipped = load_constitution(["shipped"])
    assert result.code == 0
    last = result.out.strip().splitlines()
    tests = sum(len(principle.tests) for principle in shipped.principles)
    assert last[-2].split() == ["8", "files", str(len(shipped.principles)), str(tests)]
    assert last[-1] == "Sound."


def test_every_problem_is_one_clickable_line_with_what_to_do_below(cai: Cai, tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.md"
    one.write_text(BROKEN)
    two.write_text("- Be brief.\n-\n")
    result = cai("check", one, two)
    assert result.code == 4
    assert result.out.splitlines() == [
        f"{one}:4:5: unknown key `weigth`",
        "  → did you mean `weight`?",
        f"{one}:5:5: `tests` is read as False",
        "  → put it in quotes: YAML reads yes, no, on and off as booleans",
        f"{two}:2:1: an empty bullet",
        "  → write the rule after the dash, or delete the line",
    ]
    assert result.err == "3 problems in 2 files\n"


def test_json_holds_the_same_problems_and_the_same_exit_code(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(BROKEN)
    result = cai("check", tmp_path, "--json")
    assert result.code == 4
    found = json.loads(result.out)["problems"]
    assert [(each["line"], each["column"], each["hint"][:8]) for each in found] == [(4, 5, "did you "), (5, 5, "put it i")]


def test_json_of_sound_files_counts_principles_and_tests_and_names_the_untested(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("- Be kind.\n- Be brief.\n")
    result = cai("check", tmp_path, "--json")
    (file,) = json.loads(result.out)["files"]
    assert (result.code, file["principles"], file["tests"], file["untested"]) == (0, 2, 0, ["be-kind", "be-brief"])


def test_names_of_files_cannot_steer_the_terminal(cai: Cai, tmp_path: Path) -> None:
    file = tmp_path / "[bold]\x1b[31mred.yaml"
    file.write_text("name: x\n")
    broken = cai("check", file)
    file.write_text("principles:\n  - id: kind\n    principle: Be kind.\n")
    sound = cai("check", file)
    for result in (broken, sound):
        assert "\x1b" not in result.out
        assert "[bold]\\x1b[31mred.yaml" in result.out.replace("\n", "")


def test_a_missing_file_is_a_problem_and_not_a_crash(cai: Cai, tmp_path: Path) -> None:
    result = cai("check", tmp_path / "none.yaml")
    assert result.code == 4
    assert "there is no such file or folder" in result.out


def test_the_schema_for_editors_is_printed(cai: Cai) -> None:
    assert json.loads(cai("check", "--schema").out) == json_schema()
