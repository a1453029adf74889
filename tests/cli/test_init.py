"""`cai init`: what it writes works, and nothing is overwritten."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from cai.config import RunConfig, read_config
from cai.data.prompts import read_items
from cai.models.checking import check_model
from cai.models.spec import ModelSpec
from constitution.loading import load_constitution
from constitution.rendering import principle_text
from constitution.schema import json_schema
from tests.cli.conftest import Cai

EMBEDDED = ModelSpec(name="smollm2-135m", adapter="feedback")


@pytest.fixture
def folder(cai: Cai, tmp_path: Path) -> Path:
    assert cai("init", tmp_path / "mine").code == 0
    return tmp_path / "mine"


def test_the_principles_are_sound_tested_and_one_has_a_parameter(cai: Cai, folder: Path) -> None:
    assert cai("check", folder / "constitution").code == 0
    principles = load_constitution([folder / "constitution"]).principles
    assert all(len(principle.tests) >= 2 for principle in principles)
    (parametrised,) = [principle for principle in principles if principle.parameters]
    assert "Do not mention coffee." in principle_text(parametrised)


def test_the_tests_of_the_parametrised_principle_keep_and_break_it(folder: Path) -> None:
    principle = load_constitution([folder / "constitution"]).by_id("not-a-word-about")
    for test in principle.tests:
        assert "coffee" not in test.better
        assert "coffee" in test.worse


@pytest.mark.slow
def test_exactly_one_test_fails_and_swapping_its_answers_mends_it(cai: Cai, folder: Path) -> None:
    if check_model(EMBEDDED):
        pytest.skip("the embedded model is not at hand")
    flags = ("--no-cache", "--no-metamorphic", "--json")
    done = cai("test", folder / "constitution", *flags)
    assert done.code == 4
    failed = [case for case in json.loads(done.out)["tests"] if case["result"] != "pass"]
    assert [(case["principle"], case["test"]) for case in failed] == [("truth-before-agreement", 3)]
    file = folder / "constitution" / "mine.yaml"
    head, _, tail = file.read_text(encoding="utf-8").partition("# This test fails")
    swapped = tail.replace("better:", "WORSE:").replace("worse:", "better:").replace("WORSE:", "worse:")
    file.write_text(head + "# " + swapped, encoding="utf-8")
    assert cai("test", folder / "constitution", *flags).code == 0


def test_the_run_reads_as_a_configuration_and_its_prompts_as_items(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    config = read_config(Path("run.yaml"), (), {}).config
    assert config.prompts is not None
    read = read_items(config.prompts)
    assert len(read.items) >= 12
    assert not read.failures
    load_constitution(config.constitution)


def test_the_run_names_every_section_there_is(folder: Path) -> None:
    """A setting that is new should be seen by newcomers, or left out here on purpose."""
    written = set(yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8")))
    assert set(RunConfig.model_fields) - written == {"lab"}


def test_the_schema_for_editors_lies_where_the_principles_name_it(folder: Path) -> None:
    first = (folder / "constitution" / "mine.yaml").read_text(encoding="utf-8").splitlines()[0]
    schema = folder / "constitution" / first.partition("$schema=")[2]
    assert json.loads(schema.read_text(encoding="utf-8")) == json_schema()


def test_nothing_is_written_where_anything_would_be_overwritten(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("mine: 1\n")
    result = cai("init", tmp_path)
    assert result.code == 1
    assert "run.yaml exists already; nothing was written" in result.err
    assert os.listdir(tmp_path) == ["run.yaml"]
    assert (tmp_path / "run.yaml").read_text() == "mine: 1\n"


def test_a_place_that_cannot_be_written_is_an_error_and_no_traceback(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cai("init", tmp_path / "file" / "below")
    assert result.code == 1
    assert "cannot be written" in result.err


def test_the_next_commands_can_be_pasted(cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = cai("init", tmp_path / "with space").out.partition("Next:\n")[2].splitlines()
    assert shown[0].strip() == f"cd '{tmp_path / 'with space'}'"
    assert [line.split()[1] for line in shown[1:]] == ["check", "test", "try", "run"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "cd " not in cai("init", ".").out
