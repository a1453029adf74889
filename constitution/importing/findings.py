"""What an import tells about itself: what could not be carried over, each with its place. Pure data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from constitution.documents import Path
from constitution.schema import Constitution


class Fate(StrEnum):
    """What became of something that a principle file has no place for."""

    ENTRY = "entry left out"
    PART = "part left out"
    PROSE = "kept as prose"
    UNUSED = "kept under `source`, used by nothing"


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing that was not carried over. `line` and `column` are 1-based; `where` is its place in the data (`[3].prompt`)."""

    file: str
    line: int
    column: int
    where: str
    what: str
    fate: Fate

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{self.file}:{self.line}:{self.column}: {where}{self.what} ({self.fate})"


@dataclass(frozen=True, slots=True)
class Imported:
    """What one file gave. `entries` counts what it holds, in the format's own units.

    `original` is its data, to compare with what is written back; `returns` says whether anything can be.
    """

    constitution: Constitution
    entries: int
    losses: Sequence[Loss]
    remarks: Sequence[str]
    original: object = field(repr=False)
    returns: bool = True


def where(path: Path) -> str:
    """A path as one writes it: `[3].prompt[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
