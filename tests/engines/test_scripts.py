"""A script file in place of a model: a dry run of everything but training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scripted_runs import SCRIPT, write_scripted_run
from whole_runs import environment

from cai.config import read_config
from cai.engines.base import Generation, GenerationRequest, RequestFailure, SamplingParams, ScoreRequest, Scores
from cai.engines.opening import check_engine, open_engine
from cai.engines.scripted import ScriptedEngine
from cai.engines.scripts import check_script, read_script
from cai.errors import ProblemList
from cai.models.spec import ModelSpec
from cai.pipeline import read_inputs
from constitution.messages import user


def script(tmp_path: Path, text: str) -> str:
    (tmp_path / "script.yaml").write_text(text)
    return f"scripted:{tmp_path / 'script.yaml'}"


def answers(engine: ScriptedEngine, text: str, keys: int = 20) -> list[str]:
    requests = [GenerationRequest((user(text),), SamplingParams(), f"0/{n}/0/draft/0") for n in range(keys)]
    return [result.text if isinstance(result, Generation) else result.cause for _, result in engine.generate(requests)]


def test_the_first_key_that_stands_in_the_last_message_answers_and_of_several_one_is_drawn(tmp_path: Path) -> None:
    engine = read_script(script(tmp_path, "answers: {red: [one, two], blue: three}")).engine()
    assert set(answers(engine, "a red blue house")) == {"one", "two"}
    assert answers(engine, "a red blue house") == answers(engine, "a red blue house")
    assert set(answers(engine, "a blue house")) == {"three"}
    assert set(answers(engine, "a house")) == {"not_scripted"}


def test_scores_are_those_of_the_table_or_drawn_by_the_request(tmp_path: Path) -> None:
    given = read_script(script(tmp_path, "answers: {'': x}\nscores: {a: -1.5, b: -2}")).engine()
    drawn = read_script(script(tmp_path, "answers: {'': x}")).engine()
    requests = [ScoreRequest((user(f"which {n}?"),), ("a", "b")) for n in range(30)]
    assert [result for _, result in given.score(requests[:1])] == [Scores((-1.5, -2.0), 4)]
    found = [result.logps for _, result in drawn.score(requests) if isinstance(result, Scores)]
    assert found == [result.logps for _, result in drawn.score(requests) if isinstance(result, Scores)]
    assert 5 < sum(a > b for a, b in found) < 25
    assert all(-10 <= each <= 0 for logps in found for each in logps)


def test_what_the_script_says_is_in_its_fingerprint_and_its_path_is_not(tmp_path: Path) -> None:
    prints: list[str] = []
    for name, text in (("a", "answers: {'': x}"), ("b", "answers: {'': x}"), ("c", "answers: {'': y}")):
        (tmp_path / name).mkdir()
        prints.append(read_script(script(tmp_path / name, text)).engine().fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_requests_are_not_kept_in_memory(tmp_path: Path) -> None:
    engine = read_script(script(tmp_path, "answers: {'': x}")).engine()
    answers(engine, "hi")
    assert len(engine.asked) == 0


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("answers: {'': x}\nansers: {}\n", ":2:1: ", "ansers"),
        ("answers: {}\n", ":1:1: ", "answers"),
        ("answers:\n  '': x\n  red: []\n", ":3:3: ", "red"),
        ("answers: {'': x}\nscores:\n  a: 1.0\n", ":3:3: ", "scores.a"),
        ("answers: {'': x\n", ":2:1: ", ""),
        ("- a\n", ":1:1: ", ""),
        ("", ":1:1: ", ""),
    ],
)
def test_a_broken_script_is_refused_with_line_and_column(tmp_path: Path, text: str, place: str, problem: str) -> None:
    name = script(tmp_path, text)
    problems = check_engine(ModelSpec(name=name))
    assert problems
    assert f"script.yaml{place}" in problems[0].problem
    assert problem in problems[0].problem


def test_a_script_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (problem,) = check_script(f"scripted:{tmp_path / 'none.yaml'}")
    assert "none.yaml: cannot be read" in problem.problem


def test_a_dry_run_goes_through_the_loop_and_the_labels_without_torch(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path)
    program = "import sys; from cai.cli import app; app(sys.argv[1:], standalone_mode=False); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", program, "generate", str(config)], env=environment(), capture_output=True, text=True, check=False
    )
    assert "AssertionError" not in done.stderr, done.stderr


def test_a_script_is_not_trained(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path, dpo={"epochs": 1})
    with pytest.raises(ProblemList, match=r"is a script, and cannot be trained there.\n.*dpo: null"):
        read_inputs(read_config(config, (), {}).config)


def test_an_engine_of_a_script_is_opened_by_its_name(tmp_path: Path) -> None:
    name = script(tmp_path, yaml.safe_dump(SCRIPT))
    config = read_config(write_scripted_run(tmp_path / "run"), (), {}).config
    engine = open_engine(ModelSpec(name=name), config.engine)
    found = [result for _, result in engine.generate([GenerationRequest((user("hi"),), SamplingParams(), "k")])]
    assert not isinstance(found[0], RequestFailure)
