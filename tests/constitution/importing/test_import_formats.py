"""Every format: what its files become, what is told of the rest, and that they come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from samples import (
    COMPARISONS,
    CRITIQUES,
    FEW_SHOTS,
    LANGCHAIN,
    LLM_SWARM,
    MARKDOWN,
    PREFERENCES,
    PROSE,
    PYTHON,
    RULES,
    SALMON,
    imported,
    written,
)

from constitution.errors import ConstitutionError
from constitution.importing import Fate, import_file
from constitution.linting import lint
from constitution.rendering import principle_text

SAMPLES: list[tuple[str, str, Any]] = [
    ("paper-critiques", "requests.json", CRITIQUES),
    ("paper-preferences", "preferences.json", PREFERENCES),
    ("paper-few-shots", "shots.json", FEW_SHOTS),
    ("paper-comparisons", "hhh.jsonl", COMPARISONS),
    ("llm-swarm", "constitution.json", LLM_SWARM),
    ("langchain", "principles.json", LANGCHAIN),
    ("langchain", "principles.py", PYTHON),
    ("salmon", "collection.json", SALMON),
    ("inverse-cai", "050.json", RULES),
    ("inverse-cai", "060.json", "1. First rule.\n2. Second rule."),
    ("inverse-cai", "030.json", {"0": "First rule.", "7": "Second rule."}),
    ("markdown-list", "rules.md", MARKDOWN),
    ("prose", "guide.md", PROSE),
]


def _content(name: str, content: object) -> object:
    return json.dumps(content) if name == "060.json" else content


@pytest.mark.parametrize(("format_name", "name", "content"), SAMPLES, ids=[f"{f}-{n}" for f, n, _ in SAMPLES])
def test_a_format_is_found_by_the_content_of_its_file(tmp_path: Path, format_name: str, name: str, content: object) -> None:
    chosen, _, constitution, _ = imported(tmp_path, name, _content(name, content))
    assert chosen.name == format_name == constitution.source["format"]
    assert f"Imported from {name}: {chosen.title}." in constitution.description


WRITTEN_AGAIN = [each for each in SAMPLES if each[1] not in {"principles.py", "guide.md"}]


@pytest.mark.parametrize(("format_name", "name", "content"), WRITTEN_AGAIN, ids=[f"{f}-{n}" for f, n, _ in WRITTEN_AGAIN])
def test_what_is_imported_and_written_back_is_the_same_file(
    tmp_path: Path, format_name: str, name: str, content: object
) -> None:
    _, _, _, back = imported(tmp_path, name, _content(name, content))
    assert back is not None
    assert (back.same, back.places) == ("bytes", ())


@pytest.mark.parametrize("layout", [{"indent": 4}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}])
def test_the_layout_of_a_json_file_comes_back_when_it_is_a_usual_one(tmp_path: Path, layout: dict[str, Any]) -> None:
    rules = ["Prefer “quotes” that lead somewhere.", "Nimm das Kürzere."]
    *_, back = imported(tmp_path, "rules.json", json.dumps(rules, **layout))
    assert back is not None
    assert back.same == ("data" if "separators" in layout else "bytes")


def test_langchains_principles_keep_names_that_are_no_ids(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "principles.json", LANGCHAIN)
    assert [principle.id for principle in constitution.principles] == ["plain", "plain-2", "blamed"]
    assert [principle.source.get("name") for principle in constitution.principles] == [None, "Plain!", ""]
    assert result.losses == []


def test_yaml_is_read_as_json_is_and_keys_of_ones_own_are_kept(tmp_path: Path) -> None:
    rows = [LANGCHAIN[0] | {"owner": "Ada", "tags": ["x"]}]
    _, result, constitution, back = imported(tmp_path, "principles.yaml", yaml.safe_dump(rows, sort_keys=False))
    assert constitution.principles[0].source == {"owner": "Ada"}
    assert [(loss.where, loss.line, loss.fate) for loss in result.losses] == [
        ("[0].owner", 4, Fate.UNUSED),
        ("[0].tags", 5, Fate.PART),
    ]
    assert back is not None
    assert back.places == ("[0].tags",)


def test_a_python_file_is_parsed_and_not_run_and_what_is_computed_is_left_out(tmp_path: Path) -> None:
    _, result, constitution, back = imported(tmp_path, "principles.py", PYTHON)
    (principle,) = constitution.principles
    assert (principle.id, principle.critique_request) == ("plain", "Name the jargon in it.")
    (loss,) = result.losses
    assert (loss.line, loss.column, loss.fate) == (12, 13, Fate.ENTRY)
    assert "`critique_request`" in loss.what
    assert back is not None
    assert back.same == "data"


def test_salmons_weights_are_weights_and_its_opposites_are_kept(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "collection.json", SALMON)
    point, warm = constitution.principles
    assert (point.id, point.weight, point.source) == ("to-the-point", 3.0, {"name": "To the Point"})
    assert warm.source["negative_definition"] == "It should sound cold."
    assert [(loss.where, loss.fate) for loss in result.losses] == [("[1].negative_definition", Fate.UNUSED)]


@pytest.mark.parametrize("weight", [0, -1, 1001, "much", True, None])
def test_a_weight_that_is_none_here_is_told_and_one_is_used(tmp_path: Path, weight: object) -> None:
    _, result, constitution, _ = imported(tmp_path, "collection.json", [SALMON[0] | {"weight": weight}])
    assert constitution.principles[0].weight == 1.0
    assert [(loss.where, loss.fate) for loss in result.losses] == [("[0].weight", Fate.PART)]


def test_what_stands_below_a_bullet_is_its_reason_and_prose_is_the_description(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "rules.md", MARKDOWN)
    assert constitution.name == "House rules"
    assert constitution.description.startswith("What we ask of every answer.")
    first, second, third = constitution.principles
    assert (first.principle, second.principle) == (
        "Begin with the answer. People read the first line only.",
        "Name your source.",
    )
    assert third.source["section"] == "For guests"
    assert result.losses == []


def test_nested_bullets_and_paragraphs_are_the_reasons_of_the_bullet_above(tmp_path: Path) -> None:
    text = "- Be brief.\n  - Time is short.\n  - So is paper.\n\n- Be kind.\n\n  It costs nothing.\n"
    _, _, constitution, _ = imported(tmp_path, "rules.md", text)
    assert [(p.principle, p.rationale) for p in constitution.principles] == [
        ("Be brief.", "- Time is short.\n- So is paper."),
        ("Be kind.", "It costs nothing."),
    ]


def test_blocks_between_the_rules_and_empty_bullets_are_told_with_their_lines(tmp_path: Path) -> None:
    _, result, _, back = imported(tmp_path, "rules.md", "- Be brief.\n-\n- Be kind to every guest.\n\n> hm\n")
    assert [(loss.line, loss.fate) for loss in result.losses] == [(2, Fate.ENTRY), (5, Fate.UNUSED)]
    assert back is not None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rules.json", ["Say {{ this }} as it {% is %}, with {# this #} and {{{ all."]),
        ("rules.json", ["One {\r line { end\r\n that {{\r stays."]),
        ("collection.json", [{"dimension": "Braces", "definition": "Never write {{ 7 * 7 }} or {%- raw -%}{{."}]),
        ("rules.md", "- Say {{ this }} as it stands.\n"),
    ],
)
def test_braces_in_imported_texts_are_text_and_never_templates(tmp_path: Path, name: str, content: object) -> None:
    _, _, constitution, back = imported(tmp_path, name, content)
    (principle,) = constitution.principles
    texts = content if isinstance(content, str) else json.dumps(content)
    assert json.dumps(principle_text(principle))[1:-1] in texts
    assert back is not None
    assert back.same == "bytes"


def test_space_around_a_text_is_kept_for_the_way_back(tmp_path: Path) -> None:
    rows = [{"name": "a", "critique_request": " Is it so? ", "revision_request": "Make it so.\n"}]
    _, _, constitution, back = imported(tmp_path, "principles.json", rows)
    assert constitution.principles[0].critique_request == "Is it so?"
    assert back is not None
    assert back.same == "bytes"


def test_texts_that_are_too_long_are_left_out_and_not_cut(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "rules.json", ["Be brief.", "x" * 4001])
    assert len(constitution.principles) == 1
    assert [(loss.where, loss.fate) for loss in result.losses] == [("[1]", Fate.ENTRY)]
    assert "4001 characters, more than 4000" in result.losses[0].what


def test_ids_are_unique_over_several_files_when_they_share_what_is_taken(tmp_path: Path) -> None:
    taken: dict[str, int] = {}
    path = written(tmp_path, "rules.json", RULES)
    first = import_file(path, taken=taken)[2].constitution
    second = import_file(path, taken=taken)[2].constitution
    assert not {principle.id for principle in first.principles} & {principle.id for principle in second.principles}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"principles": [{"id": "a", "principle": "b"}]}, "this is a principle file already"),
        ([], "no known format"),
        ({}, "no known format"),
        ([1, 2], "no known format"),
        ("no list and no heading", "no known format"),
        ([COMPARISONS[0] | LANGCHAIN[0]], "it could be paper-comparisons or langchain"),
        ([{"dimension": "a", "definition": " "}, {"dimension": 3, "definition": "x"}, 7], "it gives no principle"),
    ],
)
def test_a_file_of_no_one_format_is_refused_and_the_formats_are_listed(tmp_path: Path, content: object, told: str) -> None:
    name = "file.txt" if isinstance(content, str) else "file.json"
    with pytest.raises(ConstitutionError, match=told) as caught:
        import_file(written(tmp_path, name, content))
    if told == "no known format":
        assert "paper-critiques" in caught.value.errors[0].hint


def test_a_file_that_gives_no_principle_tells_every_reason_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError) as caught:
        import_file(
            written(tmp_path, "file.json", [{"dimension": "a", "definition": " "}, {"dimension": 3, "definition": "x"}, 7])
        )
    assert [(error.line, error.problem) for error in caught.value.errors[1:]] == [
        (4, "[0].definition: `definition` is empty"),
        (7, "[1].dimension: `dimension` is a number, not a text"),
        (10, "[2]: a number where an object is expected"),
    ]


def test_a_named_format_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match="not SALMON's principle collections"):
        import_file(written(tmp_path, "file.json", RULES), "salmon")


PRESUPPOSING = {"Say where the last answer is rude to a guest.", "Name the sums that are wrong."}


@pytest.mark.parametrize(("format_name", "name", "content"), SAMPLES, ids=[f"{f}-{n}" for f, n, _ in SAMPLES])
def test_wording_is_warned_of_only_where_a_request_takes_a_fault_for_granted(
    tmp_path: Path, format_name: str, name: str, content: object
) -> None:
    *_, constitution, _ = imported(tmp_path, name, _content(name, content))
    about_wording = [each.rule for each in lint([tmp_path / "out"]).findings if each.rule in {"C203", "C204", "C205"}]
    assert about_wording == ["C203"] * sum(each.critique_request in PRESUPPOSING for each in constitution.principles)
