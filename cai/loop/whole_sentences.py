"""The whole sentences of a text that was cut at its token limit."""

from __future__ import annotations

import re

_END = re.compile(
    r"""
    (?: [.!?…]+ ["'”’»)\]*_]* (?=\s)   # a sentence that is followed by something
      | [。！？]+ ["'”’」』）]*          # scripts without spaces
      | (?<=[\w)]) (?=\n\n)            # a paragraph, an item of a list
    )
    """,
    re.VERBOSE,
)
_NUMBER_OR_ABBREVIATION = re.compile(r"(?:^|\s)(?:\d+|[A-Za-z]|[Ee]\.g|[Ii]\.e|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|No)\.$")


def whole_sentences(text: str) -> str:
    """The text up to the last sentence or paragraph that more follows; empty if there is none.

    A block of code that the cut left open is left out. What ends a sentence is told by punctuation alone, in Latin and CJK
    scripts: the number of a list's item, an initial or a common abbreviation does not.
    """
    for end in reversed([match.end() for match in _END.finditer(text)]):
        whole = text[:end].rstrip()
        if whole and not _NUMBER_OR_ABBREVIATION.search(whole) and whole.count("```") % 2 == 0:
            return whole
    return ""
