"""The priority order of a document, and the sections that its entries are about.

It is a numbered list that is said to be one, or stands in a sentence: "safety first, then ethics, then help", "in this order:
1. safety, 2. ethics", "we prioritise safety over help". English only.

Of k priorities the first gives its sections the weight k, the last 1: a principle of the first is drawn k times as often as one
of the last. That is a mapping, not the document's own meaning: there, the higher one prevails in a conflict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from constitution.importing.outlines import Section

_ORDER_WORDS = re.compile(
    r"\bpriorit|\bprecedence\b|\bin (?:this|the following|the) order\b|\border of importance\b", re.IGNORECASE
)
_LEAD = re.compile(r"\s*(?:\*\*|__)(?P<bold>.+?)(?:\*\*|__)|(?P<plain>[^:–—]+?)(?=\s*(?::|\s[-–—]\s|$))")
_EMPTY = frozenset({"a", "an", "and", "be", "being", "for", "in", "is", "it", "its", "of", "on", "the", "to", "with"})
_STEM = 4
MAX_RANKS = 30
"""A list of more entries than this is no priority order."""

_MAX_NAME_WORDS = 5
_MAX_NAME_CHARS = 80
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_NUMBER = re.compile(r"(?<![\w.])\(?(?P<number>\d{1,2})[.)]\s+")
_NAME = r"[^,;:.!?()]{1,60}?"
_FIRST = re.compile(
    rf"(?:(?:^|[:;,–—]\s*)(?:\w+\s+)??(?P<before>{_NAME})\s+(?:comes?\s+|is\s+|goes\s+)?first"
    rf"|\bfirst(?:\s+of\s+all|\s+comes?)?,?\s+(?P<after>{_NAME})),?\s+(?:and\s+)?(?:then|followed by|second)\s+(?:comes?\s+)?",
    re.IGNORECASE,
)
_THENS = re.compile(
    r",?\s*(?:and\s+)?\b(?:then|followed by|after that|next|third|fourth|fifth|finally|lastly|last)\b\s+(?:comes?\s+)?",
    re.IGNORECASE,
)
_OVER = re.compile(
    rf"\bprioriti[sz]\w*\s+(?P<chain>{_NAME}\s+(?:over|above|before|ahead of)\s+[^,;:.!?()]{{1,200}})", re.IGNORECASE
)
_OVERS = re.compile(r"\s+(?:over|above|before|ahead of)\s+(?:that of\s+)?", re.IGNORECASE)
_LISTED = re.compile(
    r"\b(?:order of (?:priority|importance|precedence)|priorit(?:y|ies)|(?:this|the following) order)\b[^:.!?]{0,40}:\s+"
    r"(?P<list>[^:.!?;]{1,60}(?:,[^:.!?;,]{1,60})+)",
    re.IGNORECASE,
)
_COMMAS = re.compile(r",\s*(?:and\s+)?(?:(?:then|finally|lastly)\s+)?|\s+and\s+(?:then|finally|lastly)\s+", re.IGNORECASE)
_NOISE = re.compile(r"^(?:(?:and|then|by|the|an?|comes?|being)\s+)+|\s+(?:comes?|is|goes)$", re.IGNORECASE)


@dataclass(frozen=True)
class Priority:
    """A section's place in the order: `rank` 1 comes first, of `of`; `line` is where the document states it."""

    rank: int
    of: int
    name: str
    line: int

    @property
    def weight(self) -> float:
        return float(self.of - self.rank + 1)


@dataclass(frozen=True)
class StatedOrder:
    """An order as a document states it: the names of its entries, the first one first."""

    line: int
    names: tuple[str, ...]
    section: Section


def find_orders(sections: Sequence[Section]) -> list[StatedOrder]:
    """Every priority order that the sections state: in numbered lists, and in sentences."""
    found: list[StatedOrder] = []
    for section in sections:
        for block in section.blocks:
            if block.ordered and 1 < len(block.items) <= MAX_RANKS and _ORDER_WORDS.search(section.text):
                found.append(StatedOrder(block.line, tuple(_lead(item.text) for item in block.items), section))
            elif block.kind == "paragraph":
                names = _inline(block.plain, section.heading)
                found += [StatedOrder(block.line, names, section)] if 1 < len(names) <= MAX_RANKS else []
    return found


def apply_order(sections: Sequence[Section], order: StatedOrder) -> dict[int, Priority]:
    """The priority of every section that has one, by the section's line: those an entry is about, and all below them.

    Empty when fewer than two entries are about a section each: then the order says nothing about the sections.
    """
    others = [each for each in sections if each is not order.section and each.level]
    heads: dict[int, tuple[float, Section, Priority]] = {}
    for rank, name in enumerate(order.names, start=1):
        score, head = _about(_words(name), others)
        # Two entries may share a word with one section: it belongs to the one it shares more with.
        if head is not None and score > heads.get(head.line, (0.0,))[0]:
            heads[head.line] = (score, head, Priority(rank, len(order.names), name, order.line))
    found: dict[int, Priority] = {}
    for _, head, priority in heads.values():
        path = (*head.above, head.heading)
        found |= {each.line: priority for each in sections if each is head or each.above[: len(path)] == path}
    return found if len({each.rank for each in found.values()}) > 1 else {}


def _lead(text: str) -> str:
    """What an entry of a list is called: the words in bold, or those before a colon or a dash."""
    lead = _LEAD.match(text)
    return (lead["bold"] or lead["plain"]).strip(" .:*_") if lead else ""


def _inline(text: str, heading: str) -> tuple[str, ...]:
    """The entries of an order that a paragraph states in a sentence; none when it states none."""
    said = _ORDER_WORDS.search(text) or _ORDER_WORDS.search(heading)
    if said and len(names := _numbered(text)) > 1:
        return names
    for sentence in _SENTENCE.split(text):
        names = _chained(sentence, said=bool(said))
        if len(names) > 1:
            return names
    return ()


def _numbered(text: str) -> tuple[str, ...]:
    """`1. a, 2. b and 3. c`: what stands behind each number, counted from 1."""
    markers = list(_NUMBER.finditer(text))
    starts = [at for at, marker in enumerate(markers) if marker["number"] == "1"]
    for start in starts:
        rest = markers[start : start + MAX_RANKS]
        run = [marker for _, marker in takewhile(lambda pair: int(pair[1]["number"]) == pair[0], enumerate(rest, start=1))]
        ends = [*(marker.start() for marker in run[1:]), run[-1].end() + _MAX_NAME_CHARS]
        names = [_entry(text[marker.end() : end]) for marker, end in zip(run, ends, strict=True)]
        if len(names) > 1 and all(names):
            return tuple(names)
    return ()


def _chained(sentence: str, *, said: bool) -> tuple[str, ...]:
    """`a first, then b, then c`; `a over b`; `in order of priority: a, b and c`."""
    listed = _LISTED.search(sentence)
    if listed:
        return tuple(filter(None, map(_entry, _COMMAS.split(listed["list"]))))
    over = _OVER.search(sentence)
    if over:
        return tuple(filter(None, map(_entry, _OVERS.split(over["chain"]))))
    first = _FIRST.search(sentence)
    if not first:
        return ()
    names = [_entry(first["before"] or first["after"]), *map(_entry, _THENS.split(sentence[first.end() :]))]
    short = all(0 < len(name.split()) <= _MAX_NAME_WORDS for name in names)
    # “First read the question, then answer it” is no order of what matters more.
    return tuple(names) if short and (said or (first["before"] and len(names) > 2)) else ()


def _entry(text: str) -> str:
    """An entry without what surrounds it; what goes on behind it is cut off."""
    head = re.split(r"[.;:!?(–—]|\s-\s", _NOISE.sub("", text.strip(" ,.;:*_“”\"'")))[0]
    return head.strip(" ,*_“”\"'")


def _about(words: frozenset[str], sections: Sequence[Section]) -> tuple[float, Section | None]:
    """The section whose heading shares most of an item's words, at least half; the highest level that has one decides."""
    for level in sorted({section.level for section in sections}):
        scores = [(len(words & _words(each.heading)) / max(1, len(words)), each) for each in sections if each.level == level]
        best = max((score for score, _ in scores), default=0.0)
        heads = [section for score, section in scores if score == best]
        if best >= 0.5:
            return best, heads[0] if len(heads) == 1 else None
    return 0.0, None


def _words(text: str) -> frozenset[str]:
    """Words by their beginnings, so that `help` and `helpfulness` are one."""
    words = re.findall(r"[^\W\d_]+", text.lower().replace("’", "'").replace("'s", ""))
    return frozenset(word[:_STEM] for word in words if word not in _EMPTY)
