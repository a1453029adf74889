"""A Markdown list of rules: each top-level bullet or number is a principle, and what is indented below it is its rationale."""

from __future__ import annotations

import re
import textwrap

from constitution.importing.exporting import given, is_from
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering
from constitution.importing.outlines import Item, Outline, Section, read_outline
from constitution.importing.sources import Kind, Source
from constitution.rendering import principle_text
from constitution.schema import MAX_PROSE_CHARS, Constitution

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
    gathering.name = next((each.heading for each in outline.sections if each.level == 1), "")
    done = 0
    for section in outline.sections:
        prose = [block for block in section.blocks if not block.items]
        for block in prose:
            if block.kind != "paragraph":
                gathering.lose_at(block.line, 1, f"a {block.kind.replace('_', ' ')} between the rules", Fate.UNUSED)
        gathering.description = "\n\n".join(
            filter(None, [gathering.description, *(b.text for b in prose if b.kind == "paragraph")])
        )
        for item in section.items:
            gathering.entries += 1
            last = _last(lines, item)
            about = _layout(lines, item, done, last)
            done = last
            if section.heading and section.heading != gathering.name:
                about[_SECTION] = section.heading
            _add(gathering, section, item, about)
    after = "".join(f"\n{line}" for line in lines[done:])
    if after != "\n" and len(after) <= MAX_PROSE_CHARS:
        gathering.about[_AFTER] = after
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
    """What a Markdown list says, apart from its layout."""
    return [
        {"heading": section.heading, "items": [[item.text, item.rest] for item in section.items]}
        for section in read_outline(text).sections
        if section.items
    ]


def _add(gathering: Gathering, section: Section, item: Item, about: dict[str, str]) -> None:
    if not item.text:
        gathering.lose_at(item.line, 1, "an empty bullet, or one that does not begin with text", Fate.ENTRY)
        return
    fields = {"rationale": item.rest} if item.rest else {}
    gathering.add_at(
        item.line, 1, words=item.plain or item.text, principle=item.text, source=about, at=section.heading, **fields
    )


def _bullet(marker: str, rule: str, rationale: str) -> str:
    return f"{marker}{rule}" + (f"\n{textwrap.indent(rationale, ' ' * len(marker))}" if rationale else "")


def _says(bullet: str) -> tuple[str, str] | None:
    """The rule and the rationale of a text that is one item; None when it is none."""
    items = [item for section in read_outline(bullet).sections for item in section.items]
    return (items[0].text.strip(), items[0].rest.strip()) if len(items) == 1 else None


def _layout(lines: list[str], item: Item, done: int, last: int) -> dict[str, str]:
    """What stands between the last item and this one, and how this one is written, where that is not the usual way."""
    before = "\n".join([*([""] if done else []), *lines[done : item.line - 1], ""]) if done or item.line > 1 else ""
    marker = _MARKER.match(lines[item.line - 1])
    about: dict[str, str] = {}
    if before != ("\n" if done else "") and len(before) <= MAX_PROSE_CHARS:
        about[_BEFORE] = before
    if marker and marker[0] != _USUAL:
        about[_MARK] = marker[0]
    as_written = "\n".join(lines[item.line - 1 : last])
    if as_written != _bullet(marker[0] if marker else _USUAL, item.text, item.rest) and len(as_written) <= MAX_PROSE_CHARS:
        about[_WRITTEN] = as_written
    return about


def _last(lines: list[str], item: Item) -> int:
    """The number of lines up to the end of an item, blank ones behind it left out."""
    last = item.last_line
    while last > item.line and not lines[last - 1].strip():
        last -= 1
    return last
