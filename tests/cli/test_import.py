"""`cai import` and `cai convert`: what they print, write and refuse, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from constitution.loading import load_constitution
from tests.cli.conftest import Cai

RULES = ["Pick the reply with fewer words.", "Pick the reply that cites a page."]
COLLECTION = [
    {
        "dimension": "Brief",
        "definition": "The reply should be short.",
        "negative_definition": f"It should be long {number}.",
        "weight": 2,
    }
    for number in range(12)
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(name: str, content: object) -> Path:
    path = Path(name)
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def test_it_says_what_was_read_and_written_and_what_comes_back(cai: Cai) -> None:
    put("MyRules.json", RULES)
    result = cai("import", "MyRules.json")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "MyRules.json: results of Inverse Constitutional AI (icai)",
        "  read       2 entries (inverse-cai)",
        "  written    my-rules.yaml: 2 principles",
        "  not carried over: nothing",
        "  back       cai convert my-rules.yaml --to inverse-cai: identical, byte for byte",
    ]
    assert [principle.principle for principle in load_constitution(["my-rules.yaml"]).principles] == RULES


def test_what_it_says_of_the_way_back_is_what_convert_does(cai: Cai) -> None:
    source = put("rules.json", RULES)
    cai("import", source, "--out", "mine/rules.yaml")
    assert cai("convert", "mine/rules.yaml", "--to", "inverse-cai").out == source.read_text()
    written = cai("convert", "mine/rules.yaml", "--to", "inverse-cai", "--out", "again.json")
    assert (written.out, Path("again.json").read_bytes()) == ("again.json\n", source.read_bytes())


def test_what_it_writes_passes_the_check(cai: Cai) -> None:
    put("rules.json", RULES)
    put("collection.json", COLLECTION)
    cai("import", "rules.json", "collection.json", "--out", "mine")
    assert cai("check", "mine").code == 0


def test_losses_are_printed_with_their_places_a_long_list_is_cut_and_json_has_all(cai: Cai) -> None:
    put("collection.json", COLLECTION)
    told = cai("import", "collection.json").out.splitlines()
    assert "  not carried over: 12 (12 kept under `source`, used by nothing)" in told
    assert sum(line.startswith("    collection.json:") for line in told) == 10
    assert "    … and 2 more (--json lists all)" in told
    (file,) = json.loads(cai("import", "collection.json", "--json", "--force").out)["files"]
    assert [loss["line"] for loss in file["not_carried_over"]] == [5 + 6 * number for number in range(12)]
    assert file["not_carried_over"][0]["where"] == "[0].negative_definition"
    assert (file["format"], file["principles"], file["written_back"]) == ("salmon", 12, {"same": "bytes", "places": []})


def test_entries_left_out_give_exit_code_three_and_the_rest_is_written(cai: Cai) -> None:
    put("collection.json", [*COLLECTION[:1], {"dimension": "Vain"}])
    result = cai("import", "collection.json")
    assert result.code == 3
    assert "collection.json:8:2: [1]: `definition` is missing (entry left out)" in result.out
    assert "differs in 1 place: [1]" in result.out
    assert len(load_constitution(["collection.yaml"]).principles) == 1


def test_a_dry_run_tells_the_same_and_writes_nothing(cai: Cai, tmp_path: Path) -> None:
    put("rules.json", RULES)
    put("rules.yaml", "something")
    result = cai("import", "rules.json", "--dry-run")
    assert result.code == 0
    assert "  would give rules.yaml: 2 principles" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rules.json", "rules.yaml"]
    assert not json.loads(cai("import", "rules.json", "--dry-run", "--json").out)["files"][0]["written"]


def test_no_file_is_replaced_unless_forced_and_then_nothing_else_is_written_either(cai: Cai) -> None:
    put("rules.json", RULES)
    put("other.json", RULES)
    put("rules.yaml", "precious")
    result = cai("import", "other.json", "rules.json")
    assert result.code == 1
    assert "rules.yaml: exists already; nothing was written." in result.err
    assert Path("rules.yaml").read_text() == "precious"
    assert not Path("other.yaml").exists()
    assert cai("import", "rules.json", "--force").code == 0
    assert Path("rules.yaml").read_text() != "precious"
    assert cai("convert", "rules.yaml", "--to", "salmon", "--out", "rules.json").code == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rules.json", "more/rules.json"], "two sources would give this file"),
        (["rules.json", "more/rules.json", "--out", "a.yaml"], "2 sources give 2 principle files"),
        (["list.yaml"], "the principle file would replace its own source"),
        (["list.yaml", "--force"], "the principle file would replace its own source"),
        (["rules.json", "--out", "rules.json/deeper"], "cannot be written"),
    ],
)
def test_targets_that_cannot_be_are_refused_before_anything_is_written(
    cai: Cai, tmp_path: Path, arguments: list[str], told: str
) -> None:
    Path("more").mkdir()
    put("rules.json", RULES)
    put("more/rules.json", RULES)
    put("list.yaml", "- dimension: a\n  definition: b\n")
    before = sorted(tmp_path.rglob("*"))
    result = cai("import", *arguments)
    assert result.code == 1
    assert told in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_problems_of_all_files_are_told_at_once(cai: Cai) -> None:
    put("one.json", '["a",]')
    put("two.json", '{"a": 1, "a": 2}')
    put("good.json", RULES)
    result = cai("import", "one.json", "good.json", "two.json", "three.json")
    assert result.code == 1
    for place in ("one.json:1:5: ", "two.json:1:10: ", "three.json: there is no such file"):
        assert place in result.err
    assert not Path("good.yaml").exists()


def test_ids_are_unique_over_all_files_of_one_command(cai: Cai) -> None:
    put("one.json", RULES)
    put("two.json", RULES)
    cai("import", "one.json", "two.json", "--out", "mine")
    assert len(load_constitution(["mine"]).principles) == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["import"], "--formats lists what can be read"),
        (["import", "rules.json", "--from", "salmn"], "did you mean salmon?"),
        (["convert", "shipped", "--to", "prose"], "is no format here"),
    ],
)
def test_usage_errors_name_what_is_known(cai: Cai, arguments: list[str], told: str) -> None:
    result = cai(*arguments)
    assert result.code == 2
    assert told in " ".join(result.err.replace("│", " ").split())


def test_the_formats_are_listed_for_people_and_for_programs(cai: Cai) -> None:
    rows: list[dict[str, Any]] = json.loads(cai("import", "--formats", "--json").out)
    told = cai("import", "--formats").out
    assert len(rows) == 10
    assert all(row["name"] in told and row["shape"] in told for row in rows)
    assert [row["name"] for row in rows if not row["writable"]] == ["prose"]


def test_names_and_texts_of_files_cannot_steer_the_terminal(cai: Cai) -> None:
    put("a\x1b[31m.json", [{"dimension": "x", "definition": "y", "\x1b[2J": "z"}])
    result = cai("import", "a\x1b[31m.json")
    assert "\x1b" not in result.out
    assert "\\x1b[2J" in result.out


def test_convert_tells_what_the_other_format_has_no_place_for(cai: Cai) -> None:
    result = cai("convert", "shipped:honesty", "--to", "langchain")
    rows = json.loads(result.out)
    shipped = load_constitution(["shipped:honesty"]).principles
    assert [row["name"] for row in rows] == [principle.id for principle in shipped]
    assert [row["critique_request"] for row in rows] == [principle.critique_request for principle in shipped]
    fields = [line.split("`")[1] for line in result.err.splitlines()]
    assert fields == ["rationale", "applies_to", "preference_question", "tests"]


def test_convert_writes_a_request_where_a_principle_has_none(cai: Cai) -> None:
    put("mine.md", "- Be brief.\n")
    (row,) = json.loads(cai("convert", "mine.md", "--to", "langchain").out)
    assert row["critique_request"].endswith("Be brief.")
    assert row["revision_request"].endswith("Be brief.")


def test_convert_renders_parameters(cai: Cai) -> None:
    put("mine.yaml", "principles:\n  - id: a\n    principle: At most {{ n }} words.\n    parameters: {n: 5}\n")
    assert json.loads(cai("convert", "mine.yaml", "--to", "inverse-cai").out) == ["At most 5 words."]


@pytest.mark.parametrize("name", ["paper-few-shots", "paper-comparisons"])
def test_convert_refuses_a_format_that_would_hold_nothing(cai: Cai, name: str) -> None:
    put("mine.md", "- Be brief.\n")
    result = cai("convert", "mine.md", "--to", name)
    assert result.code == 1
    assert "holds nothing else" in result.err


@pytest.mark.parametrize(
    "name",
    [
        "paper-critiques",
        "paper-preferences",
        "paper-comparisons",
        "llm-swarm",
        "langchain",
        "salmon",
        "inverse-cai",
        "markdown-list",
    ],
)
def test_what_convert_writes_of_the_shipped_principles_is_read_again_as_that_format(cai: Cai, name: str) -> None:
    suffix = {"paper-comparisons": "jsonl", "markdown-list": "md"}.get(name, "json")
    put(f"out.{suffix}", cai("convert", "shipped", "--to", name).out)
    result = cai("import", f"out.{suffix}", "--json", "--out", "again.yaml")
    (file,) = json.loads(result.out)["files"]
    assert (result.code, file["format"], file["written_back"]["same"]) == (0, name, "bytes")
    shipped = load_constitution(["shipped"]).principles
    assert file["principles"] == len(shipped)
    if name == "paper-comparisons":
        assert file["tests"] == sum(len(principle.tests) for principle in shipped)
