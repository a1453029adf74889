"""Errors that can be mended without a guess: missing and improper ids, and texts that YAML reads as something else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, get_args, get_origin

import yaml

from constitution.documents import Document
from constitution.documents import Path as Loc
from constitution.ids import first_words, unused
from constitution.linting.findings import Edit, Fix
from constitution.reading import ReadFile
from constitution.schema import Constitution, Demonstration, Principle, PrincipleTest

Mended: TypeAlias = tuple[str, Loc | None, str]
"""Path, place in the data and rule of an error."""


def _holds_a_text(annotation: Any) -> bool:
    if get_origin(annotation) in (tuple, dict):
        return False
    return annotation is str or any(map(_holds_a_text, get_args(annotation)))


_TEXTS = frozenset(
    name
    for model in (Constitution, Demonstration, Principle, PrincipleTest)
    for name, field in model.model_fields.items()
    if _holds_a_text(field.annotation)
)


def fixes(files: Sequence[ReadFile]) -> dict[Mended, Fix]:
    """What can be mended, by the error that it mends."""
    if not any(file.errors for file in files):
        return {}
    taken = {identity: 0 for file in files for identity, _ in file.ids}
    found: dict[Mended, Fix] = {}
    for file in files:
        if file.errors and file.value and not file.is_markdown:
            found.update(_Mender(file, taken).fixes())
    return found


class _Mender:
    """Makes the fixes of one file's errors."""

    def __init__(self, file: ReadFile, taken: dict[str, int]) -> None:
        self.errors = file.errors
        self.document = file.document
        self.taken = taken
        self.spans = Counter(place.span for place in self.document.places.values())
        self.newline = "\r\n" if "\r\n" in self.document.text else "\n"

    def fixes(self) -> Iterable[tuple[Mended, Fix]]:
        for error in self.errors:
            fix = self._fix(error.rule, error.loc) if error.loc else None
            if fix is not None:
                yield (error.path, error.loc, error.rule), fix

    def _fix(self, rule: str, loc: Loc) -> Fix | None:
        match rule, loc:
            case "C110", ("principles", int(), "id"):
                return self._missing_id(loc[:-1])
            case "C114", ("principles", int(), "id"):
                return self._improper_id(loc)
            case "C117", _ if loc in self.document.places and _belongs_in_quotes(self.document, loc):
                return self._quotes(loc)
            case _:
                return None

    def _missing_id(self, at: Loc) -> Fix | None:
        text = _value(self.document.value, at).get("principle")
        if not isinstance(text, str) or not text.strip():
            return None
        identity = self._new_id(text)
        return Fix(f"wrote the id `{identity}`", (self._insert_id(at, _as_yaml(identity)),))

    def _improper_id(self, loc: Loc) -> Fix | None:
        given = _value(self.document.value, loc)
        if not isinstance(given, str) or not re.search(r"[a-z0-9]", given.lower()):
            return None
        edit = self._replace(loc, _as_yaml(self._new_id(given)))
        return Fix(f"wrote the id {edit.text}", (edit,)) if edit else None

    def _quotes(self, loc: Loc) -> Fix | None:
        span = self.document.places[loc].span
        source = self.document.lines[span.line][span.column : span.end_column]
        edit = self._replace(loc, f'"{source}"')
        return Fix(f"put {source} in quotes", (edit,)) if edit and '"' not in source else None

    def _new_id(self, text: str) -> str:
        return unused(first_words(text), self.taken)

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
