"""Each rule fires on its own example and is silent once the example is mended; the documents are those that the code writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from constitution.linting import RULES, Rule, fix, lint
from constitution.linting.documentation import RULES_FILE, SCHEMA_FILE, documents
from constitution.listing import NOT_PRINCIPLES
from constitution.loading import load_constitution, shipped_folder
from constitution.schema import json_schema

REPOSITORY = Path(__file__).resolve().parents[2]
WITH_EXAMPLE = [rule for rule in RULES.values() if rule.example is not None]
each_rule = pytest.mark.parametrize("rule", WITH_EXAMPLE, ids=lambda rule: rule.id)


def _written(folder: Path, rule: Rule, text: str) -> Path:
    assert rule.example is not None
    path = folder / f"example{rule.example.suffix}"
    path.write_bytes(rule.example.file(text).encode())
    return path


@each_rule
def test_the_bad_example_of_a_rule_breaks_this_rule_and_no_other(rule: Rule, tmp_path: Path) -> None:
    assert rule.example is not None
    found = lint([_written(tmp_path, rule, rule.example.bad)]).findings
    assert {finding.rule for finding in found} == {rule.id}
    assert {finding.severity for finding in found} == {rule.severity}
    assert all(finding.problem for finding in found)


@each_rule
def test_the_mended_example_of_a_rule_breaks_none(rule: Rule, tmp_path: Path) -> None:
    assert rule.example is not None
    assert lint([_written(tmp_path, rule, rule.example.mended)]).findings == ()


@pytest.mark.parametrize("rule", [rule for rule in WITH_EXAMPLE if rule.fixable], ids=lambda rule: rule.id)
def test_what_a_rule_calls_fixable_is_fixed_into_its_mended_example(rule: Rule, tmp_path: Path) -> None:
    assert rule.example is not None
    path = _written(tmp_path, rule, rule.example.bad)
    changed, report = fix([path])
    assert [finding.rule for finding in changed[0].mended] == [rule.id]
    assert report.findings == ()
    assert load_constitution([path]) == load_constitution([_written(tmp_path, rule, rule.example.mended)])


@pytest.mark.parametrize("rule", [rule for rule in WITH_EXAMPLE if not rule.fixable], ids=lambda rule: rule.id)
def test_what_a_rule_does_not_call_fixable_is_left_alone(rule: Rule, tmp_path: Path) -> None:
    assert rule.example is not None
    path = _written(tmp_path, rule, rule.example.bad)
    before = path.read_bytes()
    assert fix([path])[0] == ()
    assert path.read_bytes() == before


@each_rule
def test_only_warnings_of_rules_let_a_file_load(rule: Rule, tmp_path: Path) -> None:
    """What loading refuses is an error, and what it takes is none, but for two rules that loading leaves to the check."""
    from constitution.errors import ConstitutionError

    assert rule.example is not None
    path = _written(tmp_path, rule, rule.example.bad)
    if rule.severity == "error" and rule.id not in {"C131", "C132"}:
        with pytest.raises(ConstitutionError):
            load_constitution([path])
    else:
        load_constitution([path])


def test_rules_without_an_example_are_those_that_no_file_can_show() -> None:
    bare = [rule for rule in RULES.values() if rule.example is None]
    assert [rule.id for rule in bare] == ["C101", "C102", "C120", "C218"]
    assert all(rule.situation for rule in bare)


def test_every_id_that_the_code_gives_is_a_rule_and_every_rule_of_loading_is_given() -> None:
    sources = [path.read_text() for path in (REPOSITORY / "constitution").glob("*.py")]
    given = {found for source in sources for found in re.findall(r'"(C\d{3})"', source)}
    assert given == {rule.id for rule in RULES.values() if rule.severity == "error"} - {"C131", "C132"}


def test_ids_are_promises() -> None:
    """People write them into comments and settings: an id may be added, never taken away or given a new meaning."""
    assert {
        identity: rule.title for identity, rule in RULES.items() if identity in {"C105", "C109", "C201", "C206", "C208"}
    } == {
        "C105": "not valid YAML",
        "C109": "an unknown key",
        "C201": "two principles that say nearly the same",
        "C206": "an absolute word",
        "C208": "a principle without tests",
    }
    errors = {f"C1{number:02}" for number in (*range(1, 26), 31, 32)}
    assert set(RULES) == errors | {f"C2{number:02}" for number in (*range(1, 19), *range(21, 25), 31, 32)}


@pytest.mark.parametrize("path", documents(), ids=str)
def test_the_documents_are_those_that_the_code_writes(path: Path) -> None:
    """`python -m constitution.linting.documentation` writes them."""
    assert (shipped_folder() / path).read_text(encoding="utf-8") == documents()[path]


def test_the_links_of_the_page_lead_to_its_own_headings() -> None:
    page = documents()[RULES_FILE]
    headings = re.findall(r"^### (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) == anchors


def test_the_documents_beside_the_principles_are_no_principles(tmp_path: Path) -> None:
    folder = shipped_folder()
    assert RULES_FILE.name.lower() in NOT_PRINCIPLES
    assert load_constitution([folder]).principles == load_constitution(["shipped"]).principles


def test_the_schema_accepts_what_the_shipped_files_hold_and_names_every_key_for_completion() -> None:
    import yaml

    schema = json.loads((shipped_folder() / SCHEMA_FILE).read_text(encoding="utf-8"))
    assert schema == json_schema()
    for path in shipped_folder().glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert text.splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA_FILE.name}"
        for principle in yaml.safe_load(text)["principles"]:
            assert set(principle) <= set(schema["$defs"]["Principle"]["properties"])


@pytest.mark.parametrize("paths", [["shipped"], ["examples/own-constitution/constitution"], ["cai/cli/scaffold/constitution"]])
def test_what_comes_along_has_no_findings(paths: list[str]) -> None:
    report = lint([path if path == "shipped" else REPOSITORY / path for path in paths])
    assert report.findings == ()
    assert report.files
