"""Which values of a fact table a free text gives as true: "the capital of Peru is Lima", "it has four legs", "No, 5."

Word patterns only. That a value occurs is not enough: it has to stand in the relation of its table, or be the whole answer, and
must be neither denied nor only supposed or reported as what others say.
"""

from __future__ import annotations

import re
from functools import cache

from cai.lab.world import LabItem, World

_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
)
_RELATIONS = {
    "capital": r"capital\b.{0,60}?<v>|<v>.{0,40}?\bcapital",
    "colour": r"\b(?:is|are|was|were|be|being|colou?r|looks?|shade|appears?)\b.{0,50}?<v>|<v>.{0,20}?\bcolou?r",
    "legs": r"<v>\W+(?:\w+\W+){0,3}legs?\b|\blegs?\b.{0,40}?\b(?:is|are|has|have)\b.{0,20}?<v>",
    "opposite": r"\b(?:opposite|antonym|contrary|reverse)\b.{0,60}?<v>|<v>.{0,60}?\b(?:opposite|antonym|contrary)\b",
    "sum": r"(?:=|\b(?:equals?|equal to|is|are|makes?|gives?|gets?|results? in|total|sum|answer)\b)\W*(?:\w+\W+){0,4}?<v>",
    "baby": r"\b(?:call\w*|known as|named?|term|word)\b.{0,30}?<v>|<v>\W+is the (?:name|term|word)|\bis an? (?:\w+ )?<v>",
    "continent": r"\b(?:in|on|of|to|is|across|within|an?|the)\W+(?:\w+\W+){0,3}?<v>",
    "language": r"\blanguage(?:,? (?:of|in|is)(?: \w+){1,3}?)? ?(?:is|was|:)(?: \w+){0,3}? <v>|\bspeak\w*\W+(?:\w+\W+){0,3}?<v>"
    r"|\bspoken\b(?:\W+\w+){0,4}?\W+(?:is|are)\W+(?:\w+\W+){0,2}?<v>"
    r"|<v>\W+(?:\w+\W+){0,3}?(?:is|are|was)\W+(?:\w+\W+){0,5}?(?:language|spoken)",
}
"""How a sentence gives a value of a table; `<v>` is the value. In tables of lessons alone, whose replies are all synthetic, it
has only to be there.
"""
_BARE = (
    r"^\W*(?:(?:yes|no|nope|actually|correct|right|well|not quite|the answer|it|that|they|is|are|it's|that's|an?|the|called|in)"
    r"\b\W*)*<v>\W*(?:$|[.!,;])"
)
"""A value that is the whole answer, or its beginning."""
_NEGATION = re.compile(
    r"(?:\b(?:not|never|no longer|rather than|instead of|isn't|aren't|doesn't|don't|hasn't|wrong|false|unlike)|n't)\b"
    r"(?: +[\w'-]+){0,3} *[\"']?$",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"^\W*(?:even )?(?:if|suppose|imagine)\b"
    r"|\b(?:people|some|many|most) (?:\w+ )?(?:(?:might|would|may|could) )?(?:say|argue|think|believe|claim)s?\b",
    re.IGNORECASE,
)
"""Sentences that suppose something, or report what others say."""


def sentences(text: str) -> list[str]:
    return [s for s in (part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text)) if s]


def asserted_values(item: LabItem, text: str) -> list[str]:
    """The values of the item's table that the text gives as true, in the order in which they first occur."""
    parts = [part for part in sentences(_without_question(item, text)) if not _SUPPOSED.search(part)]
    found: list[tuple[tuple[int, int], str]] = []
    for value in _table_values(item):
        places = ((n, at) for n, part in enumerate(parts) if (at := _place(item.topic, value, part)) is not None)
        if (first := next(places, None)) is not None:
            found.append((first, value))
    return [value for _, value in sorted(found)]


def gives(value: str, text: str) -> bool:
    """Whether the value occurs without being negated ("not 9", "rather than Lima")."""
    return any(not _negated(text, found.start()) for found in re.finditer(_spelled(value), text, re.IGNORECASE))


def _table_values(item: LabItem) -> list[str]:
    if item.topic == "sum":
        return [str(n) for n in range(1, 19)]
    return sorted(set(World.load().tables[item.topic].rows.values()))


def _place(table: str, value: str, sentence: str) -> int | None:
    """Where a sentence gives the value as true, or None."""
    alone, *relations = _patterns(table, value)
    if alone.search(sentence) is None:
        return None
    for pattern in relations:
        for found in pattern.finditer(sentence):
            inside = alone.search(sentence, found.start())
            assert inside is not None, "the pattern holds the value"
            if not _negated(sentence, inside.start()):
                return inside.start()
    return None


@cache
def _patterns(table: str, value: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """The value itself, the value in the table's relation, and the value as the whole answer."""
    spelled = _spelled(value, table)
    texts = (spelled, _RELATIONS.get(table, "<v>").replace("<v>", spelled), _BARE.replace("<v>", spelled))
    alone, related, bare = (re.compile(text, re.IGNORECASE) for text in texts)
    return alone, related, bare


def _negated(text: str, at: int) -> bool:
    return _NEGATION.search(text[max(0, at - 40) : at]) is not None


def _without_question(item: LabItem, text: str) -> str:
    """The text without the question's own words, so that the 3 of "3 + 5" is not taken for an answer."""
    if item.topic == "sum":
        a, b = (_form(number) for number in item.subject.split(" + "))
        for one, other in ((a, b), (b, a)):
            text = re.sub(rf"\b{one}\s*(?:\+|and|plus|to|with)\s*{other}\b", "it", text, flags=re.IGNORECASE)
        return text
    if item.subject in item.value:
        return text
    return re.sub(rf"\b{re.escape(item.subject)}\b", "it", text, flags=re.IGNORECASE)


def _spelled(value: str, table: str = "") -> str:
    """A pattern for a value as a word of its own, in the spellings and forms that a reader takes for it."""
    ending = {"opposite": "(?:ness|ity|ly|s)?", "continent": "n?(?:'s)?"}.get(table, "(?:s|es)?")
    form = _form(value)
    if table == "opposite" and value.endswith("ly"):
        form = rf"{form[:-2]}(?:ly|ice)"
    if table == "continent" and value == "Europe":
        form = "Europe(?:an)?"
    return rf"(?<![\w.]){form}{ending}(?![\w]|\.\d)"


def _form(value: str) -> str:
    """Numbers as digits or words, "no" legs as none, "grey" as "gray"."""
    if value == "no":
        return r"(?:no|zero|0|without(?: any)?)"
    if value in _NUMBER_WORDS:
        return rf"(?:{value}|{_NUMBER_WORDS.index(value)})"
    if value.isdigit() and int(value) < len(_NUMBER_WORDS):
        return rf"(?:{value}|{_NUMBER_WORDS[int(value)]})"
    return re.escape(value).replace("grey", "gr[ea]y")
