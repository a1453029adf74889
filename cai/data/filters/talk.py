"""Replies that speak of their own making: of the revision, or as the critic. The signs are of English."""

from __future__ import annotations

import re

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.settings import FilterRules

CLOSING_CHARACTERS = 600
"""At the end of a text, in which it may say what was done to it."""

_ASKED = r"(?:revised|rewritten|re-?written|improved|updated|corrected|edited|new|better|modified|alternative)"
_TEXT = r"(?:reply|response|answer|version|revision|rewrite|text|message)"
_OPENING = re.compile(
    rf"""\A\W*(?:(?:sure|certainly|of\ course|okay|ok|absolutely|yes)\b[\s,.!:–—-]*)?(?:
        (?:here|below)(?:'s|’s|\ is|\ are|\ comes)?\ (?:an?|the|my|your|one)?\ ?
          (?:\w+\ ){{0,2}}?{_ASKED}\ (?:\w+\ ){{0,2}}?{_TEXT}\b
        | (?:here|below)(?:'s|’s|\ is)\ (?:a|the|my)\ (?:revision|rewrite)\b
        | (?:the|my)?\ ?{_ASKED}\ {_TEXT}\s*:
        | (?:revision|rewrite|revised|rewritten)\s*:
        | i(?:'ve|’ve|\ have)?\ (?:revised|rewritten|rewrote|rephrased|reworded|corrected|edited)\ (?:the|my|this|that)\b
        | (?:the|this|my)\ (?:revised|rewritten)\ {_TEXT}\b
        | (?:this|the)\ (?:revision|rewrite)\b
        | as\ (?:you\ )?(?:asked|requested)\b[^.]{{0,40}}\b(?:revis|rewr|rephras)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_CLOSING = re.compile(
    rf"\b(?:this|the|my) (?:{_ASKED} {_TEXT}|revision|rewrite)\b[^.]*"
    r"\b(?:principle|critique|original|avoids|removes|follows)\b[^.]*\W*\Z",
    re.IGNORECASE,
)
_CRITIQUE = re.compile(
    r"""\A\W*(?:
        (?:fault|critique|critique\s?request|principle|revision\s?request)\s*:
        | nothing\ to\ change\b
        | (?:the|this|that|my|your)\ (?:(?:last|previous|assistant['’]s|model['’]s|above)\ )?
          (?:reply|response|draft|answer(?!\ (?:is|was|would)\b))
          \ (?:is|was|does|did|should|could|fails|follows|violates|breaks|accepts|agrees|refuses|contains|needs|would|meets)\b
        | the\ assistant\ (?:is|was|does|did|should|could|fails|accepts|agrees)\b
    )
    | ^[^\w\n]*(?:fault|critique\s?request|revision\s?request)\s*:""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_QUOTES = {('"', '"'), ("“", "”")}


def has_meta_talk(text: str) -> bool:
    """Whether a text speaks of being a revision, or stands in quotes as a whole."""
    return _of_meta_talk(text) is not None


def has_critique_talk(text: str) -> bool:
    """Whether a text judges a reply instead of being one."""
    return _CRITIQUE.search(text) is not None


def _of_meta_talk(text: str) -> tuple[int, int] | None:
    if (opening := _OPENING.search(text)) is not None:
        return opening.span()
    offset = max(0, len(text) - CLOSING_CHARACTERS)
    if (closing := _CLOSING.search(text[offset:])) is not None:
        return offset + closing.start(), len(text)
    stripped = text.strip()
    if len(stripped) > 2 and (stripped[0], stripped[-1]) in _QUOTES and not set('"“”') & set(stripped[1:-1]):
        return 0, len(text)
    return None


def _meta_talk(reply: Reply, _: FilterRules) -> Finding | None:
    # A reply that spoke like this before anybody asked for a revision speaks of the user's own text.
    if reply.before is None or (span := _of_meta_talk(reply.text)) is None or has_meta_talk(reply.before):
        return None
    return Finding("meta_talk", "speaks of being a revision" if span[1] - span[0] < len(reply.text) else "all in quotes", span)


def _critique_talk(reply: Reply, _: FilterRules) -> Finding | None:
    if reply.before is None or (found := _CRITIQUE.search(reply.text)) is None or has_critique_talk(reply.before):
        return None
    return Finding("critique_talk", "judges a reply", found.span())


META_TALK = Rule(
    "meta_talk", "The revision speaks of being one, or stands in quotes as a whole.", look=_meta_talk, of_revisions=True
)
CRITIQUE_TALK = Rule(
    "critique_talk", "The revision judges a reply instead of being one.", look=_critique_talk, of_revisions=True
)
