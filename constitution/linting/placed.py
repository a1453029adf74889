"""Principles together with where they stand in their files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import ValidationError

from constitution.documents import Path as Loc
from constitution.linting.salvage import salvage
from constitution.reading import MAX_PROBLEMS, ReadFile, entries
from constitution.schema import Principle
from constitution.template_places import TEMPLATED

Position: TypeAlias = tuple[int, int]
"""1-based line and column."""


@dataclass(frozen=True, slots=True)
class PlacedPrinciple:
    """One principle, its file, and its path in the file's document.

    Of a principle with errors it holds what can be read: see `Salvaged` for `unread` and `kept`.
    """

    principle: Principle
    file: ReadFile
    at: Loc
    unread: frozenset[str] = frozenset()
    kept: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])

    def whole(self, *keys: str) -> bool:
        """Whether all of these parts could be read; only then is what they do not hold not there."""
        return self.unread.isdisjoint(keys)

    def place(self, key: str, index: int) -> int:
        """The place in the file of an entry of a list, from 0."""
        return self.kept[key][index] if key in self.kept else index

    def position(self, *below: str | int) -> Position:
        """Where a part of the principle stands: that of its key, or the nearest place above it."""
        match below:
            case str(key), int(index), *rest:
                below = key, self.place(key, index), *rest
            case _:
                pass
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
    """Every principle of the files; of those that have errors, what can be read."""
    return [placed for file in files for placed in _principles(file)]


def _principles(file: ReadFile) -> Iterable[PlacedPrinciple]:
    if file.constitution is not None:
        for index, principle in enumerate(file.constitution.principles):
            yield PlacedPrinciple(principle, file, ("principles", index))
        return
    salvages = 0
    for index, entry in enumerate(entries(file.value.get("principles"))):
        broken_texts = file.examined.get(index)
        if broken_texts is None:
            continue
        try:
            sound = None if broken_texts else Principle.model_validate(entry)
        except ValidationError:
            sound = None
        at = ("principles", index)
        if sound is not None:
            yield PlacedPrinciple(sound, file, at)
        elif salvages < MAX_PROBLEMS:  # as many as are told to be broken
            salvages += 1
            read = salvage(entry, broken_texts)
            if read is not None:
                yield PlacedPrinciple(read.principle, file, at, read.unread, read.kept)
