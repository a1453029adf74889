"""A principle that is asked for and not there is told in the same words by every command, with the nearest one there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cai.errors import UnknownPrincipleError, unknown_principles
from tests.cli.conftest import Cai

TOLD = "there is no principle `be-kindd` here"
NEAR = "did you mean `be-kind`?"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.md").write_text("- Be kind.\n- Name a source.\n")
    (tmp_path / "model").mkdir()
    settings = {"constitution": ["mine.md"], "principles": ["be-kindd"], "policy": {"name": "model"}, "lab": {"items": 2}}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    gate = {**settings, "principles": [], "loop": {"gate": {"harm": "be-kindd", "helpfulness": None}}}
    (tmp_path / "gate.yaml").write_text(json.dumps(gate))
    labels = {**settings, "principles": [], "labels": {"principles": ["be-kindd"]}}
    (tmp_path / "labels.yaml").write_text(json.dumps(labels))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("show", "be-kindd", "-c", "mine.md"), ""),
        (("show", "be-kind", "--config", "run.yaml"), "`principles`: "),
        (("try", "Hello", "-c", "mine.md", "-p", "be-kindd"), ""),
        (("test", "mine.md", "-p", "be-kindd"), ""),
        (("run", "run.yaml", "--plan"), "`principles`: "),
        (("run", "labels.yaml", "--plan"), "`labels.principles`: "),
        (("run", "gate.yaml", "--plan"), "`loop.gate.harm`: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
@pytest.mark.usefixtures("folder")
def test_every_command_says_it_in_the_same_words(cai: Cai, command: tuple[str, ...], key: str) -> None:
    done = cai(*command)
    assert done.code == 1
    assert f"{key}{TOLD}" in done.err
    assert NEAR in done.err


def test_names_without_a_near_one_are_told_with_those_there_are_and_each_once() -> None:
    known = [f"rule-{number:03}" for number in range(100)]
    first, second = unknown_principles(["zebra", "rule-007", "zebra", "x" * 100_000], known, key="principles")
    assert first.problem == "`principles`: there is no principle `zebra` here"
    assert first.hint.startswith("there are rule-000, rule-001, ")
    assert first.hint.endswith("rule-039 and 60 more")
    assert second.hint == first.hint
    assert str(UnknownPrincipleError("a", ["b"], advice="add it")).endswith("→ there are b; add it")
