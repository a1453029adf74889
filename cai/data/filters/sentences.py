"""Words and sentences of a text, with their places. Linear in the text, whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SENTENCE = re.compile(r"[^\n.!?。！？…]*(?:[.!?。！？…](?!\s|\Z)[^\n.!?。！？…]*)*[.!?。！？…]*")
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every sentence: up to a stop with space after it, or to the end of its line."""
    for found in _SENTENCE.finditer(text):
        start, end = found.span()
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start < end:
            yield start, end


def words(text: str) -> list[tuple[int, int]]:
    """Start and end of every word: letters, digits, apostrophes inside."""
    return [found.span() for found in _WORD.finditer(text)]


def normal(text: str) -> str:
    """The words of a text in lower case, one space between them."""
    return " ".join(_WORD.findall(text.lower()))
