"""`examples/own-constitution`: its files are sound. Its commands are executed by the test of the documents."""

from __future__ import annotations

import pytest

from cai.config import read_config
from cai.data.prompts import read_items
from constitution.loading import load_constitution
from constitution.selection import applicable
from tests.conftest import REPOSITORY

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
