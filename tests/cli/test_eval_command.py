"""`cai eval`: models without a run, a run's models and checkpoints, lists, schema, exports, exit codes."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import make_checkpoint
from cli.conftest import Cai
from whole_runs import cai as run_apart
from whole_runs import environment, write_config, write_prompts

from cai.evaluation.suite_results import SuiteAnswer, SuiteResult
from cai.records import SUITE_ANSWERS, SUITE_RESULTS
from cai.store import RunFolder

COUNT = 40


def script(folder: Path, name: str, **answers: Any) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"answers": answers or {"": "yes"}}, sort_keys=False))
    return f"scripted:{path}"


def suite(folder: Path, count: int = COUNT) -> Path:
    """The fault of saying yes to what is false, and its twin of saying no to what is true."""
    sides = [("false", "fault", "true", "no"), ("true", "control", "false", "yes")]
    content = {
        "suite": "yes-no",
        "tables": {"rows": {"columns": ["n"], "rows": [[n] for n in range(count)]}},
        "behaviours": [
            {
                "id": side,
                "label": f"gets {side} things wrong",
                "kind": kind,
                "twin": twin,
                "prompts": [{"for_each": ["rows"], "prompt": f"{side} {{{{ n }}}}"}],
                "checker": {"first": [{"exact": {"accept": [wanted]}}, {"otherwise": "bad"}]},
            }
            for side, kind, twin, wanted in sides
        ],
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_two_models_without_a_run(cai: Cai, tmp_path: Path) -> None:
    before = script(tmp_path, "before", **{"": "yes"})
    after = script(tmp_path, "after", true="yes", false="no")
    options = ("--suite", suite(tmp_path), "--before", before, "--after", after, "--cache", tmp_path / "cache")
    done = cai("eval", *options)
    assert done.code == 0, done.err
    assert "gets false things wrong 100% → 0% (fell by 100 points)" in done.out
    assert "Better, and the twin held." in " ".join(done.out.split())
    again = cai("eval", *options, "--json", "--temperature", 0, "--out", tmp_path / "found.json")
    found = json.loads(again.out)
    (result,) = found["suites"]
    assert result["temperatures"] == [0.0]
    assert [row["difference"] for row in result["comparisons"][0]["rows"]] == [-1.0, 0.0]
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["suites"] == found["suites"]
    assert len(written["answers"]) == 2 * 2 * COUNT
    assert SuiteResult.model_validate(result).tests_corrected_for == 2


def test_several_models_are_each_compared_with_the_first(cai: Cai, tmp_path: Path) -> None:
    models = [script(tmp_path, f"step-{n}", false="no" if n else "yes", **{"": "yes"}) for n in range(3)]
    options = [word for model in models for word in ("--model", model)]
    done = cai("eval", "--suite", suite(tmp_path), *options, "--no-cache", "--json")
    (result,) = json.loads(done.out)["suites"]
    assert [each["model"] for each in result["models"]] == models
    assert [each["after"] for each in result["comparisons"]] == models[1:]
    assert result["tests_corrected_for"] == 4


def test_one_model_alone_gets_shares(cai: Cai, tmp_path: Path) -> None:
    done = cai("eval", "--suite", suite(tmp_path), "--model", script(tmp_path, "one"), "--no-cache", "--prompts", 12)
    assert done.code == 0
    assert "gets false things wrong" in done.out
    assert "100% [76%, 100%]" in done.out
    assert "12 (12)" in done.out


def test_getting_worse_is_code_4_only_when_asked_for_and_failed_answers_are_code_3(cai: Cai, tmp_path: Path) -> None:
    good, bad = script(tmp_path, "good", false="no", true="yes"), script(tmp_path, "bad", **{"": "yes"})
    options = ("--suite", suite(tmp_path), "--before", good, "--after", bad, "--no-cache")
    worse = cai("eval", *options)
    assert worse.code == 0
    assert "ROSE by 100 points" in worse.out
    assert cai("eval", *options, "--strict").code == 4
    torn = script(tmp_path, "torn", false="no")
    failed = cai("eval", "--suite", suite(tmp_path), "--model", torn, "--no-cache")
    assert failed.code == 3
    assert f"{2 * COUNT} left out (behaviours: not_scripted)" in failed.out


def test_all_problems_are_told_before_a_model_is_opened(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("suite: bad\nbehaviours: [{id: x}]\n")
    done = cai(
        *("eval", "--suite", tmp_path / "bad.yaml", "--suite", "helpfulness", "--suite", "sycofancy"),
        *("--model", tmp_path / "nowhere", "--judge", "scripted:none.yaml", "--temperature", -1),
    )
    assert done.code == 1
    for part in ("bad.yaml:2:", "did you mean `sycophancy`?", "nowhere", "none.yaml", "temperatures"):
        assert part in done.err, part
    assert cai("eval", "--checkpoints").code == 1
    assert "no model is named" in cai("eval", "--suite", "harm").err
    unjudged = cai("eval", "--suite", "helpfulness", "--model", script(tmp_path, "one"))
    assert "needs a judge" in unjudged.err


def test_without_a_judge_the_suites_that_need_one_are_left_out_aloud(cai: Cai, tmp_path: Path) -> None:
    done = cai("eval", "--model", script(tmp_path, "one"), "--no-cache", "--prompts", 1, "--temperature", 0)
    assert "The suite helpfulness is left out: it needs a judge" in done.err
    for name in ("calibration", "confidence", "courtesy", "harm", "style", "sycophancy"):
        assert name in done.out


def test_a_judge_in_words_compares_in_both_orders_and_its_quality_is_printed(cai: Cai, tmp_path: Path) -> None:
    judge = script(tmp_path, "judge", **{"": "The better reply is (A)."})
    models = ("--before", script(tmp_path, "a"), "--after", script(tmp_path, "b", **{"": "no"}))
    done = cai("eval", "-s", "helpfulness", *models, "--judge", judge, "--no-cache")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "the judge, " in text
    assert "on pairs whose better answer is known: right in" in text
    assert "wins against the first model, by the judge" in text


def test_the_list_and_the_schema_need_no_model(cai: Cai) -> None:
    listed = cai("eval", "--list")
    assert listed.code == 0
    assert all(name in listed.out for name in ("sycophancy", "harm", "confidence", "calibration", "courtesy", "style", "lab"))
    assert "doubts-the-known" not in listed.out, "twins are told in words, not by their ids"
    schema = json.loads(cai("eval", "--schema").out)
    assert {"suite", "tables", "behaviours", "calibration", "drift", "preference"} <= set(schema["properties"])


def test_exports_are_written_or_refused(cai: Cai, tmp_path: Path) -> None:
    done = cai("eval", "--suite", suite(tmp_path), "--export", "inspect", tmp_path / "tasks")
    assert done.code == 0
    assert "2 tasks" in done.out
    assert (tmp_path / "tasks" / "cai_yes_no_false.jsonl").is_file()
    assert cai("eval", "--export", "lm-eval", tmp_path / "tasks").code == 1


# ---- a run


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "model")


def test_suites_of_a_run_are_part_of_its_evaluation_and_asked_again_of_its_models(
    cai: Cai, tmp_path: Path, llama: Path
) -> None:
    """One whole run with a suite in its configuration; then other suites on its models, and on a checkpoint of its training."""
    mine = suite(tmp_path, 4)
    path = write_config(tmp_path, llama, write_prompts(tmp_path / "prompts.jsonl"))
    config = yaml.safe_load(path.read_text())
    config["evaluation"] |= {"suites": [str(mine)], "temperatures": [0.0], "max_tokens": 4}
    config["dpo"] |= {"keep_checkpoints": True, "epochs": 2}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    done = cai("eval", path, "--json")
    assert done.code in (0, 3), done.err
    (own,) = json.loads(done.out)["suites"]
    assert [each["model"] for each in own["models"]] == [llama.name, f"{llama.name} after training"], (
        "a report names no folders of this machine"
    )
    run = Path(config["run"])
    with RunFolder.open(run, create=False, read_only=True) as folder:
        (stored,) = folder.measurements(SUITE_RESULTS, SuiteResult)
        assert len(list(folder.measurements(SUITE_ANSWERS, SuiteAnswer))) == 2 * 8
    assert stored == SuiteResult.model_validate(own)
    assert json.loads(cai("eval", path, "--json").out)["suites"] == [own], "nothing is left to do"
    assert "Nothing to do" in cai("run", path, "--plan").out
    planned = cai("run", path, "--plan", "--set", "evaluation.suite_prompts=2", "--json")
    assert planned.code == 0, planned.err
    assert next(each["state"] for each in json.loads(planned.out)["stages"] if each["stage"] == "evaluate") == "to do"

    again = cai("eval", run, "--checkpoints", "--suite", mine, "--suite", "lab", "--prompts", 2, "--json")
    assert again.code == 0, again.err
    first, lab = json.loads(again.out)["suites"]
    names = [each["model"] for each in first["models"]]
    steps = len(names) - 2
    assert names == [llama.name, *(f"dpo at step {n + 1}" for n in range(steps)), "after dpo"]
    assert steps >= 1
    assert lab["suite"] == "lab"
    with RunFolder.open(run, create=False, read_only=True) as folder:
        assert {each.suite for each in folder.measurements(SUITE_RESULTS, SuiteResult)} == {"yes-no", "lab"}
    assert cai("doctor", run).code == 0


def stored_calls(cache: Path) -> int:
    """Model calls on the disk so far, looked at from outside."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{cache / 'run.sqlite'}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM calls").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not made yet


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_never_interrupted_and_asks_nothing_twice(tmp_path: Path, llama: Path) -> None:
    """SIGKILL in a real process, ever later; then the outcome is that of one straight run, with as many model calls."""
    other = make_checkpoint(tmp_path / "other", seed=1)

    def command(name: str) -> list[str]:
        models = ["--before", str(llama), "--after", str(other), "-s", "confidence", "-s", "style", "--prompts", "20"]
        places = ["--cache", str(tmp_path / name), "--out", str(tmp_path / f"{name}.json")]
        return ["eval", *models, "--dtype", "float32", *places, "--json"]

    straight = run_apart(*command("straight"))
    assert straight.returncode == 0, straight.stderr
    total = stored_calls(tmp_path / "straight")
    kills = 0
    for share in (0.0, 0.3, 0.7):
        process = subprocess.Popen(
            [sys.executable, "-m", "cai.cli", *command("killed")],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and stored_calls(tmp_path / "killed") <= share * total:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    assert run_apart(*command("killed")).returncode == 0
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "straight.json").read_bytes()
    assert stored_calls(tmp_path / "killed") == total
