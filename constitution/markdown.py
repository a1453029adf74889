"""Markdown text → bullets, each with its line. Knows lists, headings and code fences; knows no principles.

A bullet is one principle; lines that go on with it (indented, or directly below) belong to it. The first heading is the title;
all other text is prose for people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_BULLET = re.compile(r"^(?P<indent> *)(?:[-*+]|\d{1,9}[.)])(?:\s+(?P<text>.*))?$")
_RULE = re.compile(r"^\s*([-*_])(?:\s*\1){2,}\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_MARGIN = 3
"""Bullets further in than this, or than the first one, are bullets inside a bullet."""


@dataclass
class Bullet:
    line: int
    column: int
    text: str


@dataclass
class MarkdownList:
    """`nested` are bullets inside a bullet: what they belong to cannot be told."""

    title: str = ""
    prose: list[str] = field(default_factory=list[str])
    bullets: list[Bullet] = field(default_factory=list[Bullet])
    nested: list[Bullet] = field(default_factory=list[Bullet])


def read_markdown(text: str) -> MarkdownList:
    """Read the bullets of a text, its title and its prose."""
    found = MarkdownList()
    margin = _MARGIN
    fenced = goes_on = False
    for number, line in enumerate(text.splitlines(), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        bullet = None if fenced or _RULE.match(line) else _BULLET.match(line.expandtabs(4))
        if fenced or _FENCE.match(line) or _RULE.match(line) or not line.strip():
            goes_on = False
        elif bullet:
            depth = len(bullet["indent"])
            read = Bullet(number, depth + 1, (bullet["text"] or "").strip())
            if not found.bullets and depth <= _MARGIN:
                margin = depth
            (found.bullets if depth <= margin else found.nested).append(read)
            goes_on = True
        elif line.startswith("#"):
            found.title = found.title or line.strip("# ")
            goes_on = False
        elif found.bullets and (goes_on or line.startswith((" ", "\t"))):
            found.bullets[-1].text = f"{found.bullets[-1].text} {line.strip()}".strip()
            goes_on = True
        else:
            found.prose.append(line.strip())
            goes_on = False
    return found
