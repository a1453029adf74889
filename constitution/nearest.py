"""Which known word is meant by one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_CHARS = 80
"""Of a word, for the search takes time that grows with the square of its length."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like `word`, if any is like it at all (difflib's ratio of 0.6)."""
    found = difflib.get_close_matches(word[:MAX_CHARS], known, n=1)
    return found[0] if found else None
