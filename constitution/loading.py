"""Principle files and folders → one `Constitution`. Every problem of every file is reported at once, with file:line:column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from constitution.documents import Place
from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.listing import SHIPPED, SUFFIXES, list_files, shipped_folder
from constitution.reading import MAX_FILE_BYTES, ReadFile, read_file
from constitution.schema import MAX_PROSE_CHARS, MAX_TEXT_CHARS, Constitution

__all__ = [
    "MAX_FILE_BYTES",
    "SHIPPED",
    "SUFFIXES",
    "PrincipleFile",
    "load_constitution",
    "load_files",
    "read_files",
    "shipped_folder",
]


def load_constitution(paths: Sequence[str | Path], *, name: str | None = None) -> Constitution:
    """Load and check principle files.

    Args:
        paths: Files, folders (every `.yaml`, `.yml` and `.md` in them but README.md, by name; links that leave the folder are
            refused), `shipped` for all that come along, or `shipped:NAME` for one file of those.
        name: The constitution's name; by default that of its only file, else the names joined.

    Raises:
        ConstitutionError: With every problem of every file.
    """
    files = load_files(paths)
    parts = [each.constitution for each in files]
    return Constitution(
        name=name or " + ".join(part.name for part in parts)[:MAX_TEXT_CHARS],
        description="\n".join(part.description for part in parts if part.description)[:MAX_PROSE_CHARS],
        source=parts[0].source if len(parts) == 1 else {},
        principles=tuple(principle for part in parts for principle in part.principles),
    )


@dataclass(frozen=True)
class PrincipleFile:
    """One sound file."""

    path: Path
    constitution: Constitution


def load_files(paths: Sequence[str | Path]) -> tuple[PrincipleFile, ...]:
    """As `load_constitution`, file by file; ids are unique over all of them."""
    files, errors = read_files(paths)
    if errors:
        raise ConstitutionError(errors)
    return tuple(PrincipleFile(each.path, each.constitution) for each in files if each.constitution is not None)


def read_files(paths: Sequence[str | Path]) -> tuple[tuple[ReadFile, ...], Sequence[PrincipleFileError]]:
    """Every file, sound or not, and all that is wrong with them and between them, in order of place. Raises nothing."""
    errors: list[PrincipleFileError] = []
    files = tuple(read_file(path) for path in list_files(paths, errors))
    for each in files:
        errors.extend(each.errors)
    errors.extend(_duplicate_ids(files))
    return files, sorted(errors, key=lambda error: (error.path, error.line, error.column))


def _duplicate_ids(files: Sequence[ReadFile]) -> Sequence[PrincipleFileError]:
    first: dict[str, tuple[Path, Place]] = {}
    found: list[PrincipleFileError] = []
    for file in files:
        for identity, place in file.ids:
            if identity not in first:
                first[identity] = (file.path, place)
                continue
            path, known = first[identity]
            problem = f"the id `{identity}` is used already at {path}:{known.line}"
            hint = "give one of them another id"
            found.append(PrincipleFileError(str(file.path), place.line, place.column, problem, hint, "C108"))
    return found
