"""Principles together with where they stand in their files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from constitution.documents import Path as Loc
from constitution.reading import ReadFile, entries
from constitution.schema import Principle
from constitution.template_places import TEMPLATED

Position: TypeAlias = tuple[int, int]
"""1-based line and column."""


@dataclass(frozen=True, slots=True)
class PlacedPrinciple:
    """One principle, its file, and its path in the file's document."""

    principle: Principle
    file: ReadFile
    at: Loc

    def position(self, *below: str | int) -> Position:
        """Where a part of the principle stands: that of its key, or the nearest place above it."""
        place = self.file.document.place((*self.at, *below))
        return place.line, place.column

    def position_of(self, phrase: str, *below: str | int) -> Position:
        """Where a phrase of a text first stands, also when the file breaks it over lines; else the position of the text."""
        document = self.file.document
        place = document.place((*self.at, *below))
        source = "\n".join(document.lines[place.text_line - 1 : place.last_line])
        start = place.span.column if place.text_line == place.span.line + 1 else 0
        found = re.compile(r"\s+".join(map(re.escape, phrase.split()))).search(source, start)
        if found is None or not phrase.strip():
            return place.line, place.column
        line_start = source.rfind("\n", 0, found.start()) + 1
        return place.text_line + source.count("\n", 0, found.start()), found.start() - line_start + 1

    def texts(self) -> Iterable[tuple[str, str]]:
        """The texts that reach a prompt as (key, text), those that are given."""
        for key in TEMPLATED:
            text = getattr(self.principle, key)
            if text:
                yield key, text


def placed_principles(files: Sequence[ReadFile]) -> Sequence[PlacedPrinciple]:
    """Every principle that is sound by itself, also those of files with errors."""
    return [PlacedPrinciple(principle, file, ("principles", index)) for file in files for index, principle in _sound(file)]


def _sound(file: ReadFile) -> Iterable[tuple[int, Principle]]:
    if file.constitution is not None:
        yield from enumerate(file.constitution.principles)
        return
    for index, entry in enumerate(entries(file.value.get("principles"))):
        if index not in file.examined:
            continue
        try:
            yield index, Principle.model_validate(entry)
        except ValidationError:
            continue
