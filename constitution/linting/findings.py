"""What the linter says: findings with a place, a rule and a severity, and the safe edits that would mend some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Edit:
    """Characters to replace by `text`. Lines and columns are 1-based, the end exclusive, a byte order mark not counted."""

    line: int
    column: int
    end_line: int
    end_column: int
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """Edits that belong together. `told` says what they do, in the past tense: "wrote the id `be-kind`"."""

    told: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. Line and column are 1-based, also where a file as a whole is meant: then they are 1:1.

    `problem` says what is wrong, `hint` what to do about it. `last_line` is given where one finding is about several lines.
    """

    path: str
    line: int
    column: int
    rule: str
    severity: Severity
    problem: str
    hint: str
    fix: Fix | None = None
    last_line: int = 0

    @property
    def order(self) -> tuple[str, int, int, str, str]:
        return self.path, self.line, self.column, self.rule, self.problem

    def __str__(self) -> str:
        todo = f" ({self.hint})" if self.hint else ""
        return f"{self.path}:{self.line}:{self.column} {self.rule} {self.severity}: {self.problem}{todo}"

    def as_json(self) -> dict[str, Any]:
        """The shape that `cai check --json` documents."""
        return {
            "path": self.path,
            "line": self.line,
            "column": self.column,
            "rule": self.rule,
            "severity": self.severity,
            "problem": self.problem,
            "hint": self.hint,
            "fixable": self.fix is not None,
        }
