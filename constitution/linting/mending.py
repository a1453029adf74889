"""Errors that can be mended without guessing what was meant: missing and improper ids, texts that YAML reads as something else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from constitution.documents import Document
from constitution.documents import Path as Loc
from constitution.errors import PrincipleFileError
from constitution.linting.findings import Edit, Fix
from constitution.reading import IdsFromTexts, ReadFile, entries
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
    ids = IdsFromTexts(identity for file in files for identity, _ in file.ids)
    found: dict[tuple[str, int, int, str], Fix] = {}
    for file in files:
        if not file.errors or file.is_markdown or not isinstance(file.document.value, dict):
            continue
        rules = {(error.line, error.column, error.rule) for error in file.errors}
        for path, rule, fix in _fixes(file.document, ids):
            place = file.document.place(path)
            if (place.line, place.column, rule) in rules:
                found[str(file.path), place.line, place.column, rule] = fix
    return found


def fix_of(error: PrincipleFileError, known: dict[tuple[str, int, int, str], Fix]) -> Fix | None:
    """The fix of an error, if it has one."""
    fix = known.get((error.path, error.line, error.column, error.rule))
    # Several keys of one entry can be missing, all told at its beginning; only an id can be made.
    return None if fix is not None and error.rule == "C110" and "`id`" not in error.problem else fix


def _fixes(document: Document, ids: IdsFromTexts) -> Iterable[tuple[Loc, str, Fix]]:
    for index, entry in enumerate(entries(document.value.get("principles"))):
        at = ("principles", index)
        text = entry.get("principle")
        if "id" not in entry and isinstance(text, str) and text.strip() and at in document.places:
            identity = ids.new(text)
            yield at, "C110", Fix(f"wrote the id `{identity}`", (_insert_id(document, at, _as_yaml(identity)),))
        given = entry.get("id")
        if isinstance(given, str) and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", given):
            named = re.search(r"[a-z0-9]", given.lower()) is not None
            edit = _replace(document, (*at, "id"), _as_yaml(ids.new(given))) if named else None
            if edit:
                yield (*at, "id"), "C114", Fix(f"wrote the id {edit.text}", (edit,))
    for path in document.places:
        if _belongs_in_quotes(document, path):
            span = document.places[path].span
            source = document.lines[span.line][span.column : span.end_column]
            edit = _replace(document, path, f'"{source}"')
            if edit:
                yield path, "C117", Fix(f"put {source} in quotes", (edit,))


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


def _replace(document: Document, path: Loc, text: str) -> Edit | None:
    """An edit of a plain value on one line; None where it is anything else, or an alias, or has a tag."""
    place = document.places.get(path)
    if place is None or place.style in ("|", ">", "-") or place.span.line != place.span.end_line:
        return None
    line, column, _, end = place.span
    source = document.lines[line][column:end]
    shared = sum(other.span == place.span for other in document.places.values()) > 1
    if not source or source.startswith(("&", "*", "!")) or shared or ('"' in source and text.startswith('"')):
        return None
    return Edit(line + 1, column + 1, line + 1, end + 1, text)


def _insert_id(document: Document, at: Loc, identity: str) -> Edit:
    span = document.places[at].span
    line, column = span.line, span.column
    if document.lines[line][column : column + 1] == "{":
        return Edit(line + 1, column + 2, line + 1, column + 2, f"id: {identity}, ")
    newline = "\r\n" if "\r\n" in document.text else "\n"
    return Edit(line + 1, column + 1, line + 1, column + 1, f"id: {identity}{newline}{' ' * column}")
