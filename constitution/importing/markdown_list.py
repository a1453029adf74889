"""A Markdown list of rules: each top-level bullet or number is a principle, and what is indented below it is its rationale."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Set

from constitution.importing.exporting import given, is_from
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering
from constitution.importing.outlines import Block, Item, Outline, Section, read_outline
from constitution.importing.sources import Kind, Source
from constitution.rendering import principle_text
from constitution.schema import Constitution

NAME = "markdown-list"
_MARKER = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s+")
_USUAL = "- "
_BEFORE, _AFTER, _MARK, _WRITTEN, _SECTION = "before", "after", "marker", "as_written", "section"


def recognise(source: Source) -> bool:
    return source.kind is Kind.MARKDOWN and is_list(read_outline(source.text))


def is_list(outline: Outline) -> bool:
    """Whether more of the text stands in lists than beside them."""
    listed = sum(len(item.text) + len(item.rest) for section in outline.sections for item in section.items)
    prose = sum(len(block.text) for section in outline.sections for block in section.blocks if not block.items)
    return listed > prose


def read(gathering: Gathering) -> None:
    outline = read_outline(gathering.source.text)
    lines = gathering.source.text.replace("\r\n", "\n").split("\n")
    if title := next((each for each in outline.sections if each.level == 1), None):
        gathering.entitle(title.heading, title.line)
    done = 0
    lost: set[int] = set()
    for section in outline.sections:
        for item in section.items:
            gathering.entries += 1
            last = _last(lines, item)
            about = _layout(gathering, lines, item, done, last)
            if section.heading and section.heading != gathering.name:
                gathering.remember(_SECTION, section.heading, line=section.line, into=about)
            added = _add(gathering, section, item, about)
            if not (added and _BEFORE in about):
                lost.update(range(done + 1, item.line))
            done = last
    after = "".join(f"\n{line}" for line in lines[done:])
    if after != "\n" and not gathering.remember(_AFTER, after, line=done + 1):
        lost.update(range(done + 1, len(lines) + 1))
    _keep_prose(gathering, outline, lost)
    gathering.original = shape_of(gathering.source.text)


def write(constitution: Constitution) -> str:
    ours = is_from(constitution, NAME)
    text = "" if ours else f"# {constitution.name}\n\n"
    for number, principle in enumerate(constitution.principles):
        about = principle.source if ours else {}
        text += about.get(_BEFORE, "" if number == 0 else "\n")
        rule = (given(principle, "principle") or principle_text(principle)).replace("\n", " ")
        as_written = about.get(_WRITTEN, "")
        still = as_written and _says(as_written) == (rule, principle.rationale)
        text += as_written if still else _bullet(about.get(_MARK, _USUAL), rule, principle.rationale)
    return text + constitution.source.get(_AFTER, "\n") if ours else text + "\n"


def shape_of(text: str) -> object:
    """What a Markdown list says, its prose too, apart from its layout."""
    return [
        {
            "heading": section.heading,
            "prose": [block.text for block in _prose(section)],
            "items": [[item.text, item.rest] for item in section.items],
        }
        for section in read_outline(text).sections
        if section.level or section.blocks
    ]


def _prose(section: Section) -> list[Block]:
    return [block for block in section.blocks if not block.items]


def _keep_prose(gathering: Gathering, outline: Outline, lost: Set[int]) -> None:
    """The paragraphs become the description. What is none, or finds no room, is kept by the layout but for `lost` lines."""
    for block in (block for section in outline.sections for block in _prose(section)):
        what = f"a {block.kind.replace('_', ' ')} between the rules"
        fate = Fate.PART if block.line in lost else Fate.UNUSED
        if block.kind == "paragraph":
            gathering.describe(block.text, block.line, what=what, fate=fate)
        else:
            gathering.lose_at(block.line, 1, what, fate)


def _add(gathering: Gathering, section: Section, item: Item, about: dict[str, str]) -> bool:
    if not item.text:
        gathering.lose_at(item.line, 1, "an empty bullet, or one that does not begin with text", Fate.ENTRY)
        return False
    fields = {"rationale": item.rest} if item.rest else {}
    return gathering.add_at(
        item.line, 1, words=item.plain or item.text, principle=item.text, source=about, at=section.heading, **fields
    )


def _bullet(marker: str, rule: str, rationale: str) -> str:
    return f"{marker}{rule}" + (f"\n{textwrap.indent(rationale, ' ' * len(marker))}" if rationale else "")


def _says(bullet: str) -> tuple[str, str] | None:
    """The rule and the rationale of a text that is one item; None when it is none."""
    items = [item for section in read_outline(bullet).sections for item in section.items]
    return (items[0].text.strip(), items[0].rest.strip()) if len(items) == 1 else None


def _layout(gathering: Gathering, lines: list[str], item: Item, done: int, last: int) -> dict[str, str]:
    """What stands between the last item and this one, and how this one is written, where that is not the usual way."""
    before = "\n".join([*([""] if done else []), *lines[done : item.line - 1], ""]) if done or item.line > 1 else ""
    marker = _MARKER.match(lines[item.line - 1])
    about: dict[str, str] = {}
    if before != ("\n" if done else ""):
        gathering.remember(_BEFORE, before, line=done + 1, into=about)
    if marker and marker[0] != _USUAL:
        about[_MARK] = marker[0]
    as_written = "\n".join(lines[item.line - 1 : last])
    if as_written != _bullet(marker[0] if marker else _USUAL, item.text, item.rest):
        gathering.remember(_WRITTEN, as_written, line=item.line, into=about)
    return about


def _last(lines: list[str], item: Item) -> int:
    """The number of lines up to the end of an item, blank ones behind it left out."""
    last = item.last_line
    while last > item.line and not lines[last - 1].strip():
        last -= 1
    return last
