"""Ids for principles that come without one: the words that their text begins with, made unique."""

from __future__ import annotations

import re

FALLBACK = "principle"
MAX_CHARS = 70
_WORDS = 6


def first_words(text: str) -> str:
    """The first words of a text as an id, lower case and joined by hyphens; "" when it has no letter from a to z."""
    return "-".join(re.findall(r"[a-z0-9]+", text[:1000].lower())[:_WORDS])[:MAX_CHARS].strip("-")


def unused(identity: str, taken: dict[str, int]) -> str:
    """`identity`, or with the first number behind it that makes it unique.

    Args:
        identity: The id one would like; "" takes a general word.
        taken: Ids in use, each with the last number that was put behind it; the new one is added.
    """
    base = identity or FALLBACK
    found, count = base, taken.get(base, 0)
    while found in taken:
        count += 1
        found = f"{base}-{count + 1}"
    taken[base] = count
    taken.setdefault(found, 0)
    return found
