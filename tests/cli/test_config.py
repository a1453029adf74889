"""`cai config`: every value with its origin, every setting with its meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cai.config import RunConfig
from tests.cli.conftest import Cai

SMALL = "policy: {name: here}\nlab: {items: 3}\ndpo:\n  beta: 0.3\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(SMALL)
    return path


def test_each_value_is_shown_with_its_origin(cai: Cai, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAI_SEED", "7")
    shown = json.loads(cai("config", "show", file, "--set", "dpo.epochs=1", "--json").out)
    assert shown["dpo.beta"] == {"value": 0.3, "origin": f"{file}:4:3"}
    assert shown["dpo.epochs"] == {"value": 1, "origin": "--set dpo.epochs"}
    assert shown["seed"] == {"value": 7, "origin": "environment CAI_SEED"}
    assert shown["loop.draft.temperature"] == {"value": 1.0, "origin": "default"}
    assert shown["sft"] == {"value": None, "origin": "default"}


def test_the_table_has_one_line_for_each_value(cai: Cai, file: Path) -> None:
    values = json.loads(cai("config", "show", file, "--json").out)
    lines = cai("config", "show", file).out.splitlines()
    assert [line.split()[0] for line in lines] == list(values)
    (beta,) = [line for line in lines if line.startswith("dpo.beta ")]
    assert beta.split() == ["dpo.beta", "0.3", f"{file}:4:3"]


def test_values_cannot_steer_the_terminal(cai: Cai, file: Path) -> None:
    result = cai("config", "show", file, "--set", 'policy.name="a\\e[31m\\nb"')
    assert "\x1b" not in result.out
    assert "a\\x1b[31m\\nb" in result.out


def test_what_was_shown_can_be_given_back_as_flags(cai: Cai, file: Path) -> None:
    shown = json.loads(cai("config", "show", file, "--json").out)
    flags = [part for name, each in shown.items() for part in ("--set", f"{name}={json.dumps(each['value'])}")]
    again = json.loads(cai("config", "show", *flags, "--json").out)
    assert {name: each["value"] for name, each in again.items()} == {name: each["value"] for name, each in shown.items()}


def test_a_broken_configuration_is_told_with_exit_code_1(cai: Cai, file: Path) -> None:
    result = cai("config", "show", file, "--set", "dpo.betta=1")
    assert (result.code, result.out) == (1, "")
    assert "did you mean `beta`?" in result.err


def test_every_setting_is_listed_with_default_and_meaning(cai: Cai) -> None:
    rows = {row["key"]: row for row in json.loads(cai("config", "keys", "--json").out)}
    assert {key.split(".")[0] for key in rows} == set(RunConfig.model_fields)
    assert rows["policy.name"]["required"]
    assert rows["dpo.beta"]["default"] == 0.1
    assert rows["loop.draft.temperature"]["default"] == 1.0
    assert rows["loop.critique.temperature"]["default"] == 0.0
    text = cai("config", "keys", "dpo.beta").out
    assert text.startswith("dpo.beta: 0.1\n    How dear it is")
    assert len(text.splitlines()) == 2
