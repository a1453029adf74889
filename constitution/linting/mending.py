"""Errors that can be mended without a guess: missing and improper ids, and texts that YAML reads as something else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from constitution.documents import Document
from constitution.documents import Path as Loc
from constitution.errors import PrincipleFileError
from constitution.ids import first_words, unused
from constitution.linting.findings import Edit, Fix
from constitution.reading import ReadFile, entries
from constitution.schema import Constitution, Demonstration, Principle, PrincipleTest

_TEXTS = frozenset(
    name
    for model in (Constitution, Demonstration, Principle, PrincipleTest)
    for name, field in model.model_fields.items()
    if "str" in str(field.annotation) and not any(word in str(field.annotation) for word in ("tuple", "dict"))
)


def fixes(files: Sequence[ReadFile]) -> dict[tuple[str, int, int, str], Fix]:
    """What can be mended, by path, line, column and rule of the error that it mends."""
    if not any(file.errors for file in files):
        return {}
    taken = {identity: 0 for file in files for identity, _ in file.ids}
    found: dict[tuple[str, int, int, str], Fix] = {}
    for file in files:
        if not file.errors or file.is_markdown or not file.value:
            continue
        mender = _Mender(file, taken)
        found.update(((str(file.path), *wanted), fix) for wanted, fix in mender.fixes())
    return found


def fix_of(error: PrincipleFileError, known: dict[tuple[str, int, int, str], Fix]) -> Fix | None:
    """The fix of an error, if it has one."""
    fix = known.get((error.path, error.line, error.column, error.rule))
    # Several keys of one entry can be missing, all told at its beginning; only an id can be made.
    return None if fix is not None and error.rule == "C110" and "`id`" not in error.problem else fix


class _Mender:
    """Makes the fixes of one file's errors."""

    def __init__(self, file: ReadFile, taken: dict[str, int]) -> None:
        self.document = file.document
        self.taken = taken
        self.wanted = {(error.line, error.column, error.rule) for error in file.errors}
        self.spans = Counter(place.span for place in self.document.places.values())
        self.newline = "\r\n" if "\r\n" in self.document.text else "\n"

    def fixes(self) -> Iterable[tuple[tuple[int, int, str], Fix]]:
        """Each fix, with line, column and rule of the error that it mends."""
        for index, entry in enumerate(entries(self.document.value.get("principles"))):
            at = ("principles", index)
            text, given = entry.get("principle"), entry.get("id")
            if (wanted := self._error(at, "C110")) and "id" not in entry and isinstance(text, str) and text.strip():
                identity = self._new_id(text)
                yield wanted, Fix(f"wrote the id `{identity}`", (self._insert_id(at, _as_yaml(identity)),))
            if (
                (wanted := self._error((*at, "id"), "C114"))
                and isinstance(given, str)
                and re.search(r"[a-z0-9]", given.lower())
            ):
                edit = self._replace((*at, "id"), _as_yaml(self._new_id(given)))
                if edit:
                    yield wanted, Fix(f"wrote the id {edit.text}", (edit,))
        for path in self.document.places:
            if (wanted := self._error(path, "C117")) and _belongs_in_quotes(self.document, path):
                span = self.document.places[path].span
                source = self.document.lines[span.line][span.column : span.end_column]
                edit = self._replace(path, f'"{source}"')
                if edit and '"' not in source:
                    yield wanted, Fix(f"put {source} in quotes", (edit,))

    def _new_id(self, text: str) -> str:
        return unused(first_words(text), self.taken)

    def _error(self, path: Loc, rule: str) -> tuple[int, int, str] | None:
        """The error of this rule at a path, if there is one."""
        place = self.document.places.get(path)
        error = (place.line, place.column, rule) if place else None
        return error if error in self.wanted else None

    def _replace(self, path: Loc, text: str) -> Edit | None:
        """An edit of a plain value on one line; None where it is anything else, or an alias, or has a tag."""
        place = self.document.places[path]
        if place.style in ("|", ">", "-") or place.span.line != place.span.end_line or self.spans[place.span] > 1:
            return None
        line, column, _, end = place.span
        source = self.document.lines[line][column:end]
        if not source or source.startswith(("&", "*", "!")):
            return None
        return Edit(line + 1, column + 1, line + 1, end + 1, text)

    def _insert_id(self, at: Loc, identity: str) -> Edit:
        line, column, *_ = self.document.places[at].span
        if self.document.lines[line][column : column + 1] == "{":
            return Edit(line + 1, column + 2, line + 1, column + 2, f"id: {identity}, ")
        return Edit(line + 1, column + 1, line + 1, column + 1, f"id: {identity}{self.newline}{' ' * column}")


def _as_yaml(identity: str) -> str:
    """An id as YAML reads it back as a text: `no` and `404` need quotes."""
    return identity if isinstance(yaml.safe_load(identity), str) else f'"{identity}"'


def _belongs_in_quotes(document: Document, path: Loc) -> bool:
    text = path[-1:] and (path[-1] in _TEXTS or (len(path) > 1 and path[-2] == "applies_to"))
    if not text and not (len(path) > 1 and path[-2] == "parameters"):
        return False
    value = _value(document.value, path)
    if path in document.unreadable:
        return True
    return isinstance(value, bool) if not text else value is not None and not isinstance(value, (str, list, dict))


def _value(value: Any, path: Loc) -> Any:
    for part in path:
        value = value[part]
    return value
