"""`cai check`: all findings with their places on stdout, exit code 4 for errors; a short table when there are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from constitution.linting import RULES
from constitution.loading import load_constitution
from constitution.schema import json_schema
from tests.cli.conftest import Cai

BROKEN = "principles:\n  - id: kind\n    principle: Be kind.\n    weigth: 2\n    tests: no\n"
UNWISE = "principles:\n  - id: kind\n    principle: Always be kind.\n"
TESTED = UNWISE.replace("Always be", "Be") + "    tests: [{prompt: Hi, better: Hello., worse: Go.}]\n"


def test_the_shipped_principles_are_checked_by_default_and_are_sound(cai: Cai) -> None:
    result = cai("check")
    shipped = load_constitution(["shipped"])
    assert result.code == 0
    last = result.out.strip().splitlines()
    tests = sum(len(principle.tests) for principle in shipped.principles)
    assert last[-2].split() == ["8", "files", str(len(shipped.principles)), str(tests)]
    assert last[-1] == "Sound."
    assert cai("check", "--strict").code == 0


def test_every_finding_is_one_clickable_line_with_its_rule_and_what_to_do(cai: Cai, tmp_path: Path) -> None:
    one, two, three = tmp_path / "one.yaml", tmp_path / "two.md", tmp_path / "three.yaml"
    one.write_text(BROKEN)
    two.write_text("- Never be late.\n-\n")
    result = cai("check", two, one, three)
    assert result.code == 4
    allow = "say when it holds, or allow it: `# cai: allow C206` and why"
    assert result.out.splitlines() == [
        f"{one}:4:5 C109 error: unknown key `weigth` (did you mean `weight`?)",
        f"{one}:5:5 C117 error: `tests` is read as False (put it in quotes: YAML reads yes, no, on and off as booleans)",
        f"{three}:1:1 C101 error: there is no such file or folder (did you mean {one}?)",
        f"{two}:1:3 C206 warning: `principle`: “Never” allows no exception ({allow})",
        f"{two}:2:1 C111 error: an empty bullet (write the rule after the dash, or delete the line)",
    ]
    assert result.err == "4 errors and 1 warning in 3 files\n"


def test_warnings_alone_are_shown_and_pass_unless_the_check_is_strict(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(UNWISE)
    plain, strict = cai("check", tmp_path), cai("check", tmp_path, "--strict")
    assert (plain.code, strict.code) == (0, 4)
    assert plain.out == strict.out
    assert [line.split()[1] for line in plain.out.splitlines()] == ["C208", "C206"]
    assert plain.err == "0 errors and 2 warnings in 1 file\n"


def test_json_has_the_shape_that_is_documented(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(BROKEN)
    (tmp_path / "two.yaml").write_text(TESTED.replace("kind", "calm"))
    result = cai("check", tmp_path, "--json")
    assert result.code == 4
    read = json.loads(result.out)
    assert set(read) == {"findings", "files", "errors", "warnings"}
    assert (read["errors"], read["warnings"]) == (2, 0)
    assert read["findings"][0] == {
        "path": str(tmp_path / "one.yaml"),
        "line": 4,
        "column": 5,
        "rule": "C109",
        "severity": "error",
        "problem": "unknown key `weigth`",
        "hint": "did you mean `weight`?",
        "fixable": False,
    }
    assert read["files"] == [
        {"path": str(tmp_path / "two.yaml"), "name": "two", "principles": 1, "tests": 1, "untested": []},
    ]


def test_json_of_sound_files_counts_principles_and_tests_and_names_the_untested(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("- Be kind.\n- Say it in few words.\n")
    result = cai("check", tmp_path, "--json")
    (file,) = json.loads(result.out)["files"]
    untested = ["be-kind", "say-it-in-few-words"]
    assert (result.code, file["principles"], file["tests"], file["untested"]) == (0, 2, 0, untested)


def test_sarif_is_relative_to_where_the_command_runs(cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    result = cai("check", "mine", "--sarif")
    assert result.code == 4
    found = json.loads(result.out)["runs"][0]["results"]
    assert [each["ruleId"] for each in found] == ["C109", "C117"]
    places = [each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in found]
    assert places == ["mine/one.yaml"] * 2


def test_fix_writes_says_what_it_did_and_checks_again(cai: Cai, tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(TESTED.replace("- id: kind\n    principle", "- principle").replace("Go.", "no") + "    weigth: 1 \n")
    result = cai("check", path, "--fix")
    assert result.code == 4
    assert [line.split()[1] for line in result.out.splitlines()] == ["C109"]
    assert [line.split()[1:3] for line in result.err.splitlines()[:3]] == [
        ["C110", "mended:"],
        ["C117", "mended:"],
        ["C221", "mended:"],
    ]
    assert "wrote the id `be-kind`" in result.err
    assert path.read_text() == TESTED.replace("id: kind", "id: be-kind").replace("Go.", '"no"') + "    weigth: 1\n"
    again = cai("check", path, "--fix")
    assert (again.code, "mended" in again.err) == (4, False)


def test_fix_in_json_leaves_stdout_to_the_result(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("- Be kind. \n")
    result = cai("check", tmp_path, "--fix", "--json")
    assert (result.code, json.loads(result.out)["findings"]) == (0, [])
    assert "C221 mended" in result.err


def test_what_many_lines_have_alike_is_shown_once_with_their_numbers(cai: Cai, tmp_path: Path) -> None:
    path = tmp_path / "one.md"
    path.write_text("".join(f"- Be {word}. \n" for word in ("kind", "brief", "calm", "fair", "here", "polite", "glad", "just")))
    plain = cai("check", path)
    assert plain.out.splitlines() == [
        f"{path}:1:11 C221 warning: spaces at the end of the line, also on lines 2, 3, 4, 5, 6 and 2 more (delete them)"
    ]
    assert plain.err == "0 errors and 8 warnings in 1 file; --fix mends 8 of them\n"
    assert len(json.loads(cai("check", path, "--json").out)["findings"]) == 8
    assert "the line, also on lines 2, 3, 4, 5, 6 and 2 more\n" in cai("check", path, "--fix").err


def test_diff_shows_and_writes_nothing(cai: Cai, tmp_path: Path) -> None:
    path = tmp_path / "one.md"
    path.write_text("- Be kind. \n")
    result = cai("check", path, "--diff")
    assert result.code == 4
    assert result.out.splitlines()[-2:] == ["-- Be kind. ", "+- Be kind."]
    assert path.read_text() == "- Be kind. \n"
    path.write_text("- Be kind.\n")
    assert (cai("check", path, "--diff").code, cai("check", path, "--diff").out) == (0, "")


def test_a_diff_that_goes_into_a_file_keeps_every_character(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "one.md").write_bytes("- Be kind. \r\n- Be “brief”.\u00a0x\r\n".encode())
    lines = cai("check", tmp_path, "--diff").out.split("\n")
    assert lines[-4:] == ["-- Be kind. \r", "+- Be kind.\r", " - Be “brief”.\u00a0x\r", ""]


def test_diff_does_not_hide_errors_that_it_cannot_mend(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(BROKEN)
    result = cai("check", tmp_path, "--diff")
    assert (result.code, result.out) == (4, "")
    assert "2 errors" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--sarif"],
        ["--diff", "--fix", "a.md"],
        ["--diff", "--json", "a.md"],
        ["--fix"],
        ["--fix", "shipped:honesty"],
        ["--diff", "a.md", "shipped"],
        ["--explain", "C999"],
    ],
    ids=" ".join,
)
def test_what_does_not_fit_together_is_a_usage_error(cai: Cai, arguments: list[str]) -> None:
    result = cai("check", *arguments)
    assert (result.code, result.out) == (2, "")


def test_a_file_that_cannot_be_written_is_an_error_and_no_traceback(
    cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.md").write_text("- Be kind. \n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = cai("check", tmp_path, "--fix")
    assert result.code == 1
    assert "cannot be written (No space left on device)" in result.err


def test_the_rules_are_listed_and_each_can_be_explained(cai: Cai) -> None:
    listed = cai("check", "--rules").out.splitlines()
    assert [line.split()[0] for line in listed] == list(RULES)
    for identity, rule in RULES.items():
        explained = cai("check", "--explain", identity.lower())
        assert explained.code == 0
        assert explained.out.startswith(f"{identity} {rule.severity}: {rule.title}\n")
        assert rule.why in explained.out


def test_names_and_texts_of_files_cannot_steer_the_terminal(cai: Cai, tmp_path: Path) -> None:
    file = tmp_path / "[bold]\x1b[31mred.yaml"
    for text in ("name: x\n", TESTED, UNWISE, UNWISE + "    \u202ekey: 1 \n", UNWISE + "    tests: \x1b[0m\n"):
        file.write_text(text)
        result = cai("check", file)
        assert "\x1b" not in result.out
        assert "\u202e" not in result.out
        assert "[bold]\\x1b[31mred.yaml" in result.out.replace("\n", "")
        assert "\x1b" not in cai("check", file, "--diff").out


def test_a_name_that_is_no_unicode_is_printed_in_every_form(cai: Cai, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md"))
    path.write_text("- Never shout.\n")
    for form in ([], ["--json"], ["--sarif"]):
        result = cai("check", tmp_path, *form)
        assert result.code == 0
        assert "C206" in result.out
        if form:
            json.loads(result.out)


def test_a_missing_file_is_a_finding_and_not_a_crash(cai: Cai, tmp_path: Path) -> None:
    result = cai("check", tmp_path / "none.yaml")
    assert result.code == 4
    assert "C101 error: there is no such file or folder" in result.out


def test_the_schema_for_editors_is_printed(cai: Cai) -> None:
    assert json.loads(cai("check", "--schema").out) == json_schema()


def test_principle_files_in_a_folder_below_are_said_to_be_unread(cai: Cai, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "README.md").write_text("- No principle.\n")
    (tmp_path / "mine.yaml").write_text(TESTED)
    assert "not read" not in cai("check", tmp_path).err
    (below / "more.yaml").write_text(TESTED.replace("kind", "calm"))
    assert f"not read: the principle files in {below}" in cai("check", tmp_path).err
    assert "not read" not in cai("check", tmp_path, below).err
    (tmp_path / "mine.yaml").unlink()
    assert f"there are some in {below}" in cai("check", tmp_path).out


def test_an_unknown_key_is_named_whatever_its_value(cai: Cai, tmp_path: Path) -> None:
    """A misspelt key with the value `no` was told of only after the `no` was quoted."""
    (tmp_path / "mine.yaml").write_text("principles:\n  - id: kind\n    principle: Be kind.\n    weigth: no\n")
    out = cai("check", tmp_path / "mine.yaml").out
    assert "C109 error: unknown key `weigth` (did you mean `weight`?)" in out
    assert "C117" in out
