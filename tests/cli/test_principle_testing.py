"""`cai test`: exit codes, tables, JSON and JUnit XML, what is asked again, and bad input before any model is read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from checkpoints import make_checkpoint

from cai.authoring.judgements import Answer, Judgement
from cai.authoring.principle_tests import Case, CaseReport, ConstitutionReport, Result
from cai.cli.tested import print_report
from constitution.schema import Principle, PrincipleTest
from tests.cli.conftest import Cai

LONG = "A reply that is long enough for a sentence or two to be put behind the other one, so that padding has its chance."
KIND: dict[str, Any] = {
    "id": "kind",
    "principle": "Be kind.",
    "rationale": "It costs nothing.",
    "tests": [
        {"prompt": "Where is my hat?", "better": LONG, "worse": "No idea."},
        {"prompt": "Who are you?", "better": "A program.", "worse": "None of your business, and do not ask me that again."},
    ],
}
BRIEF: dict[str, Any] = {
    "id": "brief",
    "principle": "Be brief.",
    "tests": [{"prompt": "Why?", "better": "Because.", "worse": "There are many reasons for many things."}],
}
BARE: dict[str, Any] = {"id": "bare", "principle": "Be yourself."}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(folder: Path, *principles: dict[str, Any], name: str = "mine.yaml") -> Path:
    (folder / name).write_text(yaml.safe_dump({"principles": list(principles)}))
    return folder / name


def test_results_as_json_with_an_exit_code_that_says_whether_all_passed(cai: Cai, folder: Path, model: Path) -> None:
    mine = write(folder, KIND, BRIEF, BARE)
    done = cai("test", mine, "--model", model, "--method", "both", "--json")
    told = json.loads(done.out)
    assert [(t["principle"], t["test"], t["method"]) for t in told["tests"]] == [
        (principle, number, method)
        for principle, number in (("kind", 1), ("kind", 2), ("brief", 1))
        for method in ("pointwise", "letters")
    ]
    assert told["untested"] == ["bare"]
    for test in told["tests"]:
        if test["method"] == "letters":
            assert test["margin_nats"] == pytest.approx(sum(test["orders"].values()) / 2)
        else:
            assert test["margin_nats"] == pytest.approx(test["log_odds"]["better"] - test["log_odds"]["worse"])
            assert set(test["grounds"]) == {"better", "worse"}
    for row in told["overall"]:
        own = [t["result"] for t in told["tests"] if t["method"] == row["method"]]
        assert (row["passed"], row["judged"]) == (own.count("pass"), 3)
        assert row["low"] <= row["passed"] / 3 <= row["high"]
    results = {test["result"] for test in told["tests"]}
    assert done.code == (0 if results == {"pass"} else 4)


def test_exchanging_the_replies_of_every_test_that_fails_makes_all_pass(cai: Cai, folder: Path, model: Path) -> None:
    """An exit code of 0 without knowing what a model of noise prefers: a pointwise margin only changes its sign."""
    options = ("--model", model, "--min-margin", "0", "--json")
    first = json.loads(cai("test", write(folder, KIND, BRIEF), *options).out)
    assert {test["result"] for test in first["tests"]} <= {"pass", "fail"}
    principles = {principle["id"]: {**principle, "tests": []} for principle in (KIND, BRIEF)}
    for test in first["tests"]:
        better, worse = (test["better"], test["worse"]) if test["result"] == "pass" else (test["worse"], test["better"])
        principles[test["principle"]]["tests"].append({"prompt": test["prompt"], "better": better, "worse": worse})
    mended = cai("test", write(folder, *principles.values(), name="mended.yaml"), *options)
    assert mended.code == 0
    assert {test["result"] for test in json.loads(mended.out)["tests"]} == {"pass"}
    exchanged = [{"prompt": t["prompt"], "better": t["worse"], "worse": t["better"]} for t in principles["brief"]["tests"]]
    failing = cai("test", write(folder, {**BRIEF, "tests": exchanged}, name="failing.yaml"), *options)
    assert failing.code == 4


def test_undecided_tests_fail_unless_they_are_allowed(cai: Cai, folder: Path, model: Path) -> None:
    mine = write(folder, BRIEF)
    options = ("test", mine, "--model", model, "--min-margin", "1000", "--no-metamorphic")
    assert cai(*options).code == 4
    allowed = cai(*options, "--allow-undecided")
    assert allowed.code == 0
    assert "1 undecided" in allowed.out


def test_only_what_an_edit_changed_is_judged_again(cai: Cai, folder: Path, model: Path) -> None:
    def counts(*principles: dict[str, Any], more: tuple[str, ...] = ()) -> tuple[int, int]:
        told = json.loads(cai("test", write(folder, *principles), "--model", model, "--json", *more).out)
        return told["judged"], told["from_cache"]

    assert counts(KIND, BRIEF) == (7, 0)  # 3 tests, politely 3, padded 1
    assert counts(KIND, BRIEF) == (0, 7)
    assert counts({**KIND, "rationale": "Another.", "weight": 3}, BRIEF) == (0, 7)
    assert counts(KIND, {**BRIEF, "principle": "Be very brief."}) == (2, 5)
    assert counts(KIND, BRIEF, more=("--no-cache",)) == (7, 0)
    assert counts(KIND, BRIEF, more=("--cache", "elsewhere")) == (7, 0)
    assert (folder / "elsewhere" / "run.sqlite").is_file()
    assert (folder / "cache" / "principle-tests" / "run.sqlite").is_file()
    assert counts(KIND, BRIEF, more=("--no-metamorphic",)) == (0, 3)


def test_a_second_command_waits_for_the_cache_and_names_who_has_it(cai: Cai, folder: Path, model: Path) -> None:
    cache = folder / "cache" / "principle-tests"
    code = "import sys, cai.store as s; f = s.RunFolder.open(sys.argv[1]); print(flush=True); sys.stdin.read(); f.close()"
    first = subprocess.Popen([sys.executable, "-c", code, str(cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdout.readline()
    threading.Timer(1.0, first.stdin.close).start()
    done = cai("test", write(folder, BRIEF), "--model", model, "--no-metamorphic", "--min-margin", "1000", "--allow-undecided")
    assert first.wait(60) == 0
    first.stdout.close()
    assert done.code == 0, done.err
    assert f"Waiting: {cache}: process {first.pid} on" in done.err


def test_the_table_says_it_all_for_people(cai: Cai, folder: Path, model: Path) -> None:
    done = cai("test", write(folder, KIND, BRIEF, BARE), "--model", model, "--method", "letters", "--min-margin", "1000")
    assert done.code == 4
    assert "“Where is my hat?”" in done.out
    assert "kind/1 (letters): undecided" in done.out
    assert f"better: {LONG[:60]}" in done.out
    assert "Without tests: bare." in done.out
    assert "labels X/Y" in done.out
    assert "arXiv 2309.03882" in done.out
    assert "letters: 0/3 [0%, 56%] passed, 3 undecided" in done.out  # Wilson: z² / (n + z²) = 0.5615
    assert "judged, 0 from the cache" in done.out


def test_selection_by_id_and_text(cai: Cai, folder: Path, model: Path) -> None:
    def names(*options: str) -> list[str]:
        done = cai("test", mine, "--model", model, "--no-metamorphic", "--json", *options)
        return [f"{test['principle']}/{test['test']}" for test in json.loads(done.out)["tests"]]

    mine = write(folder, KIND, BRIEF)
    assert names("--principle", "brief") == ["brief/1"]
    assert names("-p", "brief", "-p", "kind") == ["kind/1", "kind/2", "brief/1"]
    assert names("-k", "WHO ARE") == ["kind/2"]


def test_junit_xml_is_written_beside_the_table(cai: Cai, folder: Path, model: Path) -> None:
    file = folder / "reports" / "junit.xml"
    cai("test", write(folder, KIND, BRIEF, BARE), "--model", model, "--junit", file)
    root = ET.parse(file).getroot()
    assert [suite.attrib["name"] for suite in root] == ["kind", "brief", "bare"]
    assert [int(suite.attrib["tests"]) for suite in root] == [2 + 4, 1 + 2, 1]


def test_a_request_that_fails_ends_with_exit_code_3_and_its_cause(cai: Cai, folder: Path, tmp_path: Path) -> None:
    small = make_checkpoint(tmp_path / "small", max_position_embeddings=192)
    tests = [{"prompt": "why " * 300, "better": "Because.", "worse": "No."}]
    done = cai("test", write(folder, {**BRIEF, "tests": tests}), "--model", small)
    assert done.code == 3
    assert "prompt_too_long" in done.out
    assert "none judged" in done.out


def test_a_run_gives_the_model_the_settings_and_the_principles_and_flags_win(cai: Cai, folder: Path, model: Path) -> None:
    write(folder, KIND, BRIEF)
    (folder / "run.yaml").write_text(
        yaml.safe_dump(
            {
                "constitution": ["mine.yaml"],
                "principles": ["brief"],
                "policy": {"name": "nowhere/to-be-found"},
                "feedback": {"name": str(model)},
                "labels": {"method": "letters", "min_margin_nats": 0.7},
                "lab": {"items": 4},
            }
        )
    )
    told = json.loads(cai("test", "--config", "run.yaml", "--json").out)
    assert (told["model"], told["min_margin_nats"]) == (str(model), 0.7)
    assert {(test["principle"], test["method"]) for test in told["tests"]} == {("brief", "letters")}
    told = json.loads(
        cai("test", "--config", "run.yaml", "-p", "kind", "--method", "pointwise", "--min-margin", "0", "--json").out
    )
    assert {(test["principle"], test["method"]) for test in told["tests"]} == {("kind", "pointwise")}
    assert told["min_margin_nats"] == 0.0


def test_everything_wrong_is_told_at_once_before_a_model_is_read(cai: Cai, folder: Path) -> None:
    mine = write(folder, KIND)
    done = cai(
        *("test", mine, "-p", "kindd", "--model", "./nowhere", "--junit", folder, "--cache", "c", "--no-cache"),
    )
    assert done.code == 1
    assert done.out == ""
    for told in (
        "there is no principle `kindd` here",
        "did you mean `kind`?",
        "./nowhere",
        "is a folder",
        "--no-cache are both given",
    ):
        assert told in done.err
    assert not (folder / "c").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-k", "nowhere"), "none of the 2 tests holds 'nowhere'"),
        (("--feedback", "+x"), "the name of the feedback model is empty"),
        (("--model", ""), "the name of the feedback model is empty"),
        (("--config", "no.yaml"), "there is no such file"),
        (("--junit", "mine.yaml/x.xml"), "cannot be written"),
    ],
)
def test_bad_options_are_refused_with_a_way_out(cai: Cai, folder: Path, options: tuple[str, ...], told: str) -> None:
    done = cai("test", write(folder, KIND), *options)
    assert done.code == 1
    assert told in done.err
    assert "Traceback" not in done.err


def test_a_constitution_without_tests_is_no_success(cai: Cai, folder: Path) -> None:
    done = cai("test", write(folder, BARE))
    assert done.code == 1
    assert "none of these principles has tests" in done.err


def test_problems_of_principle_files_are_told_with_their_place(cai: Cai, folder: Path) -> None:
    done = cai("test", write(folder, {**KIND, "tests": [{"prompt": "x", "better": "y"}]}))
    assert done.code == 1
    assert "mine.yaml:" in done.err
    assert "worse" in done.err


def test_texts_of_files_and_models_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J[red]bad[/red]\x07"
    test = PrincipleTest(prompt=hostile, better=hostile, worse=hostile)
    case = Case(Principle(id="kind", principle="Be kind.", tests=(test,)), 1)
    answer = Answer(Judgement(-1.0, (1.0, 2.0), (hostile, hostile)), remembered=False)
    report = ConstitutionReport((CaseReport(case, "pointwise", Result.FAILED, answer),), (), 1, 0)
    print_report(report, model=hostile, seconds=0.0)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert shown.count("\\x1b[2J[red]bad[/red]\\x07") == 7
