"""Principle files → all findings of all of them: what loading refuses, and what is legal but unwise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from constitution.errors import PrincipleFileError
from constitution.linting.allowances import apply_allowances
from constitution.linting.declarations import check_parameters, check_tags
from constitution.linting.demonstrations import check_demonstrations
from constitution.linting.findings import Finding, Fix
from constitution.linting.layout import check_layout
from constitution.linting.mending import fixes
from constitution.linting.overlap import check_overlap
from constitution.linting.placed import PlacedPrinciple, placed_principles
from constitution.linting.registry import ALLOWABLE, RULES
from constitution.linting.tests_of_principles import check_tests
from constitution.linting.wording import check_wording
from constitution.loading import read_files
from constitution.reading import ReadFile

_OF_ONE = (check_tests, check_demonstrations, check_parameters)
_OF_ALL = (check_wording, check_overlap, check_tags)


@dataclass(frozen=True)
class Report:
    """Findings in order of place, and every file that was read."""

    findings: tuple[Finding, ...]
    files: tuple[ReadFile, ...]

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors


def lint(paths: Sequence[str | Path]) -> Report:
    """Check principle files. Raises nothing for what files may hold or be.

    Args:
        paths: As for `constitution.loading.load_constitution`.
    """
    files, errors = read_files(paths)
    found: dict[str, list[Finding]] = defaultdict(list)
    known = fixes(files)
    for error in errors:
        found[error.path].append(_finding(error, known.get((error.path, error.loc, error.rule))))
    for finding in _warnings(files, placed_principles(files)):
        found[finding.path].append(finding)
    for file in files:
        path = str(file.path)
        found[path] = list(apply_allowances(file, found[path], ALLOWABLE))
    every = (finding for findings in found.values() for finding in findings)
    return Report(tuple(sorted(every, key=lambda finding: finding.order)), files)


def _finding(error: PrincipleFileError, fix: Fix | None) -> Finding:
    rule = RULES[error.rule]
    return rule.at(error.path, (max(error.line, 1), max(error.column, 1)), error.problem, error.hint, fix)


def _warnings(files: Sequence[ReadFile], principles: Sequence[PlacedPrinciple]) -> Iterable[Finding]:
    for file in files:
        yield from check_layout(file)
    for placed in principles:
        for check in _OF_ONE:
            yield from check(placed)
    for check_all in _OF_ALL:
        yield from check_all(principles)
