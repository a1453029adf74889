"""Refusals by the book: a stock phrase, and neither a reason nor another way. The phrases are of English."""

from __future__ import annotations

import re

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.sentences import words
from cai.data.filters.settings import FilterRules

CANNED_WORDS = 30
"""A refusal of more words says something of its own."""
_SAYS_MORE = re.compile(
    r"\b(?:because|since|instead|rather|you (?:could|can|might|may)|how about|consider|a \w+ way)\b", re.IGNORECASE
)

_SORRY = r"(?:i(?:'m|’m|\ am)\ (?:so\ |very\ |really\ )?(?:sorry|afraid)|sorry|(?:my|i)\ apologi[sz]e?s?|unfortunately)"
_CANNOT = (
    r"(?:can(?:'t|’t|not|\ not)|(?:am|'m|’m)\ (?:not\ able|unable)\ to|won(?:'t|’t)|will\ not|"
    r"must\ (?:decline|refuse)\ to|do\ not|don(?:'t|’t))"
)
_HELP = (
    r"(?:help|assist|support|comply|do\ (?:that|this|it)|answer|respond|provide|fulfil?l?|engage|participate|discuss|continue|"
    r"offer|give|create|generate|write|feel\ comfortable|condone)\b"
)
_AS_AI = r"as\ an?\ (?:ai|artificial\ intelligence|large\ language|language|virtual|responsible|ethical)\b[^,.\n]{0,40},"
_OPENING = re.compile(
    rf"""\A\W*(?:
        {_AS_AI}\ (?:i\ )?(?:{_CANNOT}|have\ no|lack)\b
        | {_SORRY}[,.;:!]?\ {{0,2}}(?:but\ |that\ )?(?:{_AS_AI}\ )?(?:i\ )?{_CANNOT}\ (?:\w+\ )?{_HELP}
        | i\ {_CANNOT}\ (?:\w+\ )?(?:help|assist|comply|support|provide|fulfil?l?|engage|participate|do\ (?:that|this))\b
        | (?:that|this)(?:'s|’s|\ is)\ (?:not\ )?(?:something|a\ request)\ (?:that\ )?i\ {_CANNOT}\ (?:\w+\ )?{_HELP}
        | it\ (?:is|would\ be)\ (?:against|a\ violation\ of)\ (?:my|our)\ (?:programming|guidelines|polic(?:y|ies)|principles)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def _canned_refusal(reply: Reply, _: FilterRules) -> Finding | None:
    found = _OPENING.match(reply.text)
    if found is None:
        return None
    count = len(words(reply.text[:4000]))
    if count > CANNED_WORDS or _SAYS_MORE.search(reply.text) is not None:
        return None
    return Finding("canned_refusal", "a stock refusal, without a reason or another way", found.span())


CANNED_REFUSAL = Rule(
    "canned_refusal", "A stock phrase of refusal, with neither a reason nor another way.", look=_canned_refusal
)
