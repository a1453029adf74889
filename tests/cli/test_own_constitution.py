"""`examples/own-constitution`: its files are sound. Its commands are executed by the test of the documents."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cai.config import read_config
from cai.data.prompts import read_items
from constitution.loading import load_constitution
from constitution.selection import applicable
from tests.checkpoints import make_checkpoint
from tests.cli.conftest import Cai
from tests.conftest import REPOSITORY
from tests.documents.fences import blocks

EXAMPLE = REPOSITORY / "examples" / "own-constitution"


def test_the_run_names_files_that_are_there_and_read_without_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    config = read_config(EXAMPLE / "run.yaml", (), {}).config
    assert config.prompts is not None
    read = read_items(config.prompts)
    assert not read.failures
    principles = load_constitution(config.constitution)
    assert {p.id for item in read.items for p in applicable(principles, item.tags)} == {p.id for p in principles.principles}


def test_the_readme_quotes_the_rules_as_they_are() -> None:
    quoted = (EXAMPLE / "README.md").read_text(encoding="utf-8").partition("```markdown\n")[2].partition("```")[0]
    assert (EXAMPLE / "constitution" / "rules.md").read_text(encoding="utf-8").endswith(f"\n{quoted}")


def test_every_prompt_that_the_readme_shows_can_be_shown(cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    model = make_checkpoint(tmp_path / "tiny", hidden_size=16)
    lines = [line for block in blocks(EXAMPLE / "README.md") for line in block.commands if line.startswith("cai show")]
    assert len(lines) >= 6
    for line in lines:
        shown = cai(*shlex.split(line)[1:], "--model", model)
        assert shown.code == 0, f"{line}\n{shown.err}"
        assert shown.out
    overflowing = cai(*shlex.split(next(line for line in lines if "--all" in line))[1:], "--model", model).out
    assert "context of 256: " in overflowing
    assert "refused; such a row fails as `prompt_too_long` and is counted (!256)" in overflowing
