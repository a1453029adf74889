"""YAML text → a small tree of nodes with their marks, bounded in size and depth while it grows.

Reads the parser's events (libyaml's where PyYAML was built with it, 30 times as fast) instead of PyYAML's own node tree: that
one is built whole before anything can be counted, and four megabytes of commas would take gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

MAX_VALUES = 40_000
"""More values than this, aliases written out, and a document is refused: ten nested aliases can stand for billions."""
MAX_DEPTH = 100
"""Lists and sections inside each other, aliases written out: each alias in a chain can add a whole nest of them."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Span(NamedTuple):
    """Where a node stands: 0-based lines and columns as the parser counts them, the end exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(slots=True, eq=False)
class ScalarNode:
    """`tag` is None where the text's own form decides what it is; `style` is the quote, `|`, `>`, or "" for none."""

    span: Span
    text: str
    style: str
    tag: str | None


@dataclass(slots=True, eq=False)
class SequenceNode:
    span: Span
    entries: list[Node] = field(default_factory=list["Node"])


@dataclass(slots=True, eq=False)
class MappingNode:
    span: Span
    entries: list[tuple[Node, Node]] = field(default_factory=list["tuple[Node, Node]"])


Node = ScalarNode | SequenceNode | MappingNode


class ComposingError(Exception):
    """The text is no YAML document that may be read. Line and column are 1-based."""

    def __init__(self, rule: str, line: int, column: int, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.rule = rule
        self.line = line
        self.column = column
        self.problem = problem
        self.hint = hint


def compose(text: str) -> Node | None:
    """The one document of a text; None when it has no content.

    Raises:
        ComposingError: If the text is not YAML, holds a second document, or is larger or deeper than the bounds.
    """
    control = control_character(text)
    if control is not None:
        raise ComposingError("C103", *control[:2], f"not valid YAML: the character {control[2]} is not allowed", "delete it")
    composer = _Composer()
    try:
        composer.read(cast("Iterator[Any]", cast("Any", yaml).parse(text, Loader=_LOADER)))
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(text, error) from error
    return composer.root


def control_character(text: str) -> tuple[int, int, str] | None:
    """1-based line and column of the first character that is no text (control characters, half characters), and its name."""
    found = _NOT_TEXT.search(text)
    if found is None:
        return None
    before = f"{text[: found.start()]}.".splitlines()
    return len(before), len(before[-1]), f"U+{ord(found[0]):04X}"


def _syntax_error(text: str, error: yaml.MarkedYAMLError) -> ComposingError:
    told = error.problem or error.context or "it cannot be parsed"
    # A line that lacks its colon is noticed only on the next one; the context is the line itself.
    missing_colon = "expected ':'" in told and error.context_mark is not None
    mark = error.context_mark if missing_colon else error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    if "nesting" in told:
        return too_much(line, column)
    lines = f"{text}.".splitlines()
    if line >= len(lines):  # what is missing at the end of a text without a last newline is marked below it
        line, column = len(lines) - 1, len(lines[-1]) - 1
    at_mark = lines[line][column : column + 1]
    if at_mark == "\t" or " tab " in told:
        return ComposingError("C105", line + 1, column + 1, "not valid YAML: a tab", "indent with spaces")
    hint = "quote a text that holds `: ` or begins with a special character; indent with spaces"
    return ComposingError("C105", line + 1, column + 1, f"not valid YAML: {told}", hint)


def too_much(line: int, column: int) -> ComposingError:
    """The refusal of a text beyond `MAX_DEPTH` or `MAX_VALUES`, at a 0-based place."""
    problem = "the file is nested too deeply, or its aliases stand for too much"
    return ComposingError("C106", line + 1, column + 1, problem, "write out the aliases, or split the file")


class _Composer:
    """Builds the tree event by event; what is open lies on a stack, so that depth costs no recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.open: list[SequenceNode | MappingNode] = []
        self.keys: list[Node | None] = []
        self.anchors: dict[str, Node] = {}
        self.count = 0

    def read(self, events: Iterator[Any]) -> None:
        documents = 0
        for event in events:
            if isinstance(event, NodeEvent):
                self._add(event)
            elif isinstance(event, CollectionEndEvent):
                self._close(event)
            elif isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    mark: Any = event.start_mark
                    hint = "delete the line `---`, or make it another file"
                    raise ComposingError("C105", mark.line + 1, mark.column + 1, "a second document begins here", hint)

    def _add(self, event: Any) -> None:
        start, end = event.start_mark, event.end_mark
        self.count += 1  # keys too, which are no values
        if self.count > 2 * MAX_VALUES or len(self.open) > MAX_DEPTH - isinstance(event, CollectionStartEvent):
            raise too_much(start.line, start.column)
        if isinstance(event, AliasEvent):
            name = str(cast("Any", event).anchor)
            if name not in self.anchors:
                hint = "name it where it is written first: `&name`; quote a text that begins with `*`"
                problem = f"not valid YAML: nothing is called `&{name}`"
                raise ComposingError("C105", start.line + 1, start.column + 1, problem, hint)
            self._place(self.anchors[name])
            return
        span = Span(start.line, start.column, end.line, end.column)
        if isinstance(event, ScalarEvent):
            scalar: Any = event
            # An explicit tag counts; without one, only a plain text (`implicit[0]`) may be anything but a text.
            tag = scalar.tag if scalar.tag not in (None, "!") else None if scalar.implicit[0] else "tag:yaml.org,2002:str"
            node: Node = ScalarNode(span, scalar.value, "" if scalar.style in (None, ":") else scalar.style, tag)
        elif isinstance(event, SequenceStartEvent):
            node = SequenceNode(span)
        else:
            assert isinstance(event, MappingStartEvent)
            node = MappingNode(span)
        if event.anchor is not None:
            self._name(event.anchor, node)
        self._place(node)
        if not isinstance(node, ScalarNode):
            self.open.append(node)
            self.keys.append(None)

    def _name(self, anchor: str, node: Node) -> None:
        if anchor in self.anchors:
            line, hint = self.anchors[anchor].span.line + 1, "give one of them another name"
            problem = f"not valid YAML: `&{anchor}` is given twice (first on line {line})"
            raise ComposingError("C105", node.span.line + 1, node.span.column + 1, problem, hint)
        self.anchors[anchor] = node

    def _place(self, node: Node) -> None:
        """Hand a node to the list or the entry that is open."""
        if not self.open:
            self.root = node
            return
        above = self.open[-1]
        if isinstance(above, SequenceNode):
            above.entries.append(node)
        elif (key := self.keys[-1]) is None:
            self.keys[-1] = node
        else:
            above.entries.append((key, node))
            self.keys[-1] = None

    def _close(self, event: Any) -> None:
        node = self.open.pop()
        self.keys.pop()
        node.span = node.span._replace(end_line=event.end_mark.line, end_column=event.end_mark.column)
