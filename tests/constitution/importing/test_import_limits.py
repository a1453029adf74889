"""What has no room in a principle file is told, and what is said of the way back knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from samples import LLM_SWARM, chat, comparison, few_shot, imported, written

from constitution.importing import Fate, Imported, import_file, way_back
from constitution.importing.gathering import MAX_DESCRIPTION_CHARS
from constitution.schema import MAX_PROSE_CHARS

RULES = "\n".join(f"- Rule {number} " + "says much " * 100 for number in range(80)) + "\n"
"""Longer than any prose here: a list it stays."""

LONG = ("A word to all. " * 3200).strip()
"""More than `MAX_PROSE_CHARS`."""

assert MAX_PROSE_CHARS < len(LONG) < len(RULES)


def _told(result: Imported) -> list[tuple[int, Fate]]:
    return [(loss.line, loss.fate) for loss in result.losses]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{LONG}\n\n{RULES}", 1),
        (f"# House rules\n\n{LONG}\n\n{RULES}", 3),
        (f"- First, be brief.\n\n{LONG}\n\n{RULES}", 3),
        (f"{RULES}\n\n{LONG}\n", 83),
    ],
    ids=["first", "below the title", "between", "last"],
)
def test_a_paragraph_too_long_to_keep_is_told_and_does_not_come_back(tmp_path: Path, text: str, line: int) -> None:
    """Once the description was cut to fit, with no loss and "the same data" on the way back."""
    _, result, constitution, back = imported(tmp_path, "rules.md", text)
    assert (line, Fate.PART) in _told(result)
    assert any(f"`source.{key}` would have" in loss.what for loss in result.losses for key in ("before", "after"))
    assert "A word to all." not in constitution.description
    assert back is not None
    assert back.same == "different"
    assert back.places


def test_paragraphs_beyond_the_description_are_told_and_still_come_back(tmp_path: Path) -> None:
    half = LONG[: MAX_DESCRIPTION_CHARS * 2 // 3].strip()
    _, result, constitution, back = imported(tmp_path, "rules.md", f"{half}\n\n{RULES}\n\n{half}\n\nThe end.\n")
    assert [(loss.line, loss.fate, loss.what) for loss in result.losses] == [
        (85, Fate.UNUSED, "a paragraph between the rules, and the description has no more room")
    ]
    assert constitution.description.startswith(f"{half}\n\nThe end.\n\nImported from rules.md")
    assert back is not None
    assert back.same == "bytes"


@pytest.mark.parametrize("rule", ["-\n", "- " + "x" * 4001 + "\n"], ids=["empty", "too long"])
def test_a_block_is_not_said_to_be_kept_when_the_rule_below_it_is_left_out(tmp_path: Path, rule: str) -> None:
    _, result, *_ = imported(tmp_path, "rules.md", f"{RULES}\n> A quote.\n\n{rule}\n> Another.\n\n- Be kind.\n")
    assert _told(result) == [(82, Fate.PART), (84, Fate.ENTRY), (86, Fate.UNUSED)]


def test_a_bullet_whose_way_of_writing_is_too_long_is_told(tmp_path: Path) -> None:
    reasons = "\n".join("      far in" for _ in range(3600))
    text = f"- Be kind.\n\n{reasons}\n- Be brief.\n"
    _, result, constitution, _ = imported(tmp_path, "rules.md", text)
    assert len(constitution.principles) == 2
    assert [(loss.line, loss.fate, "`source.as_written`" in loss.what) for loss in result.losses] == [(1, Fate.PART, True)]


@pytest.mark.parametrize("body", [RULES, "You should be kind.\n"], ids=["list", "prose"])
def test_a_title_too_long_for_a_name_is_told_and_not_cut(tmp_path: Path, body: str) -> None:
    _, result, constitution, _ = imported(tmp_path, "rules.md", "# " + "title " * 700 + f"\n\n{body}")
    assert constitution.name == "rules"
    assert [(loss.line, loss.fate) for loss in result.losses if "title" in loss.what] == [(1, Fate.PART)]


LONG_NAME = "n" * (MAX_PROSE_CHARS + 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", [{"name": LONG_NAME, "critique_request": "Is it?", "revision_request": "Make it."}]),
        ("a.json", [{"dimension": LONG_NAME, "definition": "Be kind."}]),
        ("a.json", ["Be kind." + " " * MAX_PROSE_CHARS]),
        ("a.md", f"# {LONG_NAME}\n\nYou should be kind.\n\n## Else\n\nYou should be brief.\n"),
    ],
    ids=["langchain", "salmon", "outer space", "prose"],
)
def test_a_principles_name_or_outer_space_too_long_to_keep_is_told(tmp_path: Path, name: str, content: object) -> None:
    """A name of this length was once a traceback."""
    _, result, constitution, back = imported(tmp_path, name, content)
    assert constitution.principles
    assert Fate.PART in {loss.fate for loss in result.losses if "`source." in loss.what}
    assert back is None or back.same == "different"


def _swarm() -> dict[str, Any]:
    requests = [tuple(entry.values()) for entry in LLM_SWARM["constitutions"]] * 3500
    chats = [chat("Sing.", str(n), critic, "c", revise, "d") for n, (critic, revise) in enumerate(requests)]
    return LLM_SWARM | {"system_chat": chats}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("shots.json", [few_shot("a", str(n), "Is it rude?" if n % 2 else "Is it vain?") for n in range(9000)]),
        ("chats.json", _swarm()),
        ("hhh.jsonl", [comparison("a", str(n), "b", "A", rule=f"Be kind{' here' * (n % 2)}.") for n in range(9000)]),
    ],
    ids=["paper-few-shots", "llm-swarm", "paper-comparisons"],
)
def test_an_order_too_long_to_remember_is_told(tmp_path: Path, name: str, content: object) -> None:
    chosen, source, result = import_file(written(tmp_path, name, content))
    assert [loss.fate for loss in result.losses if "order` would have" in loss.what] == [Fate.PART]
    back = way_back(result.constitution, chosen, source, result)
    assert back is not None
    assert back.same == "different"
