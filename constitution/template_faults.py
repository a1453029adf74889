"""Everything that is wrong with one template, in order, each with its place. jinja2 itself stops at the first, and knows lines.

Places come from its own lexer: before the tokens go to its parser, each one's line number is replaced by its offset, so every
node of the tree knows where it stands. Where the whole does not parse, each tag is parsed for itself, so that a broken one
hides no other. All of it takes time in proportion to the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from jinja2 import TemplateSyntaxError, nodes
from jinja2.lexer import TokenStream
from jinja2.parser import Parser

from constitution.template_language import (
    FILTERS,
    FORBIDDEN,
    MAX_DEPTH,
    MAX_NODES,
    SYNTAX,
    TOO_MUCH,
    UNKNOWN_NAME,
    BadTemplateError,
    environment,
)
from constitution.template_trees import EVALUATED

_CLOSED_BY: Mapping[str, str] = {"{{": "}}", "{%": "%}", "{#": "#}"}
_BEGINS = frozenset({"variable_begin", "block_begin", "comment_begin", "raw_begin"})
_PARSED = frozenset({"variable_begin", "block_begin"})
_ENDS = frozenset({"variable_end", "block_end"})
_PIECE = re.compile(r"\{[{%#](?:(?!\{[{%#]).)*?(?:\}\}|%\}|#\})|(?P<open>\{[{%#])(?:(?!\{[{%#]).)*", re.DOTALL)
_END_OF_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_RAW = re.compile(r"\{%[-+]?\s*raw\b")
_FORBIDDEN_TAGS = frozenset(
    {"autoescape", "block", "call", "extends", "filter", "for", "from", "import", "include", "macro", "print", "set", "with"}
)
_ALONE = frozenset({"extends", "from", "import", "include", "print"})
"""Tags without an end tag; `set` may have one."""
_SHOWN_NAMES = 30
_SYNTAX_HINT = "write {{ name }} for a parameter"
_PLAIN_HINT = "write it as plain text"


class _Token(NamedTuple):
    offset: int
    kind: str
    value: str


def template_faults(text: str, names: frozenset[str]) -> Sequence[BadTemplateError]:
    """What is wrong with a template before it is rendered: syntax, forbidden constructs, unknown names, size.

    Args:
        text: The template; its lines end as jinja2 writes them, by a line feed.
        names: What may be filled in.
    """
    tokens, trouble = _tokens(text)
    if trouble is None:
        try:
            return _in_order(_Walk(text, names).faults(_parse(tokens)))
        except TemplateSyntaxError as error:
            whole = _syntax(text, error.lineno - 1, error.message or "")
        except RecursionError:
            whole = _too_deep(text, 0)
        except (ValueError, OverflowError) as error:
            whole = _syntax(text, 0, str(error), _PLAIN_HINT)
    else:
        whole = _syntax(text, trouble, "this tag is broken")
    return _in_order(_Tags(text, names).faults(tokens, trouble)) or (whole,)


def is_sound(tree: nodes.Template, names: frozenset[str]) -> bool:
    """Whether nothing is wrong with a template that parses."""
    return next(_Walk("", names).faults(tree), None) is None


def without_faulty_tags(text: str, faults: Iterable[BadTemplateError]) -> str | None:
    """The template with each `{{ }}` that is at fault blanked out, its length kept; None where a fault is elsewhere."""
    tokens, trouble = _tokens(text)
    if trouble is not None:
        return None
    tags = [tag for tag in _cut(tokens) if tag[0].kind == "variable_begin"]
    waiting = {fault.offset for fault in faults}
    for tag in tags:
        start, end = tag[0].offset, tag[-1].offset + len(tag[-1].value)
        inside = {offset for offset in waiting if start <= offset < end}
        if inside:
            waiting -= inside
            text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
    return None if waiting else text


def placed_tree(text: str) -> nodes.Template:
    """The tree of a template that parses, in which the line number of a node is its offset in the text, plus 1.

    Raises:
        TemplateSyntaxError: If it does not parse.
    """
    return _parse(_tokens(text)[0])


def _parse(tokens: Iterable[_Token]) -> nodes.Template:
    shared = environment()
    parser = Parser(shared, "")
    moved = ((token.offset + 1, token.kind, token.value) for token in tokens)
    parser.stream = TokenStream(shared.lexer.wrap(moved), None, None)
    return parser.parse()


def _in_order(faults: Iterable[BadTemplateError]) -> Sequence[BadTemplateError]:
    return sorted(faults, key=lambda fault: fault.offset)


def _placed(text: str, start: int = 0, end: int | None = None) -> Iterator[_Token]:
    """The tokens of a text, or of a part of it.

    Raises:
        TemplateSyntaxError: Where jinja2's lexer knows no further.
    """
    at = start
    for _, kind, value in environment().lexer.tokeniter(text[start:end], None):
        at = text.find(value, at)  # spaces may have been stripped before it
        yield _Token(at, kind, value)
        at += len(value)


def _tokens(text: str) -> tuple[list[_Token], int | None]:
    """The tokens of a text, and the offset of the tag in which the lexer lost its way, if it did."""
    found: list[_Token] = []
    begun, inside = 0, False
    try:
        for token in _placed(text):
            found.append(token)
            if token.kind in _BEGINS:
                begun, inside = token.offset, token.kind in _PARSED
            inside = inside and token.kind not in _ENDS
    except TemplateSyntaxError:
        return found, begun
    return found, begun if inside else None


def _syntax(text: str, offset: int, message: str, hint: str = _SYNTAX_HINT) -> BadTemplateError:
    told = re.sub(r"^(unexpected char .*) at \d+$", r"\1", message)
    return BadTemplateError(SYNTAX, f"template syntax: {told}", hint, offset=offset, text=text)


def _too_deep(text: str, offset: int) -> BadTemplateError:
    return BadTemplateError(TOO_MUCH, "the template is nested too deeply", _PLAIN_HINT, offset=offset, text=text)


def _forbidden(text: str, offset: int, word: str) -> BadTemplateError:
    hint = "allowed are {{ names }}, simple filters and {% if %}"
    return BadTemplateError(FORBIDDEN, f"`{word}` is not allowed in a principle", hint, offset=offset, text=text)


@dataclass
class _Walk:
    """Goes through a tree whose line numbers are offsets. `bound` are names that a forbidden tag gives a meaning to."""

    text: str
    names: frozenset[str]
    bound: frozenset[str] = frozenset()

    def faults(self, tree: nodes.Template, depth: int = 1) -> Iterator[BadTemplateError]:
        bound: frozenset[str] | None = None
        count, deep = 0, False
        stack: list[tuple[nodes.Node, int, int]] = [(tree, depth, 0)]
        while stack:
            node, level, offset = stack.pop()
            count += 1
            # Parts such as an operand have no place of their own.
            offset = offset if cast("int | None", node.lineno) is None else node.lineno - 1
            if level > MAX_DEPTH:
                if not deep:
                    yield _too_deep(self.text, offset)
                deep = True
                continue
            below: Iterable[nodes.Node] = node.iter_child_nodes()
            if not isinstance(node, EVALUATED):
                below = list(below)
                # In a chain such as `a.b.c` or `a * b * c` the innermost stands for all.
                if not (below and type(below[0]) is type(node)):
                    yield _forbidden(self.text, offset, type(node).__name__.lower())
                if isinstance(node, nodes.Stmt):
                    below = _bodies(node)
            elif isinstance(node, nodes.Filter) and node.name not in FILTERS:
                known = f"filters are {', '.join(sorted(FILTERS))}"
                problem = f"unknown filter `{node.name}`"
                yield BadTemplateError(FORBIDDEN, problem, known, offset=offset, text=self.text)
            elif isinstance(node, nodes.Name) and node.name not in self.names:
                bound = self.bound | _bound_in(tree) if bound is None else bound
                if node.name not in bound:
                    yield self._unknown(node.name, offset)
            stack.extend((child, level + 1, offset) for child in below)
        if count > MAX_NODES:
            problem = f"the template has {count} parts, more than {MAX_NODES}"
            yield BadTemplateError(TOO_MUCH, problem, _PLAIN_HINT, text=self.text)

    def _unknown(self, name: str, offset: int) -> BadTemplateError:
        names = sorted(self.names)[:_SHOWN_NAMES]
        hint = f"parameters here: {', '.join(names)}" if names else "this principle has no `parameters:`"
        return BadTemplateError(UNKNOWN_NAME, f"unknown name `{name}`", hint, offset=offset, text=self.text)


def _bodies(node: nodes.Stmt) -> list[nodes.Node]:
    """What stands between a forbidden tag and its end: its own header is refused with it."""
    parts = (getattr(node, name, None) for name in ("body", "else_"))
    return [each for part in parts if isinstance(part, list) for each in cast("list[nodes.Node]", part)]


def _below(node: nodes.Node) -> Iterator[nodes.Node]:
    """A node and all below it. jinja2's own `find_all` recurses, and a long chain of filters is deep."""
    stack = [node]
    while stack:
        each = stack.pop()
        yield each
        stack.extend(each.iter_child_nodes())


def _bound_in(tree: nodes.Template) -> frozenset[str]:
    """Names that forbidden tags of the tree give a meaning to: they are no second problem."""
    found: set[str] = set()
    for node in _below(tree):
        match node:
            case nodes.Name() if node.ctx != "load":
                found.add(node.name)
            case nodes.For():
                found.add("loop")
            case nodes.Macro():
                found |= {node.name, "caller", "varargs", "kwargs"}
            case nodes.Import():
                found.add(node.target)
            case nodes.FromImport():
                found |= {name if isinstance(name, str) else name[1] for name in node.names}
            case _:
                pass
    return frozenset(found)


@dataclass
class _Open:
    """A tag that waits for its end."""

    keyword: str
    offset: int
    otherwise: bool = False
    """`else` has been met."""


@dataclass
class _Tags:
    """Reads a template that does not parse as a whole: tag by tag."""

    text: str
    names: frozenset[str]
    open: list[_Open] = field(default_factory=list[_Open])
    bound: set[str] = field(default_factory=set[str])

    def faults(self, tokens: Sequence[_Token], trouble: int | None) -> Iterator[BadTemplateError]:
        known = [token for token in tokens if trouble is None or token.offset < trouble]
        for tag in _cut(known):
            yield from self._tag(tag)
        if trouble is not None:
            yield from self._pieces(trouble)
        for each in self.open:
            if each.keyword == "if":
                hint = "end it with {% endif %}"
                yield _syntax(self.text, each.offset, "this `if` is not closed", hint)

    def _pieces(self, start: int) -> Iterator[BadTemplateError]:
        """From where the lexer lost its way: what looks like a tag is one."""
        at = start
        while found := _PIECE.search(self.text, at):
            at = found.end()
            opening = found[0][:2]
            if _RAW.match(found[0]):
                end = _END_OF_RAW.search(self.text, at)
                if end is None:
                    yield _syntax(self.text, found.start(), "this `raw` is not closed", "end it with {% endraw %}")
                    return
                at = end.end()
            elif not found[0].endswith(_CLOSED_BY[opening]) or found["open"]:
                hint = f"end it with {_CLOSED_BY[opening]}; a brace that is meant is written {{{{ '{opening}' }}}}"
                yield _syntax(self.text, found.start(), f"`{opening}` is not closed", hint)
            elif opening != "{#":
                yield from self._piece(found.start(), found.end())

    def _piece(self, start: int, end: int) -> Iterator[BadTemplateError]:
        tokens: list[_Token] = []
        try:
            for token in _placed(self.text, start, end):  # those before an error are kept
                tokens.append(token)  # noqa: PERF402
        except TemplateSyntaxError as error:
            offset = tokens[-1].offset + len(tokens[-1].value) if tokens else start
            yield _syntax(self.text, offset, error.message or "")
        else:
            if tokens[-1].kind in _ENDS:
                yield from self._tag(tokens)
            else:
                yield _syntax(self.text, start, f"`{self.text[start : start + 2]}` is not closed")

    def _tag(self, tag: Sequence[_Token]) -> Iterator[BadTemplateError]:
        words = [token for token in tag if token.kind != "whitespace"]
        if tag[0].kind == "variable_begin":
            yield from self._parsed(tag)
            return
        keyword = words[1].value if words[1].kind == "name" else ""  # `{%%}` has none
        offset = words[1].offset
        if keyword == "if":
            self.open.append(_Open("if", offset))
            yield from self._parsed(tag, after="endif")
        elif keyword in {"else", "elif"}:
            yield from self._branch(keyword, tag, words)
        elif keyword.startswith("end"):
            yield from self._end(keyword, offset)
        elif keyword in _FORBIDDEN_TAGS:
            self.bound.update(token.value for token in words if token.kind == "name")
            self.bound.update({"loop"} if keyword == "for" else ())
            if keyword not in _ALONE and not (keyword == "set" and any(token.value == "=" for token in words)):
                self.open.append(_Open(keyword, offset))
            yield _forbidden(self.text, offset, keyword)
        else:
            self.bound.update(token.value for token in words if token.kind == "name")
            self.open.append(_Open(keyword, offset))
            hint = "allowed are {{ names }}, simple filters and {% if %}"
            yield _syntax(self.text, offset, f"unknown tag `{keyword or words[1].value}`", hint)

    def _branch(self, keyword: str, tag: Sequence[_Token], words: Sequence[_Token]) -> Iterator[BadTemplateError]:
        above = next((each for each in reversed(self.open) if each.keyword in {"if", "for"}), None)
        if above is None or above.otherwise:
            why = "after `else`" if above else "without `if`"
            yield _syntax(self.text, words[1].offset, f"`{keyword}` {why}", "delete it, or write {% if … %} before it")
        elif keyword == "else":
            above.otherwise = True
            if len(words) > 3:
                yield _syntax(self.text, words[2].offset, "nothing may follow `else`", "for a condition write {% elif … %}")
        else:
            condition = [token._replace(value="if") if token is words[1] else token for token in tag]
            yield from self._parsed(condition, after="endif")

    def _end(self, keyword: str, offset: int) -> Iterator[BadTemplateError]:
        closed = keyword.removeprefix("end")
        if all(each.keyword != closed for each in self.open):
            yield _syntax(self.text, offset, f"`{keyword}` closes nothing", "delete it, or write the tag that it ends")
            return
        while (last := self.open.pop()).keyword != closed:
            if last.keyword == "if":
                yield _syntax(self.text, last.offset, "this `if` is not closed", "end it with {% endif %}")

    def _parsed(self, tag: Sequence[_Token], after: str = "") -> Iterator[BadTemplateError]:
        """The faults of one tag; a tag that opens something is closed at once."""
        end = tag[-1].offset
        closing = [_Token(end, "block_begin", "{%"), _Token(end, "name", after), _Token(end, "block_end", "%}")]
        try:
            tree = _parse([*tag, *(closing if after else ())])
        except TemplateSyntaxError as error:
            yield _syntax(self.text, error.lineno - 1, error.message or "")
        except RecursionError:
            yield _too_deep(self.text, tag[0].offset)
        except (ValueError, OverflowError) as error:
            yield _syntax(self.text, tag[0].offset, str(error), _PLAIN_HINT)
        else:
            depth = 1 + sum(each.keyword == "if" for each in self.open)
            yield from _Walk(self.text, self.names, frozenset(self.bound)).faults(tree, depth)


def _cut(tokens: Iterable[_Token]) -> Iterator[Sequence[_Token]]:
    """The tokens of each `{{ }}` and `{% %}`."""
    tag: list[_Token] = []
    for token in tokens:
        if token.kind in _PARSED:
            tag = [token]
        elif tag:
            tag.append(token)
            if token.kind in _ENDS:
                yield tag
                tag = []
