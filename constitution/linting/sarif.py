"""Findings as SARIF 2.1.0, the form in which code hosts show findings beside the lines they are about."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from constitution.linting.checking import Report
from constitution.linting.findings import Edit, Finding
from constitution.linting.registry import RULES
from constitution.reading import ReadFile

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
ROOT = "%SRCROOT%"


def sarif(report: Report, root: Path, version: str) -> dict[str, Any]:
    """One SARIF log with one run; paths below `root` are written relative to it, as code hosts expect.

    Columns count Unicode characters from 1. The fingerprint of a result is made of its rule, its file and its line's text, so
    that it stays the same when lines are added above.
    """
    ids = list(RULES)
    texts = {str(file.path): file for file in report.files}
    results = [_result(finding, ids.index(finding.rule), texts.get(finding.path), root) for finding in report.findings]
    driver = {"name": "cai check", "semanticVersion": version, "rules": [_rule(each) for each in ids]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {ROOT: {"uri": root.resolve().as_uri() + "/"}},
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(identity: str) -> Mapping[str, Any]:
    rule = RULES[identity]
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.why}\n\nSee `cai check --explain {rule.id}`."},
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, index: int, file: ReadFile | None, root: Path) -> Mapping[str, Any]:
    location = _artifact(finding.path, root)
    lines: Sequence[str] = file.document.lines if file else ()
    text = lines[finding.line - 1].strip() if finding.line <= len(lines) else ""
    digest = hashlib.sha256(f"{finding.rule}\x1f{location['uri']}\x1f{text}".encode(errors="replace")).hexdigest()[:32]
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": f"{finding.problem}{f' ({finding.hint})' if finding.hint else ''}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": location,
                    "region": {"startLine": finding.line, "startColumn": finding.column},
                }
            }
        ],
        "partialFingerprints": {"ruleFileAndLine/v1": digest},
    }
    if finding.fix is not None:
        replacements = [_replacement(edit) for edit in finding.fix.edits]
        change = {"artifactLocation": location, "replacements": replacements}
        result["fixes"] = [{"description": {"text": finding.fix.told}, "artifactChanges": [change]}]
    return result


def _replacement(edit: Edit) -> Mapping[str, Any]:
    region = {
        "startLine": edit.line,
        "startColumn": edit.column,
        "endLine": edit.end_line,
        "endColumn": edit.end_column,
    }
    return {"deletedRegion": region, "insertedContent": {"text": edit.text}}


def _artifact(path: str, root: Path) -> Mapping[str, str]:
    """Where a file is: relative to the root when it lies below it. Links are not followed: the host knows the name it gave."""
    absolute = Path(os.path.abspath(path))
    home = Path(os.path.abspath(root))
    if absolute.is_relative_to(home):
        return {"uri": quote(absolute.relative_to(home).as_posix()), "uriBaseId": ROOT}
    return {"uri": absolute.as_uri()}
