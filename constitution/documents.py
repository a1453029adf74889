"""YAML text → plain data in which every value still knows its line and column.

Read from the tree of `composing`, by PyYAML's safe constructor. A duplicate key is a problem here; PyYAML lets the last win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from constitution.composing import MAX_DEPTH, MAX_VALUES, ComposingError, MappingNode, Node, ScalarNode, Span, compose, too_much

Path: TypeAlias = tuple[str | int, ...]

MAX_NUMBER_CHARS = 40
"""What is longer is no number: PyYAML reads `1:1:1:…` to base 60, in time that grows with the square of its length."""

_TEXT = "tag:yaml.org,2002:str"
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


class Place(NamedTuple):
    """1-based line and column; those of an entry's key, where there is one. `span` and `style` are the value's own.

    The style is a scalar's quote, `|` or `>`, "" for a plain one, and "-" for a list or a section, whose span may end late: at
    the beginning of what follows.
    """

    line: int
    column: int
    span: Span
    style: str = ""

    @property
    def text_line(self) -> int:
        """The line on which a text itself begins: one later for `|` and `>` blocks."""
        return self.span.line + (2 if self.style in ("|", ">") else 1)

    @property
    def last_line(self) -> int:
        """The last line that belongs to the value."""
        before = self.span.end_column == 0 and self.span.end_line > self.span.line
        return max(self.span.line + 1, self.span.end_line + (0 if before else 1))


WHOLE = Place(1, 1, Span(0, 0, 0, 0))


class DocumentProblem(NamedTuple):
    """A problem at a 1-based line and column; `rule` and `loc` as in `PrincipleFileError`."""

    line: int
    column: int
    problem: str
    hint: str = ""
    rule: str = ""
    loc: Path | None = None


@dataclass
class Document:
    """`value` is None when the text is empty or broken. `places` of a mapping's entry is that of its key.

    `unreadable` are the values that stand as None because of a problem already told.
    """

    text: str = ""
    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict[Path, Place])
    unreadable: set[Path] = field(default_factory=set[Path])
    problems: list[DocumentProblem] = field(default_factory=list[DocumentProblem])

    @property
    def wholly_read(self) -> bool:
        """Whether the place of every text is known. Not so in a text that is no YAML, nor below a key that is given twice."""
        return all(problem.rule == "C117" for problem in self.problems)

    @cached_property
    def lines(self) -> Sequence[str]:
        return self.text.splitlines()

    def place(self, path: Path) -> Place:
        """The place of a value, or of the nearest thing above it that the text has."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return WHOLE


def read_document(text: str) -> Document:
    """Parse one YAML document; what is wrong with it is in `problems`, all that can be found at once."""
    document = Document(text)
    try:
        node = compose(text)
        if node is not None:
            document.value = _Reader(document).value(node, (), frozenset())
    except ComposingError as error:
        document.value = None
        document.problems.append(DocumentProblem(error.line, error.column, error.problem, error.hint, error.rule))
    return document


class _Reader:
    """Walks the node tree of one text, and notes places and problems in `document`."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.constructor = cast("Any", SafeConstructor())
        self.resolvers = cast("dict[str | None, list[tuple[str, Any]]]", cast("Any", Resolver).yaml_implicit_resolvers)
        self.count = 0

    def value(self, node: Node, path: Path, above: frozenset[int]) -> Any:
        self.count += 1
        span = node.span
        if self.count > MAX_VALUES or len(path) > MAX_DEPTH - (not isinstance(node, ScalarNode)):
            raise too_much(span.line, span.column)
        known = self.document.places.get(path)
        # A key's own place is kept for its entry; only the span comes from the value.
        line, column = (known.line, known.column) if known else (span.line + 1, span.column + 1)
        place = Place(line, column, span, node.style if isinstance(node, ScalarNode) else "-")
        self.document.places[path] = place
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in above:
            return self._unreadable("C106", path, node, "an alias that contains itself", "write it out")
        below = above | {id(node)}
        if isinstance(node, MappingNode):
            return self._mapping(node, path, below)
        return [self.value(each, (*path, index), below) for index, each in enumerate(node.entries)]

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        tag = node.tag or self._resolved(node.text)
        if tag == _TEXT:
            return node.text
        if tag in _NUMBERS and len(node.text) > MAX_NUMBER_CHARS:
            return self._unreadable("C117", path, node, f"cannot be read: a number of {len(node.text)} characters", "quote it")
        try:
            return self.constructor.construct_object(yaml.ScalarNode(tag, node.text))
        except yaml.MarkedYAMLError as error:
            return self._unreadable("C117", path, node, f"cannot be read: {error.problem}", "quote it")
        except (ValueError, OverflowError) as error:
            return self._unreadable("C117", path, node, f"cannot be read: {error}", "quote it")

    def _resolved(self, text: str) -> str:
        """What a plain text is taken for: a text, unless it is short and a resolver for its first character knows better."""
        if len(text) > MAX_NUMBER_CHARS:
            return _TEXT
        for tag, pattern in self.resolvers.get(text[:1], ()):
            if pattern.match(text):
                return tag
        return _TEXT

    def _unreadable(self, rule: str, path: Path, node: Node, problem: str, hint: str) -> None:
        self.document.unreadable.add(path)
        line, column = node.span.line + 1, node.span.column + 1
        self.document.problems.append(DocumentProblem(line, column, problem, hint, rule, path))

    def _mapping(self, node: MappingNode, path: Path, above: frozenset[int]) -> Mapping[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.entries:
            line, column = key_node.span.line + 1, key_node.span.column + 1
            if not isinstance(key_node, ScalarNode):
                hint = "is a quote or a dash missing?"
                self.document.problems.append(DocumentProblem(line, column, "a key has to be a word", hint, "C105"))
                continue
            key = key_node.text
            if key in lines:
                problem = f"`{key}` is given twice (first on line {lines[key]})"
                self.document.problems.append(DocumentProblem(line, column, problem, "delete one of them", "C107"))
                continue
            lines[key] = line
            self.document.places[(*path, key)] = Place(line, column, key_node.span)
            values[key] = self.value(value_node, (*path, key), above)
        return values
