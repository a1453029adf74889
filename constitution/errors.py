"""What can be wrong with principle files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrincipleFileError:
    """One problem of one file. `line` and `column` are 1-based; 0 where the file as a whole is meant.

    `rule` is the stable id (`C105`) under which `constitution.linting.rules` explains this kind of problem. `loc` leads by keys
    and positions to the value in the file's data, or to where one is missing; None where none is meant.
    """

    path: str
    line: int
    column: int
    problem: str
    hint: str = ""
    rule: str = ""
    loc: tuple[str | int, ...] | None = None

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{place}: {self.problem}" + (f"\n  → {self.hint}" if self.hint else "")


class ConstitutionError(Exception):
    """Every problem of every principle file, together."""

    def __init__(self, errors: Sequence[PrincipleFileError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)
