"""What cannot belong to a reply is taken off a revision's ends. Pure text."""

from __future__ import annotations

import re

_LABEL = re.compile(r"\A(?:revision|revised reply|new reply|reply|answer)\s*:\s*", re.IGNORECASE)
_QUOTES = (('"', '"'), ("“", "”"), ("«", "»"))


def tidy_revision(text: str) -> tuple[str | None, str]:
    """Take off what cannot belong to a reply: a label such as "Revision:" in front, quotes around the whole.

    Returns:
        The revision, or None when nothing is left, and what was done ("" for nothing).
    """
    notes: list[str] = []
    revision = text.strip()
    bare = _LABEL.sub("", revision, count=1)
    if bare != revision:
        notes.append("label taken off")
        revision = bare.strip()
    for left, right in _QUOTES:
        inner = revision[1:-1]
        if len(revision) > 2 and revision[0] == left and revision[-1] == right and left not in inner and right not in inner:
            notes.append("quotes taken off")
            revision = inner.strip()
    if not revision:
        return None, "empty revision: the text before it was kept"
    return revision, ", ".join(notes)
