"""Where each character of a text stands in its file, however YAML folds, quotes or escapes it there.

Folding changes nothing but white space, so the characters that are none are counted: in the text, and in its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from constitution.documents import Document, Place
from constitution.markdown import Bullet, comments

_UNITS = {
    "'": re.compile(r"''|\S"),
    '"': re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.|$)|\S"),
}
_CHARACTER = re.compile(r"\S")
_MARKER = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])")
_PROPERTIES = re.compile(r"(?:[&!]\S*(?:\s+|$))+")
"""An anchor or a tag before a value."""
_WHITE = frozenset({"\\", "\\ ", "\\\t", "\\t", "\\n", "\\r", "\\N", "\\_", "\\L", "\\P", "\\v", "\\f"})
"""Escapes that stand for white space, and the one at the end of a line that stands for nothing."""


class Alignment:
    """The place of every character of a text that is no white space.

    Args:
        text: As it was read.
        units: What stands for one character each in the source, as (line, column, as written); white space is left out.
    """

    def __init__(self, text: str, units: Sequence[tuple[int, int, str]]) -> None:
        self._text = text
        self._places: Sequence[tuple[int, int]] = []
        written = "".join(unit for _, _, unit in units)
        plain = "".join(text.split())
        # A doubled quote or an escape is one unit of several characters: then only their number can be compared.
        if len(units) == len(plain) and (len(written) != len(units) or written == plain):
            self._places = [(line, column) for line, column, _ in units]

    def at(self, offset: int) -> tuple[int, int] | None:
        """1-based line and column of the character at an offset of the text, or of the next that is no white space.

        None where there is none, or where the source is not the text's own.
        """
        before = sum(map(len, self._text[:offset].split()))
        return self._places[before] if before < len(self._places) else None


def align_text(document: Document, place: Place, text: str) -> Alignment:
    """A text of a YAML file, with its place there."""
    return Alignment(text, list(_units(document, place)))


def align_bullet(document: Document, bullet: Bullet) -> Alignment:
    """A bullet of a Markdown file."""
    lines = document.lines[bullet.line - 1 : bullet.last_line]
    source = "\n".join(lines)
    for start, end in comments(source):
        source = source[:start] + re.sub(r"\S", " ", source[start:end]) + source[end:]
    units: list[tuple[int, int, str]] = []
    for number, line in enumerate(source.split("\n"), start=bullet.line):
        marker = _MARKER.match(line) if number == bullet.line else None
        found = _CHARACTER.finditer(line, marker.end() if marker else 0)
        units += [(number, each.start() + 1, each[0]) for each in found]
    return Alignment(bullet.text, units)


def _units(document: Document, place: Place) -> Iterator[tuple[int, int, str]]:
    """What stands for one character each, as (line, column, as written)."""
    pattern = _UNITS.get(place.style, _CHARACTER)
    for line, column, source in _source(document, place):
        for unit in pattern.finditer(source):
            if not (unit[0][0] == "\\" and place.style == '"' and _is_white(unit[0])):
                yield line, column + unit.start(), unit[0]


def _is_white(escape: str) -> bool:
    if len(escape) > 2:
        return chr(int(escape[2:], 16)).isspace() if int(escape[2:], 16) < 0x110000 else False
    return escape in _WHITE


def _source(document: Document, place: Place) -> Iterator[tuple[int, int, str]]:
    """The lines of a text's source, each with its number and the column where it begins: no key, no quotes, no header."""
    first, last = place.text_line, place.last_line
    begun = place.style in ("|", ">")
    for number in range(first, last + 1):
        line = document.lines[number - 1] if number <= len(document.lines) else ""
        start = place.span.column if number == place.span.line + 1 and not begun else 0
        end = place.span.end_column if number == place.span.end_line + 1 else len(line)
        if not begun:
            found = _PROPERTIES.match(line[:end], start)
            start = found.end() if found else start
            if place.style in _UNITS and line[start : start + 1] == place.style:
                start += 1
                begun = True
            begun = begun or place.style not in _UNITS
        if number == place.span.end_line + 1 and place.style in _UNITS:
            end -= 1
        yield number, start + 1, line[start:end]
