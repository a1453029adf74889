"""The author's guide: every block is executed in order, and every field there is stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fences import blocks
from test_documents import REPOSITORY, cai_line, checkout, needs_embedded

from constitution.rendering import DEFAULT_CRITIQUE_REQUEST, DEFAULT_PREFERENCE_QUESTION, DEFAULT_REVISION_REQUEST
from constitution.schema import Demonstration, Principle, PrincipleTest

GUIDE = REPOSITORY / "principles" / "README.md"


def follow(folder: Path, kinds: set[str]) -> int:
    """Write the guide's files and run its commands of these kinds, in order; the number of commands."""
    count = 0
    for block in blocks(GUIDE):
        name = block.kind.partition(" ")[2]
        if block.kind.startswith(("yaml ", "markdown ")):
            (folder / name).write_text(block.text)
        for line in block.commands if block.kind in kinds else []:
            done = cai_line(line, folder, apart="slow" in block.kind)  # a few pages of text: not worth torch's start
            assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
            count += 1
    return count


def test_a_reader_can_follow_the_guide_up_to_the_model(tmp_path: Path) -> None:
    needs_embedded()  # its tokenizer counts the tokens
    assert follow(checkout(tmp_path), {"sh"}) == 4


@pytest.mark.slow
def test_a_reader_can_follow_the_guide_to_the_end(tmp_path: Path) -> None:
    needs_embedded()
    assert follow(checkout(tmp_path), {"sh slow"}) == 4


def test_the_guide_names_every_field_with_its_default() -> None:
    text = GUIDE.read_text()
    table = {row[1]: row[0] for row in re.findall(r"^(\| `(\w+)` \|.*)$", text, re.MULTILINE)}
    assert set(table) == set(Principle.model_fields)
    for model, field in ((Demonstration, "demonstrations"), (PrincipleTest, "tests")):
        assert all(f"`{name}`" in table[field] for name in model.model_fields)
    for default in (DEFAULT_CRITIQUE_REQUEST, DEFAULT_REVISION_REQUEST, DEFAULT_PREFERENCE_QUESTION):
        assert default in text


def test_the_linter_finds_in_the_bullet_what_the_guide_says_it_finds(tmp_path: Path) -> None:
    (bullet,) = [block.text for block in blocks(GUIDE) if block.kind.startswith("markdown ")]
    (tmp_path / "plain-answers.md").write_text(bullet)
    done = cai_line("cai check plain-answers.md", tmp_path)
    assert done.stdout.count("allows no exception") == 2
