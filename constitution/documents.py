"""YAML text → plain data in which every value still knows its line and column.

Read through PyYAML's node tree, by the safe constructor. A duplicate key is a problem here, where PyYAML lets the last win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """1-based line and column. `text_line` is the line on which a scalar's own text begins (one later for `|` and `>` blocks)."""

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
    """`value` is None when the text is empty or broken. `places` of a mapping's entry is that of its key."""

    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict[Path, Place])
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
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        hint = "quote a text that holds `: ` or begins with a special character; indent with spaces"
        document.problems.append(DocumentProblem(line, column, f"not valid YAML: {error.problem or error.context}", hint))
        return document
    except yaml.YAMLError as error:
        document.problems.append(DocumentProblem(1, 1, f"not valid YAML: {str(error).splitlines()[0]}"))
        return document
    if node is not None:
        document.value = _value(node, (), document, frozenset())
    return document


def _value(node: yaml.Node, path: Path, document: Document, above: frozenset[int]) -> Any:
    place = Place(node.start_mark.line + 1, node.start_mark.column + 1, _text_line(node))
    known = document.places.get(path)
    # A key's own place is kept for its entry; only the line where the text begins comes from the value.
    document.places[path] = Place(known.line, known.column, place.text_line) if known else place
    if id(node) in above:
        document.problems.append(DocumentProblem(place.line, place.column, "an alias that contains itself", "write it out"))
        return None
    below = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document, below)
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, (*path, index), document, below) for index, each in enumerate(node.value)]
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        document.problems.append(DocumentProblem(place.line, place.column, f"cannot be read: {error}", "quote it"))
        return None
    finally:
        loader.dispose()


def _mapping(node: yaml.MappingNode, path: Path, document: Document, above: frozenset[int]) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(DocumentProblem(line, column, "a key has to be a word", "is a quote or a dash missing?"))
            continue
        key = str(key_node.value)
        if key in lines:
            problem = f"`{key}` is given twice (first on line {lines[key]})"
            document.problems.append(DocumentProblem(line, column, problem, "delete one of them"))
            continue
        lines[key] = line
        document.places[(*path, key)] = Place(line, column, line)
        values[key] = _value(value_node, (*path, key), document, above)
    return values


def _text_line(node: yaml.Node) -> int:
    block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    return node.start_mark.line + (2 if block else 1)
