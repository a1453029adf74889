"""JSON text → plain data in which every value still knows its line and column, as `constitution.documents` does for YAML.

Strict where the standard library is not: a key given twice, NaN, half a surrogate pair, and nesting or numbers without end are
problems. The scalars themselves are read by the standard library.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any, cast

from constitution.documents import WHOLE, Document, DocumentProblem, Path, Place, Span

MAX_DEPTH = 40
MAX_VALUES = 400_000

_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_json(text: str) -> Document:
    """Parse one JSON value. What is wrong with it is in `problems`: every doubled key, and the first break of the syntax."""
    return _read([(1, text)], rows=False)


def read_json_lines(text: str) -> Document:
    """Parse one JSON value a line; `value` is the list of them, and blank lines are no values."""
    lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1))
    return _read([(number, line) for number, line in lines if line.strip()], rows=True)


def _read(parts: list[tuple[int, str]], *, rows: bool) -> Document:
    document = Document(places={(): WHOLE})
    values: list[Any] = []
    count = 0
    for index, (line, text) in enumerate(parts):
        reader = _Reader(text, line, document, count)
        try:
            values.append(reader.whole((index,) if rows else ()))
        except _BrokenError as broken:
            place = reader.place(broken.at)
            document.problems.append(DocumentProblem(place.line, place.column, broken.problem, broken.hint))
        count = reader.count
        if len(document.problems) > 100 or count > MAX_VALUES:
            break
    if not document.problems:
        document.value = values if rows else values[0]
    return document


class _BrokenError(Exception):
    """Reading cannot go on from here."""

    def __init__(self, at: int, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.at, self.problem, self.hint = at, problem, hint


class _Reader:
    """Walks one text; `at` is an offset into it."""

    def __init__(self, text: str, first_line: int, document: Document, count: int) -> None:
        self.text = text
        self.first_line = first_line
        self.document = document
        self.count = count
        self.line_starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self.decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def place(self, at: int) -> Place:
        line = bisect_right(self.line_starts, at)
        number = self.first_line + line - 1
        column = at - self.line_starts[line - 1]
        return Place(number, column + 1, Span(number - 1, column, number - 1, column))

    def whole(self, path: Path) -> Any:
        value, at = self.value(self.skip(0), path, 0)
        end = self.skip(at)
        if end < len(self.text):
            raise _BrokenError(
                end, "not valid JSON: something follows the value", "one JSON value a file, or one a line (.jsonl)"
            )
        return value

    def skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return found.end() if found else at

    def value(self, at: int, path: Path, depth: int) -> tuple[Any, int]:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _BrokenError(at, f"more than {MAX_VALUES} values", "split the file")
        if depth > MAX_DEPTH:
            raise _BrokenError(at, f"nested more than {MAX_DEPTH} deep", "no format known here is")
        if path not in self.document.places:  # the entry of an object keeps the place of its key
            self.document.places[path] = self.place(at)
        match self.text[at : at + 1]:
            case "{":
                return self.mapping(at, path, depth)
            case "[":
                return self.sequence(at, path, depth)
            case _:
                return self.scalar(at)

    def scalar(self, at: int) -> tuple[Any, int]:
        try:
            value, end = self.decoder.raw_decode(self.text, at)
        except json.JSONDecodeError as error:
            raise _BrokenError(
                min(error.pos, len(self.text)), f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
            ) from None
        except ValueError as error:  # NaN, or a number of thousands of digits
            raise _BrokenError(at, f"not valid JSON: {error}", "quote it") from None
        if isinstance(value, str) and _SURROGATE.search(value):
            raise _BrokenError(
                at, "half a surrogate pair (`\\ud800` to `\\udfff` alone) is no character", "write the character itself"
            )
        if isinstance(value, float) and value in {float("inf"), float("-inf")}:
            raise _BrokenError(at, "the number is too large", "quote it")
        return value, end

    def mapping(self, at: int, path: Path, depth: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        at = self.skip(at + 1)
        while self.text[at : at + 1] != "}":
            if self.text[at : at + 1] != '"':
                raise _BrokenError(at, "not valid JSON: a key in double quotes is expected")
            place = self.place(at)
            key, at = cast("tuple[str, int]", self.scalar(at))
            at = self.skip(at)
            if self.text[at : at + 1] != ":":
                raise _BrokenError(at, "not valid JSON: a colon is expected")
            if key in lines:
                problem = f"`{key}` is given twice (first on line {lines[key]})"
                self.document.problems.append(DocumentProblem(place.line, place.column, problem, "delete one of them"))
            lines.setdefault(key, place.line)
            self.document.places.setdefault((*path, key), place)
            values[key], at = self.value(self.skip(at + 1), (*path, key), depth + 1)
            at = self.next(at, "}")
        return values, at + 1

    def sequence(self, at: int, path: Path, depth: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at = self.skip(at + 1)
        while self.text[at : at + 1] != "]":
            value, at = self.value(at, (*path, len(values)), depth + 1)
            values.append(value)
            at = self.next(at, "]")
        return values, at + 1

    def next(self, at: int, end: str) -> int:
        """Past a comma to the next entry, or to the closing bracket."""
        at = self.skip(at)
        if self.text[at : at + 1] == end:
            return at
        if self.text[at : at + 1] != ",":
            raise _BrokenError(at, f"not valid JSON: a comma or `{end}` is expected")
        after = self.skip(at + 1)
        if self.text[after : after + 1] == end:
            raise _BrokenError(at, "not valid JSON: a comma with nothing behind it", "delete it")
        return after


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")
