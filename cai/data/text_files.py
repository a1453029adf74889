"""Rows of text files: JSONL (and JSON arrays), CSV, plain lines; gzipped or not. Streams.

A row that cannot be read is a `BadRow`; a file that cannot is a `DataError` at once.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from cai.errors import DataError

TEXT_COLUMN = "prompt"
"""The one column of a plain text file."""

_WIDE_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
ICONV = "Convert the file first: `iconv -f LATIN1 -t UTF-8`."
_LONGEST_FIELD = 2**31 - 1
_KINDS: dict[object, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in its file. `place` is `file:line` (text files) or `file:row`, both from 1."""

    place: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: `cause` is a short slug, `detail` says it in words."""

    place: str
    cause: str
    detail: str


def kind_of(value: object) -> str:
    """The JSON kind of a value, in words."""
    return _KINDS.get(type(value), type(value).__name__)


def jsonl_rows(path: Path) -> Iterator[RawRow | BadRow]:
    """One JSON object a line, or one JSON array of objects."""
    lines = _lines(path)
    for number, line in lines:
        if isinstance(line, BadRow):
            yield line
            continue
        text = line.lstrip()
        if not text:
            continue
        if number == 1 and text.startswith("[") and not text.rstrip().endswith("]"):
            yield from _array_rows(path)
            return
        yield from _json_line(path, number, line)


def csv_rows(path: Path) -> Iterator[RawRow | BadRow]:
    """Comma, semicolon or tab between cells, a header line first. Cells are text."""
    csv.field_size_limit(_LONGEST_FIELD)
    # No byte that is not UTF-8 is a quote, a delimiter or a line end: cells stay apart, and the bad row is known.
    with _opened_text(path) as file:
        head = file.readline()
        if bad := _bad_byte(head):
            raise DataError(f"{path}:1: {bad}", ICONV)
        delimiter = max(",;\t", key=head.count)
        header = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), list[str]())]
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise DataError(f"{path}:1: the header names {', '.join(twice)} twice.", "Give every column its own name.")
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 2
            place = f"{path.name}:{line}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise DataError(
                        f"{path}:{line}: a quote is opened here and never closed.", "Close or double the quote."
                    ) from error
                yield BadRow(place, "broken_csv", f"lines {line} to {reader.line_num + 1}: {error}")
                continue
            if not cells:
                continue
            if bad := _bad_byte("".join(cells)):
                yield BadRow(place, "not_utf8", bad)
            elif len(cells) != len(header):
                yield BadRow(place, "wrong_number_of_cells", f"{len(cells)} cells, the header has {len(header)}")
            else:
                yield RawRow(place, dict(zip(header, cells, strict=True)))


def txt_rows(path: Path) -> Iterator[RawRow | BadRow]:
    """One prompt a line; blank lines are no rows."""
    for number, line in _lines(path):
        if isinstance(line, BadRow):
            yield line
        elif line.strip():
            yield RawRow(f"{path.name}:{number}", {TEXT_COLUMN: line})


def _lines(path: Path) -> Iterator[tuple[int, str | BadRow]]:
    """Numbered lines without their line ends; a line that is not UTF-8 is a `BadRow`."""
    try:
        with _opened(path) as file:
            start = 0
            for number, line in enumerate(file, start=1):
                if number == 1:
                    _refuse_wide_encoding(path, line)
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    offset = start + error.start
                    yield number, BadRow(f"{path.name}:{number}", "not_utf8", _not_utf8(offset, line[error.start]))
                else:
                    yield number, text.rstrip("\r\n")
                start += len(line)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}).", "Check the file and its permissions.") from error


def _json_line(path: Path, number: int, line: str) -> Iterator[RawRow | BadRow]:
    place = f"{path.name}:{number}"
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        yield BadRow(place, "broken_json", f"column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        yield BadRow(place, "broken_json", str(error))
    else:
        if isinstance(value, list) and number == 1:
            yield from _elements(path, cast("list[Any]", value))
        else:
            yield _object(place, value)


def _array_rows(path: Path) -> Iterator[RawRow | BadRow]:
    """A file that is one JSON array over many lines. It has to be held in memory as a whole."""
    with _opened(path) as file:
        try:
            value = json.loads(file.read().decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise _refused_encoding(path, error.start, error.object[error.start]) from error
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{error.lineno}:{error.colno}: broken JSON: {error.msg}.",
                "Mend it, or write one object a line (JSONL).",
            ) from error
    yield from _elements(path, value)


def _elements(path: Path, values: list[Any]) -> Iterator[RawRow | BadRow]:
    for number, value in enumerate(values, start=1):
        yield _object(f"{path.name}:{number}", value)


def _object(place: str, value: Any) -> RawRow | BadRow:
    if isinstance(value, dict):
        return RawRow(place, cast("dict[str, Any]", value))
    return BadRow(place, "wrong_type", f"a row is a JSON object, this one is {kind_of(value)}")


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


@contextmanager
def _opened_text(path: Path) -> Generator[io.TextIOWrapper]:
    """Text of a file in which bytes that are not UTF-8 are kept as lone surrogates."""
    try:
        with _opened(path) as binary:
            _refuse_wide_encoding(path, binary.read(4))
            binary.seek(0)
            with io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}).", "Check the file and its permissions.") from error


def _bad_byte(text: str) -> str:
    """What to say of the first byte that was not UTF-8 (see `_opened_text`); "" where all are."""
    found = next((ord(sign) - 0xDC00 for sign in text if "\udc80" <= sign <= "\udcff"), None)
    return "" if found is None else f"not UTF-8: byte 0x{found:02x}"


def _refuse_wide_encoding(path: Path, start: bytes) -> None:
    for mark, name in _WIDE_ENCODINGS.items():
        if start.startswith(mark):
            raise DataError(
                f"{path}: not UTF-8 from byte 0 on: it is {name}.", f"Convert it first: `iconv -f {name} -t UTF-8`."
            )


def _refused_encoding(path: Path, offset: int, byte: int) -> DataError:
    return DataError(f"{path}: {_not_utf8(offset, byte)}", ICONV)


def _not_utf8(offset: int, byte: int) -> str:
    return f"not UTF-8: byte 0x{byte:02x} at offset {offset}"
