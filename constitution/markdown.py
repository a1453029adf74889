"""Markdown text → bullets, each with its lines. Knows lists, headings, code fences and comments; knows no principles.

A bullet is one principle; lines that go on with it (indented, or directly below) belong to it. The first heading is the title;
all other text is prose for people. A comment `<!-- … -->` is neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_BULLET = re.compile(r"^(?P<indent> *)(?:[-*+]|\d{1,9}[.)])(?:\s+(?P<text>.*))?$")
_RULE = re.compile(r"^\s*([-*_])(?:\s*\1){2,}\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_CODE_OR_COMMENT = re.compile(
    r"^[ \t]*(?P<fence>```|~~~).*?(?:^[ \t]*(?P=fence)[^\n]*$|\Z)|`[^`\n]+`|(?P<comment><!--)", re.MULTILINE | re.DOTALL
)
_BLANK = "\0"
_BLANKS = re.compile(rf" ?{_BLANK}+")
_MARGIN = 3
"""Bullets further in than this, or than the first one, are bullets inside a bullet."""
MAX_BULLETS = 10_000
_MAX_RULE_CHARS = 1000
"""A ruled line longer than this is none: the pattern keeps a state for every dash."""


@dataclass
class Bullet:
    """Lines and column are 1-based; `parts` are its text, line by line."""

    line: int
    column: int
    last_line: int
    parts: list[str]

    @property
    def text(self) -> str:
        return " ".join(part for part in self.parts if part)


@dataclass
class MarkdownList:
    """`nested` are bullets inside a bullet: what they belong to cannot be told.

    `too_many` is the line of the first bullet that was left unread because there are more than `MAX_BULLETS`; 0 if none was.
    """

    title: str = ""
    prose: list[str] = field(default_factory=list[str])
    bullets: list[Bullet] = field(default_factory=list[Bullet])
    nested: list[Bullet] = field(default_factory=list[Bullet])
    too_many: int = 0


def comments(text: str) -> list[tuple[int, int]]:
    """Start and end of each comment of a text. What stands in code is none; what is never closed is plain text."""
    spans: list[tuple[int, int]] = []
    at = 0
    while "<!--" in text and (found := _CODE_OR_COMMENT.search(text, at)):
        at = found.end()
        if found["comment"]:
            close = text.find("-->", at)
            if close < 0:
                break
            at = close + len("-->")
            spans.append((found.start(), at))
    return spans


def _without_comments(text: str) -> str:
    """The text with its comments blanked out by a character that no text holds, so that lines and columns stay."""
    parts: list[str] = []
    end = 0
    for start, close in comments(text):
        parts += text[end:start], re.sub(r"[^\r\n]", _BLANK, text[start:close])
        end = close
    return "".join([*parts, text[end:]])


def read_markdown(text: str) -> MarkdownList:
    """Read the bullets of a text, its title and its prose. The text holds no NUL."""
    found = MarkdownList()
    margin = _MARGIN
    fenced = goes_on = False
    for number, written in enumerate(_without_comments(text).splitlines(), start=1):
        line = _BLANKS.sub("", written) if _BLANK in written else written
        if _FENCE.match(line):
            fenced = not fenced
        ruled = len(line) <= _MAX_RULE_CHARS and _RULE.match(line) is not None
        bullet = None if fenced or ruled else _BULLET.match(line.expandtabs(4))
        if fenced or ruled or _FENCE.match(line) or not line.strip():
            goes_on = False
        elif bullet:
            if len(found.bullets) + len(found.nested) >= MAX_BULLETS:
                found.too_many = number
                return found
            depth = len(bullet["indent"])
            read = Bullet(number, depth + 1, number, [(bullet["text"] or "").strip()])
            if not found.bullets and depth <= _MARGIN:
                margin = depth
            (found.bullets if depth <= margin else found.nested).append(read)
            goes_on = True
        elif line.startswith("#"):
            found.title = found.title or line.strip("# ")
            goes_on = False
        elif found.bullets and (goes_on or line.startswith((" ", "\t"))):
            found.bullets[-1].parts.append(line.strip())
            found.bullets[-1].last_line = number
            goes_on = True
        else:
            found.prose.append(line.strip())
            goes_on = False
    return found
