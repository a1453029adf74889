"""Replies that stop in the middle although no limit cut them. Only endings that no writer chooses; the words are of English."""

from __future__ import annotations

import re

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.sentences import words
from cai.data.filters.settings import FilterRules

SHORT_WORDS = 8
"""Fewer words are an answer, whatever the last one is."""
_OPEN_ENDED = re.compile(
    "the|and|or|of|because|although|whereas|your|their|my|our|its|his|than|very|into|onto|from|between|with|without"
)
_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
_EMPTY_ENTRY = re.compile(r"\n[ \t]*(?:\d{1,3}[.)]|[-*•])\Z")
_OPEN_SIGN = re.compile(r"[,;]\Z|(?<![:;=8'-])[(\[{]\Z|\w-\Z")
_LINE = 400
"""Characters at the end that are looked at; a line that long without a stop is no sentence."""


def _truncated(reply: Reply, _: FilterRules) -> Finding | None:
    text = reply.text.rstrip()
    if reply.cut or not text:
        return None  # a known cut is another rule's
    fences = [found.start() for found in _FENCE.finditer(text)]
    if len(fences) % 2:
        return Finding("truncated", "a code block that is never closed", (fences[-1], len(text)))
    if fences and fences[-1] >= text.rfind("\n"):
        return None
    found = _open_end(text)
    return None if found is None else Finding("truncated", found[0], (found[1], len(text)))


def _open_end(text: str) -> tuple[str, int] | None:
    """In words, why a text cannot end as it does, and from where on; None for one that can."""
    offset = max(0, len(text) - _LINE)
    tail = text[offset:]
    if "\n" in tail and (entry := _EMPTY_ENTRY.search(tail)) is not None:
        return "a list entry with nothing in it", offset + entry.start() + 1
    places = words(tail)
    if not places or (offset == 0 and len(places) < SHORT_WORDS):
        return None
    start, end = places[-1]
    if (sign := _OPEN_SIGN.search(tail)) is not None and not (sign.group() in ",;" and _is_verse(text)):
        return "ends with a sign after which something follows", offset + start
    if end == len(tail) and _OPEN_ENDED.fullmatch(tail, start, end) is not None:  # a capital would make it a name or a title
        return "ends with a word after which something follows", offset + start
    return None


def _is_verse(text: str) -> bool:
    """Whether lines end with commas, as those of poems, letters ("Yours,") and lists of values do."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return len(lines) > 1 and (len(lines[-1].split()) <= 3 or sum(line.endswith((",", ";")) for line in lines) > 1)


TRUNCATED = Rule("truncated", "The reply stops in the middle although no limit cut it.", look=_truncated)
