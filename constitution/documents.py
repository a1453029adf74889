"""YAML text → plain data in which every value still knows its line and column.

Read through PyYAML's node tree, by the safe constructor. A duplicate key is a problem here, where PyYAML lets the last win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import yaml
from yaml.constructor import SafeConstructor
from yaml.reader import ReaderError

Path: TypeAlias = tuple[str | int, ...]

MAX_VALUES = 100_000
"""More values than this, aliases written out, and a document is refused: ten nested aliases can stand for billions."""


@dataclass(frozen=True, slots=True)
class Place:
    """1-based line and column. `text_line` is the line on which a text itself begins (one later for `|` and `>` blocks)."""

    line: int
    column: int
    text_line: int


@dataclass(frozen=True, slots=True)
class DocumentProblem:
    line: int
    column: int
    problem: str
    hint: str = ""


@dataclass
class Document:
    """`value` is None when the text is empty or broken. `places` of a mapping's entry is that of its key.

    `unreadable` are the values that stand as None because of a problem already told; `sources` holds the lines of texts that
    span several, as they are written.
    """

    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict[Path, Place])
    sources: dict[Path, str] = field(default_factory=dict[Path, str])
    unreadable: set[Path] = field(default_factory=set[Path])
    problems: list[DocumentProblem] = field(default_factory=list[DocumentProblem])

    def place(self, path: Path) -> Place:
        """The place of a value, or of the nearest thing above it that the text has."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(1, 1, 1)


def read_document(text: str) -> Document:
    """Parse one YAML document; what is wrong with it is in `problems`, all that can be found at once."""
    document = Document()
    try:
        node = cast("yaml.Node | None", cast("Any", yaml).compose(text, Loader=yaml.SafeLoader))
        if node is not None:
            document.value = _Reader(text, document).value(node, (), frozenset())
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error))
    except ReaderError as error:
        line, column = _line_and_column(text, error.position)
        problem = f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        document.problems.append(DocumentProblem(line, column, problem, "delete it"))
    except (RecursionError, _TooManyValuesError):
        document.value = None
        hint = "write out the aliases, or split the file"
        document.problems.append(
            DocumentProblem(1, 1, "the file is nested too deeply, or its aliases stand for too much", hint)
        )
    return document


class _TooManyValuesError(Exception):
    pass


def _syntax_problem(error: yaml.MarkedYAMLError) -> DocumentProblem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    told = error.problem or error.context or "it cannot be parsed"
    if "\\t" in told:
        return DocumentProblem(line, column, "not valid YAML: a tab", "indent with spaces")
    if "another document" in told:
        return DocumentProblem(line, column, "a second document begins here", "delete the line `---`, or make it another file")
    hint = "quote a text that holds `: ` or begins with a special character; indent with spaces"
    return DocumentProblem(line, column, f"not valid YAML: {told}", hint)


def _line_and_column(text: str, position: int) -> tuple[int, int]:
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


class _Reader:
    """Walks the node tree of one text, and notes places and problems in `document`."""

    def __init__(self, text: str, document: Document) -> None:
        self.lines = text.splitlines()
        self.document = document
        self.constructor = cast("Any", SafeConstructor())
        self.count = 0

    def value(self, node: yaml.Node, path: Path, above: frozenset[int]) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _TooManyValuesError
        place = Place(node.start_mark.line + 1, node.start_mark.column + 1, _text_line(node))
        known = self.document.places.get(path)
        # A key's own place is kept for its entry; only the line where the text begins comes from the value.
        self.document.places[path] = Place(known.line, known.column, place.text_line) if known else place
        if id(node) in above:
            return self._unreadable(path, place, "an alias that contains itself", "write it out")
        below = above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, below)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*path, index), below) for index, each in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.style not in ("'", '"'):
            # Inside quotes the source is not the text: it has escapes.
            last = node.end_mark.line + (0 if place.text_line > node.start_mark.line + 1 else 1)
            self.document.sources[path] = "\n".join(self.lines[place.text_line - 1 : last])
        try:
            return self.constructor.construct_object(node)
        except yaml.MarkedYAMLError as error:
            return self._unreadable(path, place, f"cannot be read: {error.problem}", "quote it")
        except ValueError as error:
            return self._unreadable(path, place, f"cannot be read: {error}", "quote it")

    def _unreadable(self, path: Path, place: Place, problem: str, hint: str) -> None:
        self.document.unreadable.add(path)
        self.document.problems.append(DocumentProblem(place.line, place.column, problem, hint))

    def _mapping(self, node: yaml.MappingNode, path: Path, above: frozenset[int]) -> Mapping[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problem = DocumentProblem(line, column, "a key has to be a word", "is a quote or a dash missing?")
                self.document.problems.append(problem)
                continue
            key = str(key_node.value)
            if key in lines:
                problem = f"`{key}` is given twice (first on line {lines[key]})"
                self.document.problems.append(DocumentProblem(line, column, problem, "delete one of them"))
                continue
            lines[key] = line
            self.document.places[(*path, key)] = Place(line, column, line)
            values[key] = self.value(value_node, (*path, key), above)
        return values


def _text_line(node: yaml.Node) -> int:
    block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    return node.start_mark.line + (2 if block else 1)
