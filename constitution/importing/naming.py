"""Ids for principles that come without one: short and readable. `constitution.ids` makes them unique."""

from __future__ import annotations

import re
import unicodedata

from constitution.ids import MAX_CHARS

_WORDS_OF_A_TEXT = 5
_SAYS_LITTLE = frozenset(
    re.findall(
        r"\w+",
        """
    a about above after all also an and any anything are as assistant assistants at be because been being but by can choose
    claude claudes compare conversation could did discuss do does each especially explain for from give good has have how
    human humans identify if in into is it its last least less like may model models more most not note of on or other out
    please point preceding previous question read reply response responses revise rewrite s said say select should so
    something specific such take than that the their them these they this those to uses ve very was ways we were what which
    who will with without would write you your
    """,
    )
)
"""Words that nearly every principle holds, and so tell none of them from the others."""


def slug(name: str) -> str:
    """A name as an id: its letters and digits, lower case, joined by hyphens; "" when it has none."""
    return "-".join(_words(name))[:MAX_CHARS].strip("-")


def telling(text: str) -> str:
    """An id from the first words of a text that tell it from others; from its first words at all when there are none."""
    words = _words(text[:2000])
    told = [word for word in words if word not in _SAYS_LITTLE] or words
    return "-".join(dict.fromkeys(told[:_WORDS_OF_A_TEXT]))[:MAX_CHARS].strip("-")


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", text.replace("’", "").replace("'", ""))
    return re.findall(r"[a-z0-9]+", "".join(c for c in plain if not unicodedata.combining(c)).lower())
