"""Other people's files, read as what they are: JSON, JSON lines, YAML, Python or Markdown. Knows no format of principles.

They are untrusted: sizes and nesting are bounded, and nothing in them is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from constitution.documents import Document, Place, read_document
from constitution.documents import Path as DataPath
from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.importing.json_documents import read_json, read_json_lines


class Kind(StrEnum):
    JSON = "JSON"
    LINES = "JSON lines"
    YAML = "YAML"
    PYTHON = "Python"
    MARKDOWN = "Markdown"


MAX_BYTES = {
    Kind.JSON: 16_000_000,
    Kind.LINES: 16_000_000,
    Kind.YAML: 500_000,  # PyYAML takes seconds for more
    Kind.PYTHON: 1_000_000,
    Kind.MARKDOWN: 500_000,  # markdown-it-py takes many seconds for more of the worst
}
_SUFFIXES = {
    ".json": Kind.JSON,
    ".jsonl": Kind.LINES,
    ".ndjson": Kind.LINES,
    ".yaml": Kind.YAML,
    ".yml": Kind.YAML,
    ".py": Kind.PYTHON,
    ".md": Kind.MARKDOWN,
    ".markdown": Kind.MARKDOWN,
}


@dataclass(frozen=True)
class Source:
    """One file as it was read. `document` holds the data of JSON and YAML files; it is empty for Python and Markdown."""

    path: Path
    kind: Kind
    text: str
    document: Document

    @property
    def data(self) -> object:
        return self.document.value

    @property
    def mapping(self) -> Mapping[str, Any]:
        """The data where it is an object; else nothing."""
        data = self.data
        return cast("Mapping[str, Any]", data) if isinstance(data, dict) else {}

    @property
    def rows(self) -> list[object]:
        """The data where it is a list; else nothing."""
        data = self.data
        return cast("list[object]", data) if isinstance(data, list) else []

    @property
    def objects(self) -> list[Mapping[str, Any]]:
        """The objects among `rows`."""
        return [cast("Mapping[str, Any]", row) for row in self.rows if isinstance(row, dict)]

    @property
    def texts(self) -> list[str]:
        """The texts among `rows`."""
        return [row for row in self.rows if isinstance(row, str)]

    def place(self, path: DataPath) -> Place:
        return self.document.place(path)


def read_source(path: Path) -> Source:
    """Read a file by its ending, or by how it begins when the ending says nothing.

    Raises:
        ConstitutionError: With every problem found: unreadable, too large, not UTF-8, or broken JSON or YAML.
    """
    text, size = _text(path, max(MAX_BYTES.values()))
    kind = _SUFFIXES.get(path.suffix.lower()) or _kind_of(text)
    if size > MAX_BYTES[kind]:
        raise _refused(path, f"more than {MAX_BYTES[kind]} bytes is too much for {kind}", "split it")
    document = _document(kind, text)
    if kind is Kind.JSON and document.problems:
        # JSON lines are often called .json.
        lines = read_json_lines(text)
        if not lines.problems and len(lines.value) > 1:
            kind, document = Kind.LINES, lines
    if document.problems:
        raise ConstitutionError(
            [PrincipleFileError(str(path), each.line, each.column, each.problem, each.hint) for each in document.problems]
        )
    return Source(path, kind, text, document)


def _text(path: Path, limit: int) -> tuple[str, int]:
    """A file's text, and its size in bytes."""
    if not path.is_file():
        raise _refused(path, "a folder, not a file" if path.is_dir() else "there is no such file")
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror or error})") from error
    if len(raw) > limit:
        raise _refused(path, f"more than {limit} bytes is too much", "split it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise _refused(path, "not UTF-8 text", "save the file as UTF-8", line, column) from None
    if not text.strip():
        raise _refused(path, "the file is empty")
    return text, len(raw)


def _kind_of(text: str) -> Kind:
    start = text.lstrip()[:1]
    return Kind.JSON if start in {"[", "{", '"'} else Kind.MARKDOWN


def _document(kind: Kind, text: str) -> Document:
    match kind:
        case Kind.JSON:
            return read_json(text)
        case Kind.LINES:
            return read_json_lines(text)
        case Kind.YAML:
            return read_document(text)
        case _:
            return Document()


def _refused(path: Path, problem: str, hint: str = "", line: int = 0, column: int = 0) -> ConstitutionError:
    return ConstitutionError([PrincipleFileError(str(path), line, column, problem, hint)])
