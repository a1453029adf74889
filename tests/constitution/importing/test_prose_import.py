"""Prose documents: a section is a principle with its reasons; a stated priority order becomes weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import PROSE, imported

from constitution.importing import Fate
from constitution.importing.outlines import read_outline
from constitution.importing.priorities import apply_order, find_orders


def test_a_section_gives_its_sentence_that_asks_and_its_whole_text_as_the_reason(tmp_path: Path) -> None:
    _, _, constitution, back = imported(tmp_path, "guide.md", PROSE)
    by_id = {principle.id: principle for principle in constitution.principles}
    safe = by_id["keeping-people-safe"]
    assert safe.principle == "Hal should warn readers about what can hurt them."
    assert safe.rationale == (
        "Priority 1 of 3: Keep people safe.\n\n"
        "A library has ladders. Hal should warn readers about what can hurt them. Ladders fall."
    )
    assert by_id["staying-honest"].principle == "We want Hal to say so when it does not know a book."
    assert constitution.name == "A guide for Hal"
    assert back is None


def test_a_sentence_that_leads_up_to_a_list_takes_it_along(tmp_path: Path) -> None:
    _, _, constitution, _ = imported(tmp_path, "guide.md", PROSE)
    fire = constitution.by_id("fire")
    assert fire.principle == "Hal must never:\n- call a fire drill a joke;\n- block a door."
    assert fire.source["section"] == "Keeping people safe"


def test_a_section_of_nothing_but_a_list_gives_a_principle_for_each_item(tmp_path: Path) -> None:
    _, _, constitution, _ = imported(tmp_path, "guide.md", PROSE)
    items = [principle for principle in constitution.principles if principle.source.get("section") == "Useful help"]
    assert [item.principle for item in items] == ["Answer the question first.", "Offer the shelf number. It saves a walk."]


def test_the_priority_order_becomes_weights_of_the_sections_and_of_all_below_them(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "guide.md", PROSE)
    weights = {principle.id: principle.weight for principle in constitution.principles}
    assert (weights["keeping-people-safe"], weights["fire"], weights["staying-honest"]) == (3.0, 3.0, 2.0)
    assert {weights[principle.id] for principle in constitution.principles if "section" in principle.source} == {3.0, 1.0}
    assert result.remarks[-1] == (
        "The priority order of line 9 became weights, the chance to be drawn: Keep people safe 3, Stay honest 2, Be useful 1."
    )


def test_what_asks_for_nothing_is_kept_in_the_description_and_told_with_its_line(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "guide.md", PROSE)
    told = {(loss.where, loss.line): loss.fate for loss in result.losses}
    history = PROSE.splitlines().index("## Our history") + 1
    assert told[("Our history", history)] is Fate.PROSE
    assert "The first librarian kept bees." in constitution.description


def test_every_word_of_the_document_stands_in_the_principle_file(tmp_path: Path) -> None:
    """Nothing is dropped: each paragraph is a rationale, a principle or part of the description."""
    _, _, constitution, _ = imported(tmp_path, "guide.md", PROSE)
    kept = " ".join(
        [constitution.description, *(f"{p.principle} {p.rationale} {p.id.replace('-', ' ')}" for p in constitution.principles)]
    )
    for block in (block for section in read_outline(PROSE).sections for block in section.blocks):
        for line in block.text.splitlines():
            words = line.strip().removeprefix("* ").removeprefix("- ")
            assert words in kept, line


@pytest.mark.parametrize(
    ("text", "principle"),
    [
        ("# A\n\nThe sun is far. Be kind to guests. It helps.", "Be kind to guests."),
        ("# A\n\nShould it rain? However, the model must stay dry. It must also smile.", "It must also smile."),
        ("# A\n\nWe should go. Replies should be short.", "Replies should be short."),
        ("# A\n\nDie Antwort soll kurz sein. Der Rest ist Prosa.", "Die Antwort soll kurz sein."),
        ("---\ntitle: Being *kind*\norder: 1\n---\n\nThe assistant should be kind.", "The assistant should be kind."),
        ("Kind\n====\n\nYou should **always** [smile](http://x.example).", "You should always smile."),
    ],
)
def test_the_sentence_that_asks_most_plainly_is_the_principle(tmp_path: Path, text: str, principle: str) -> None:
    _, _, constitution, _ = imported(tmp_path, "a.md", text)
    assert constitution.principles[0].principle == principle


def test_headings_inside_code_and_comments_are_none(tmp_path: Path) -> None:
    text = "# A\n\nThe assistant must be brief.\n\n```\n# no heading\n```\n\n<!--\n# none either\n-->\n"
    _, _, constitution, _ = imported(tmp_path, "a.md", text)
    assert [principle.id for principle in constitution.principles] == ["a"]
    assert "# no heading" in constitution.principles[0].rationale


def test_an_entry_shares_its_section_with_the_entry_that_names_it_better() -> None:
    """Two entries begin with one word; the section of the second was once given to the first, which has none."""
    text = "# D\n\nIn order of priority:\n\n1. Broadly safe\n2. Broadly fair\n3. Kind help\n\n"
    text += "## Being broadly fair\n\nx\n\n## Kindness\n\ny"
    sections = read_outline(text).sections
    (order,) = find_orders(sections)
    found = apply_order(sections, order)
    assert {section.heading: found[section.line].rank for section in sections if section.line in found} == {
        "Being broadly fair": 2,
        "Kindness": 3,
    }


def test_a_numbered_list_that_is_no_order_gives_no_weights(tmp_path: Path) -> None:
    text = PROSE.replace("These come in this order of priority:", "Three things:").replace("before all else", "at all")
    _, _, constitution, _ = imported(tmp_path, "guide.md", text)
    assert {principle.weight for principle in constitution.principles} == {1.0}


def test_a_section_longer_than_a_rationale_is_cut_at_a_paragraph_and_told(tmp_path: Path) -> None:
    paragraph = "The assistant should be brief. " + "Words. " * 1000
    _, result, constitution, _ = imported(tmp_path, "a.md", "# A\n\n" + "\n\n".join([paragraph.strip()] * 8))
    assert len(constitution.principles[0].rationale) <= 40_000
    assert [(loss.line, loss.fate) for loss in result.losses] == [(1, Fate.PART)]


SECTIONS = "\n\n## Being safe\n\nThe assistant must be safe.\n\n## Ethics\n\nThe assistant must be fair.\n\n## Helpfulness\n\n"
SECTIONS += "The assistant must help.\n"


@pytest.mark.parametrize(
    "stated",
    [
        "Safety first, then ethics, then helpfulness.",
        "Where they clash, safety comes first, then ethics, and then helpfulness.",
        "Safety comes first, followed by ethics and then helpfulness.",
        "Our priorities: first safety, then ethics, finally helpfulness.",
        "These have priority in this order: 1. safety, 2. ethics, 3. helpfulness.",
        "We rank them by priority, (1) safety, (2) ethics and (3) helpfulness. The list is short.",
        "In order of importance: safety, ethics, and helpfulness.",
        "We prioritise safety over ethics over helpfulness.",
    ],
)
def test_a_priority_order_in_a_sentence_becomes_weights(tmp_path: Path, stated: str) -> None:
    _, result, constitution, _ = imported(tmp_path, "a.md", f"# Rules\n\nTea is nice. {stated}{SECTIONS}")
    assert [principle.weight for principle in constitution.principles] == [3.0, 2.0, 1.0]
    assert result.remarks[-1].startswith("The priority order of line 3 became weights")
    assert not [loss for loss in result.losses if "priority order" in loss.what]


@pytest.mark.parametrize(
    ("stated", "names"),
    [
        ("Calm first, then colour, then comfort.", "Calm, colour, comfort"),
        ("The order of priority is this: 1. calm, 2. colour, 3. comfort.", "calm, colour, comfort"),
        ("These come in order of priority:\n\n1. Calm\n2. Colour", "Calm, Colour"),
    ],
)
def test_an_order_that_is_about_no_sections_is_told(tmp_path: Path, stated: str, names: str) -> None:
    _, result, constitution, _ = imported(tmp_path, "a.md", f"# Rules\n\n{stated}{SECTIONS}")
    assert {principle.weight for principle in constitution.principles} == {1.0}
    (loss,) = [loss for loss in result.losses if "priority order" in loss.what]
    assert f"“{names}”" in loss.what
    assert loss.fate is Fate.PROSE
    assert loss.line in {3, 5}


def test_a_second_order_is_told_and_changes_nothing(tmp_path: Path) -> None:
    stated = "Safety first, then ethics, then helpfulness.\n\nIn order of priority: helpfulness, ethics, safety."
    _, result, constitution, _ = imported(tmp_path, "a.md", f"# Rules\n\n{stated}{SECTIONS}")
    assert [principle.weight for principle in constitution.principles] == [3.0, 2.0, 1.0]
    assert [(loss.line, "another one" in loss.what) for loss in result.losses if "priority order" in loss.what] == [(5, True)]


@pytest.mark.parametrize(
    "sentence",
    [
        "First read the question, then answer it.",
        "Read the question first, then answer.",
        "The library opened first in 1901, then in 1950.",
        "There are 2. and 3. floors, and 1. is closed.",
        "See 1. above.",
        "The doors have priority: they close.",
    ],
)
def test_what_only_looks_like_an_order_is_none(tmp_path: Path, sentence: str) -> None:
    _, result, constitution, _ = imported(tmp_path, "a.md", f"# Rules\n\n{sentence}{SECTIONS}")
    assert {principle.weight for principle in constitution.principles} == {1.0}
    assert not [loss for loss in result.losses if "priority order" in loss.what]


def test_what_a_section_asks_for_besides_its_rule_is_told_sentence_by_sentence(tmp_path: Path) -> None:
    """A principle has room for one rule; the others once stood in the rationale without a word in the report."""
    text = """# House

The assistant must be brief. The sun is far. It should also name its source.

Never shout at a guest.

- Answer first.
- The door is green.
"""
    _, result, constitution, _ = imported(tmp_path, "a.md", text)
    assert constitution.principles[0].principle == "The assistant must be brief."
    told = [(loss.line, loss.what.split("”")[0].strip("“"), loss.fate) for loss in result.losses]
    assert told == [
        (3, "It should also name its source.", Fate.PROSE),
        (5, "Never shout at a guest.", Fate.PROSE),
        (7, "Answer first.", Fate.PROSE),
    ]


def test_the_list_that_a_rule_takes_along_is_not_told_as_left_out(tmp_path: Path) -> None:
    _, result, *_ = imported(tmp_path, "a.md", "# House\n\nThe assistant must:\n\n- Answer first.\n- Be kind.\n")
    assert result.losses == []
