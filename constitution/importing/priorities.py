"""The priority order of a document: a numbered list that is said to be one, and the sections that its items are about.

Of k priorities the first gives its sections the weight k, the last 1: a principle of the first is drawn k times as often as one
of the last. That is a mapping, not the document's own meaning: there, the higher one prevails in a conflict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from constitution.importing.outlines import Block, Section

_ORDER_WORDS = re.compile(
    r"\bpriorit|\bprecedence\b|\bin (?:this|the following|the) order\b|\border of importance\b", re.IGNORECASE
)
_LEAD = re.compile(r"\s*(?:\*\*|__)(?P<bold>.+?)(?:\*\*|__)|(?P<plain>[^:–—]+?)(?=\s*(?::|\s[-–—]\s|$))")
_EMPTY = frozenset({"a", "an", "and", "be", "being", "for", "in", "is", "it", "its", "of", "on", "the", "to", "with"})
_STEM = 4
MAX_RANKS = 30
"""A list of more entries than this is no priority order."""


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


def find_priorities(sections: list[Section]) -> dict[int, Priority]:
    """The priority of every section that has one, by the section's line: those an entry is about, and all below them."""
    for section in sections:
        for block in section.blocks:
            if block.ordered and 1 < len(block.items) <= MAX_RANKS and _ORDER_WORDS.search(section.text):
                found = _apply(sections, section, block)
                if len({each.rank for each in found.values()}) > 1:
                    return found
    return {}


def _apply(sections: list[Section], own: Section, block: Block) -> dict[int, Priority]:
    others = [each for each in sections if each is not own and each.level]
    heads: dict[int, tuple[float, Section, Priority]] = {}
    for rank, item in enumerate(block.items, start=1):
        lead = _LEAD.match(item.text)
        name = (lead["bold"] or lead["plain"]).strip(" .:*_") if lead else ""
        score, head = _about(_words(name), others)
        # Two entries may share a word with one section: it belongs to the one it shares more with.
        if head is not None and score > heads.get(head.line, (0.0,))[0]:
            heads[head.line] = (score, head, Priority(rank, len(block.items), name, block.line))
    found: dict[int, Priority] = {}
    for _, head, priority in heads.values():
        path = (*head.above, head.heading)
        found |= {each.line: priority for each in sections if each is head or each.above[: len(path)] == path}
    return found


def _about(words: frozenset[str], sections: list[Section]) -> tuple[float, Section | None]:
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
