"""A long prose document with headings, such as a published constitution: a section becomes a principle and its reasons.

`principle` is the one sentence of the section that asks for something (with the list below it, when it leads up to one), and
`rationale` all of the section's own text. A section of nothing but a list gives a principle for each item. What asks for
nothing is kept in the description. A priority order, if the document states one, becomes weights: see `priorities`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering
from constitution.importing.markdown_list import is_list
from constitution.importing.outlines import Section, read_outline
from constitution.importing.priorities import Priority, StatedOrder, apply_order, find_orders
from constitution.importing.sentences import SectionRules, Sentence, assistant_names, rules_of, sentences
from constitution.importing.sources import Kind, Source
from constitution.schema import MAX_PROSE_CHARS

_QUOTED_CHARS = 80


def recognise(source: Source) -> bool:
    if source.kind is not Kind.MARKDOWN:
        return False
    outline = read_outline(source.text)
    return any(section.level for section in outline.sections) and not is_list(outline)


def read(gathering: Gathering) -> None:
    outline = read_outline(gathering.source.text)
    sections = [section for section in outline.sections if section.blocks]
    headings = [section for section in outline.sections if section.level]
    title = headings[0].heading if [each.level for each in headings].count(1) == 1 == headings[0].level else ""
    if title:
        gathering.entitle(title, headings[0].line)
    order = _order(gathering, outline.sections)
    names = assistant_names(sections)
    rules = {section.line: rules_of(section, names) for section in sections}
    if not any(each.rule for each in rules.values()):  # another language: what asks for something cannot be told
        first = {section.line: next(sentences(section.blocks), None) for section in sections}
        rules = {line: SectionRules(sentence.text if sentence else "") for line, sentence in first.items()}
    for section in sections:
        gathering.entries += 1
        if section.level and not any(block.kind == "paragraph" for block in section.blocks) and section.items:
            _add_items(gathering, section, order.get(section.line), title)
        elif section.level and (found := rules[section.line]).rule:
            if _add(gathering, section, found.rule, order.get(section.line), title):
                _tell_others(gathering, section, found.others)
        else:
            _describe(gathering, section)
    gathering.remarks.append(
        "Each `principle` is one sentence out of its section, whose whole text is the `rationale`: reword it as a rule."
    )
    if order:
        gathering.remarks.append(_told(order.values()))


def _order(gathering: Gathering, sections: list[Section]) -> dict[int, Priority]:
    """The priorities of the first order that speaks of the sections; every other one is told."""
    applied: dict[int, Priority] = {}
    for each in find_orders(sections):
        if applied:
            _tell_order(gathering, each, "another one has become weights")
        elif not (applied := apply_order(sections, each)):
            _tell_order(gathering, each, "no two sections are about its entries")
    return applied


def _tell_order(gathering: Gathering, order: StatedOrder, why: str) -> None:
    told = f"the priority order “{', '.join(order.names)[:_QUOTED_CHARS]}” is no part of the weights: {why}"
    gathering.lose_at(order.line, 1, told, Fate.PROSE, order.section.heading)


def _told(priorities: Iterable[Priority]) -> str:
    """What became of the priority order, in words."""
    found = sorted(set(priorities), key=lambda each: each.rank)
    weights = ", ".join(f"{each.name} {each.weight:g}" for each in found)
    missing = "" if len(found) == found[0].of else f"; of its {found[0].of} entries only these have a section"
    return f"The priority order of line {found[0].line} became weights, the chance to be drawn: {weights}{missing}."


def _tell_others(gathering: Gathering, section: Section, others: Iterable[Sentence]) -> None:
    """A principle has room for one rule: what else the section asks for stands in its rationale only."""
    for each in others:
        quoted = each.text if len(each.text) <= _QUOTED_CHARS else f"{each.text[:_QUOTED_CHARS].rstrip()}…"
        told = f"“{' '.join(quoted.split())}” asks for something too, and is no principle of its own"
        gathering.lose_at(each.line, 1, told, Fate.PROSE, section.heading)


def _add(gathering: Gathering, section: Section, rule: str, priority: Priority | None, title: str) -> bool:
    fields: dict[str, Any] = {"rationale": _rationale(gathering, section, priority, section.text)}
    if priority:
        fields["weight"] = priority.weight
    about = _under(section, title)
    return gathering.add_at(section.line, 1, name=section.heading, words=rule, principle=rule, source=about, **fields)


def _add_items(gathering: Gathering, section: Section, priority: Priority | None, title: str) -> None:
    about = {"section": " › ".join([*_under(section, title).values(), section.heading])}
    for item in section.items:
        if not item.plain:
            gathering.lose_at(item.line, 1, "an item that does not begin with text", Fate.ENTRY, section.heading)
            continue
        fields: dict[str, Any] = {"rationale": _rationale(gathering, section, priority, item.rest)}
        if priority:
            fields["weight"] = priority.weight
        fields = {name: value for name, value in fields.items() if value}
        gathering.add_at(item.line, 1, words=item.plain, principle=item.plain, source=about, **fields)


def _rationale(gathering: Gathering, section: Section, priority: Priority | None, text: str) -> str:
    stated = f"Priority {priority.rank} of {priority.of}: {priority.name}.\n\n" if priority else ""
    room = MAX_PROSE_CHARS - len(stated)
    if len(text) > room:
        kept = text[:room].rpartition("\n\n")[0]
        gathering.lose_at(
            section.line, 1, f"{len(text) - len(kept)} characters at the section's end", Fate.PART, section.heading
        )
        text = kept
    return stated + text


def _describe(gathering: Gathering, section: Section) -> None:
    heading = f"{section.heading}\n\n" if section.heading else ""
    what = "it asks for nothing that a reply could be checked against" if section.level else "text before the first heading"
    if gathering.describe(f"{heading}{section.text}", section.line, what=what, fate=Fate.ENTRY, at=section.heading):
        gathering.lose_at(section.line, 1, what, Fate.PROSE, section.heading)


def _under(section: Section, title: str) -> dict[str, str]:
    above = " › ".join(each for each in section.above if each != title)
    return {"section": above} if above else {}
