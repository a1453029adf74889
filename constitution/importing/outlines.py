"""Markdown text → its sections, each with its heading, its lists and its other blocks, verbatim and with their lines.

The blocks are found by markdown-it-py (CommonMark); their texts are cut from the source, so that prose stays as it was written.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<body>(?:.*\n)*?)---[ \t]*(?:\n|\Z)")
_FRONT_KEY = re.compile(r"(?P<key>[A-Za-z_][\w-]*):[ \t]*(?P<value>.*)")


@dataclass
class Item:
    """One item of a list. `text` is its first paragraph as written, on one line; `rest` is what stands below it."""

    line: int
    text: str = ""
    plain: str = ""
    rest: str = ""
    last_line: int = 0


@dataclass
class Block:
    """A paragraph, list or other block. `plain` is a paragraph without its markup; `items` are those of a list."""

    line: int
    kind: str
    text: str
    plain: str = ""
    items: list[Item] = field(default_factory=list[Item])

    @property
    def ordered(self) -> bool:
        return self.kind == "ordered_list"


@dataclass
class Section:
    """What stands below one heading and above the next. `above`: the headings it lies under; level 0: the text before all."""

    level: int
    heading: str
    line: int
    above: tuple[str, ...] = ()
    blocks: list[Block] = field(default_factory=list[Block])

    @property
    def text(self) -> str:
        return "\n\n".join(block.text for block in self.blocks)

    @property
    def items(self) -> list[Item]:
        return [item for block in self.blocks for item in block.items]


@dataclass
class Outline:
    front: dict[str, str] = field(default_factory=dict[str, str])
    sections: list[Section] = field(default_factory=list[Section])


@lru_cache(maxsize=2)
def read_outline(text: str) -> Outline:
    """Read the sections of a Markdown text, in order; the first, of level 0, is what stands before the first heading.

    A title in the front matter (`---`) is a heading of level 1.

    The result is shared between callers: read it only.
    """
    from markdown_it import MarkdownIt

    text = text.replace("\r\n", "\n")
    outline = Outline()
    front = _FRONT_MATTER.match(text)
    if front:
        found = (_FRONT_KEY.fullmatch(line) for line in front["body"].splitlines())
        outline.front = {each["key"]: each["value"].strip().strip("\"'") for each in found if each}
        text = "\n" * front[0].count("\n") + text[front.end() :]
    lines = text.split("\n")
    tokens = MarkdownIt("commonmark").parse(text)
    title = outline.front.get("title", "")
    section = Section(1, title, 1) if title else Section(0, "", 1)
    outline.sections.append(section)
    open_sections = [section] if title else []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        end = _end(tokens, position)
        if token.type == "heading_open":
            level, heading = int(token.tag[1:]), _plain(tokens[position + 1])
            while open_sections and open_sections[-1].level >= level:
                open_sections.pop()
            above = tuple(each.heading for each in open_sections)
            section = Section(level, heading, _first(token) + 1, above)
            outline.sections.append(section)
            open_sections.append(section)
        elif token.map is not None:
            section.blocks.append(_block(tokens[position : end + 1], lines))
        position = end + 1
    return outline


def _end(tokens: list[Token], position: int) -> int:
    """The position of the token that closes the one at `position`."""
    depth = 0
    for at in range(position, len(tokens)):
        depth += tokens[at].nesting
        if depth == 0:
            return at
    return len(tokens) - 1


def _first(token: Token) -> int:
    return token.map[0] if token.map else 0


def _cut(lines: list[str], start: int, end: int) -> str:
    return "\n".join(line.rstrip() for line in lines[start:end]).strip("\n")


def _block(tokens: list[Token], lines: list[str]) -> Block:
    token = tokens[0]
    start, end = token.map or (0, 0)
    kind = token.type.removesuffix("_open")
    block = Block(start + 1, kind, _cut(lines, start, end))
    if kind == "paragraph":
        block.plain = _plain(tokens[1])
    elif kind in {"bullet_list", "ordered_list"}:
        position = 1
        while position < len(tokens) - 1:
            close = _end(tokens, position)
            block.items.append(_item(tokens[position : close + 1], lines))
            position = close + 1
    return block


def _item(tokens: list[Token], lines: list[str]) -> Item:
    token = tokens[0]
    start, end = token.map or (0, 0)
    item = Item(start + 1, last_line=end)
    if len(tokens) > 2 and tokens[1].type == "paragraph_open":
        inline = tokens[2]
        item.text = " ".join(inline.content.split("\n"))
        item.plain = _plain(inline)
        start = (inline.map or (start, start + 1))[1]
    item.rest = textwrap.dedent(_cut(lines, start, end)).strip("\n")
    return item


def _plain(inline: Token) -> str:
    """The words of a paragraph: emphasis, links and images without their markup."""
    words: list[str] = []
    for child in inline.children or []:
        if child.type in {"text", "code_inline", "text_special"}:
            words.append(child.content)
        elif child.type in {"softbreak", "hardbreak"}:
            words.append(" ")
    return " ".join("".join(words).split())
