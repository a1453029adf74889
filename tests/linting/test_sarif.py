"""SARIF 2.1.0: what the standard asks of the parts that are written, checked part by part."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from constitution.linting import RULES, lint
from constitution.linting.findings import Edit
from constitution.linting.fixing import apply_edits
from constitution.linting.sarif import sarif

BROKEN = "# é\nprinciples:\n  - principle: Always be kind. \n  - id: a\n    principle: yes\n    weigth: 1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub folder").mkdir()
    (tmp_path / "sub folder" / "a%b ü.yaml").write_text(BROKEN)
    (tmp_path / "rules.md").write_text("- Never shout.\n-\n")
    return tmp_path


@pytest.fixture
def log(folder: Path) -> dict[str, Any]:
    report = lint([folder / "sub folder", folder, folder / "missing.yaml", Path("/none/at/all.yaml")])
    return json.loads(json.dumps(sarif(report, folder, "1.2.3")))


def _keys(value: dict[str, Any], required: set[str], optional: frozenset[str] | set[str] = frozenset()) -> None:
    assert required <= set(value) <= required | optional, value


def test_the_log_has_the_shape_of_the_standard(log: dict[str, Any]) -> None:
    """Sections 3.13 to 3.55 of the standard (OASIS, SARIF 2.1.0), as far as their objects are used."""
    _keys(log, {"version", "runs"}, {"$schema"})
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    _keys(run, {"tool", "results"}, {"columnKind", "originalUriBaseIds"})
    assert run["columnKind"] in {"utf16CodeUnits", "unicodeCodePoints"}
    for base in run["originalUriBaseIds"].values():
        _keys(base, {"uri"})
        assert urlparse(base["uri"]).scheme == "file"
        assert base["uri"].endswith("/")
    driver = run["tool"]["driver"]
    _keys(driver, {"name"}, {"semanticVersion", "rules"})
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", driver["semanticVersion"])
    for rule in driver["rules"]:
        _keys(rule, {"id"}, {"shortDescription", "fullDescription", "help", "defaultConfiguration"})
        assert rule["defaultConfiguration"]["level"] in {"none", "note", "warning", "error"}
        assert all(rule[key]["text"] for key in ("shortDescription", "fullDescription", "help"))
    assert run["results"]
    for result in run["results"]:
        _check_result(result, driver["rules"], set(run["originalUriBaseIds"]))


def _check_result(result: dict[str, Any], rules: list[dict[str, Any]], bases: set[str]) -> None:
    _keys(result, {"message", "ruleId", "ruleIndex", "level", "locations", "partialFingerprints"}, {"fixes"})
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["level"] in {"warning", "error"}
    assert result["message"]["text"]
    assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
    for location in result["locations"]:
        _check_artifact(location["physicalLocation"]["artifactLocation"], bases)
        region = location["physicalLocation"]["region"]
        _keys(region, {"startLine", "startColumn"})
        assert min(region.values()) >= 1
    for each in result.get("fixes", ()):
        for change in each["artifactChanges"]:
            _check_artifact(change["artifactLocation"], bases)
            assert change["replacements"]
            for replacement in change["replacements"]:
                _keys(replacement, {"deletedRegion"}, {"insertedContent"})
                _keys(replacement["deletedRegion"], {"startLine", "startColumn", "endLine", "endColumn"})


def _check_artifact(artifact: dict[str, Any], bases: set[str]) -> None:
    _keys(artifact, {"uri"}, {"uriBaseId"})
    assert re.fullmatch(r"[!#$%&'()*+,/:;=?@\[\]\w.~-]+", artifact["uri"], re.ASCII), "an RFC 3986 reference has no spaces"
    if "uriBaseId" in artifact:
        assert artifact["uriBaseId"] in bases
        assert not artifact["uri"].startswith("/")
        assert not urlparse(artifact["uri"]).scheme
    else:
        assert urlparse(artifact["uri"]).scheme == "file"


def test_results_are_the_findings_and_relative_names_lead_back_to_the_files(log: dict[str, Any], folder: Path) -> None:
    results = log["runs"][0]["results"]
    report = lint([folder / "sub folder", folder, folder / "missing.yaml", Path("/none/at/all.yaml")])
    for result, finding in zip(results, report.findings, strict=True):
        location = result["locations"][0]["physicalLocation"]
        artifact = location["artifactLocation"]
        path = folder / unquote(artifact["uri"]) if "uriBaseId" in artifact else Path(unquote(urlparse(artifact["uri"]).path))
        assert str(path) == finding.path
        assert (result["ruleId"], result["level"]) == (finding.rule, finding.severity)
        assert (location["region"]["startLine"], location["region"]["startColumn"]) == (finding.line, finding.column)
        assert finding.problem in result["message"]["text"]
    assert {result["ruleId"] for result in results} >= {"C101", "C109", "C110", "C117", "C206", "C221", "C111"}


def test_every_rule_is_described_whether_it_was_broken_or_not(log: dict[str, Any]) -> None:
    assert [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]] == list(RULES)


def test_fixes_are_the_edits_that_fix_makes(log: dict[str, Any], folder: Path) -> None:
    (spaces,) = [result for result in log["runs"][0]["results"] if result["ruleId"] == "C221"]
    edits = [
        Edit(where["startLine"], where["startColumn"], where["endLine"], where["endColumn"], each["insertedContent"]["text"])
        for each in spaces["fixes"][0]["artifactChanges"][0]["replacements"]
        for where in [each["deletedRegion"]]
    ]
    assert apply_edits(BROKEN, edits) == BROKEN.replace("kind. \n", "kind.\n")


def test_fingerprints_stay_when_lines_are_added_above(folder: Path) -> None:
    def fingerprints() -> set[str]:
        log = sarif(lint([folder / "sub folder"]), folder, "1.0.0")
        return {str(result["partialFingerprints"]) for result in log["runs"][0]["results"]}

    before = fingerprints()
    path = folder / "sub folder" / "a%b ü.yaml"
    path.write_text("# one more line\n\n" + path.read_text())
    assert fingerprints() == before
