"""Spaces, line ends and characters that nobody sees. Nearly all of it can be mended without changing what a file says."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from constitution.linting.findings import Edit, Finding, Fix
from constitution.linting.rules import Example, Rule
from constitution.reading import MAX_PROBLEMS, ReadFile

_ENTRY = (
    "principles:\n  - id: kind\n    principle: Be kind.{}\n    tests:{}\n      - {{prompt: Hi, better: Hello., worse: Go.}}{}"
)

INVISIBLE = Rule(
    "C217",
    "a character that nobody sees",
    "Zero-width characters change what a model reads, and marks of direction make a text read otherwise than it is; neither is "
    "seen in an editor. They come along when text is copied from web pages.",
    Example("principle: Be\u200b kind.", "principle: Be kind."),
)
TRAILING = Rule(
    "C221",
    "spaces at the end of a line",
    "They make noise in every comparison of two versions.",
    Example(_ENTRY.format("  ", "", "\n"), _ENTRY.format("", "", "\n"), "yaml"),
    fixable=True,
)
NO_LAST_NEWLINE = Rule(
    "C222",
    "no newline at the end of the file",
    "The next line that is added changes two.",
    Example(_ENTRY.format("", "", ""), _ENTRY.format("", "", "\n"), "yaml"),
    fixable=True,
)
MIXED_LINE_ENDS = Rule(
    "C223",
    "line ends of more than one kind",
    "Tools disagree about where such a file has its lines, and so about every place in it.",
    Example(_ENTRY.format("\r", "", "\n"), _ENTRY.format("", "", "\n"), "yaml"),
    fixable=True,
)
TAB = Rule(
    "C224",
    "a tab before a line's text",
    "YAML counts spaces, and every editor draws a tab in its own width.",
    Example(
        "description: Kind\n \treplies.\n" + _ENTRY.format("", "", "\n"),
        "description: Kind\n   replies.\n" + _ENTRY.format("", "", "\n"),
        "yaml",
    ),
    fixable=True,
)

RULES = (INVISIBLE, TRAILING, NO_LAST_NEWLINE, MIXED_LINE_ENDS, TAB)
LINE_BY_LINE = frozenset({INVISIBLE.id, TRAILING.id, TAB.id})
"""Ids of the rules that say the same of one line after the other: whoever shows findings may draw them together."""

_INVISIBLE = re.compile("[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SPACES = frozenset(" \t")


def check_layout(file: ReadFile) -> Iterable[Finding]:
    """All that `RULES` say about one file.

    Each line has a finding of its own, so that an allowance hides no other line's. Beyond `MAX_PROBLEMS` of one rule, the rest
    of the lines share one.
    """
    text, path = file.document.text, str(file.path)
    if not text or any(error.rule == "C103" for error in file.errors):
        return
    kept = _lines_whose_spaces_count(file)
    lines = file.document.lines
    # Where the texts are is not known in a broken file: their own spaces would be taken for stray ones.
    readable = file.is_markdown or file.document.wholly_read
    if readable and (" \n" in text or "\t" in text or text.endswith(" ") or " \r" in text):
        yield from _spaces(file, kept)
    ends = Counter(found[0] for found in _LINE_END.finditer(text)) if "\r" in text else Counter({"\n": 1})
    usual = ends.most_common(1)[0][0]
    if len(ends) > 1:
        edits = tuple(_other_line_ends(text, usual))
        name = {"\n": "LF", "\r\n": "CRLF", "\r": "CR"}
        counted = ", ".join(f"{count} × {name[end]}" for end, count in ends.most_common())
        fix = Fix(f"ended every line with {name[usual]}", edits) if readable else None
        place = edits[0].line, edits[0].column
        finding = MIXED_LINE_ENDS.at(path, place, f"mixed line ends: {counted}", "use one kind", fix)
        yield replace(finding, last_line=edits[-1].line)
    if not text.endswith(("\n", "\r")):
        last = (len(lines), len(lines[-1]) + 1)
        fix = Fix("ended the last line", (Edit(*last, *last, usual),)) if readable else None
        yield NO_LAST_NEWLINE.at(path, last, "no newline at the end of the file", "add one", fix)
    if not text.isascii():
        yield from _invisible(file)


def _lines_whose_spaces_count(file: ReadFile) -> frozenset[int]:
    """0-based lines inside texts that go over several lines, where spaces may be part of the text."""
    if file.is_markdown:
        return frozenset()
    spans = {(place.span, place.style) for place in file.document.places.values() if place.style in ("'", '"', "|", ">")}
    kept: set[int] = set()
    for span, style in spans:
        if span.end_line > span.line:
            kept.update(range(span.line + (style in ("|", ">")), span.end_line))
    return frozenset(kept)


@dataclass(frozen=True, slots=True)
class _Spot:
    """What is wrong on one line, and the edit that mends it."""

    line: int
    column: int
    problem: str
    edit: Edit | None = None


def _line_by_line(file: ReadFile, rule: Rule, spots: Sequence[_Spot], hint: str, done: str = "") -> Iterable[Finding]:
    path = str(file.path)
    for spot in spots[:MAX_PROBLEMS]:
        fix = Fix(f"{done} the line", (spot.edit,)) if spot.edit else None
        yield rule.at(path, (spot.line, spot.column), spot.problem, hint, fix)
    rest = spots[MAX_PROBLEMS:]
    if rest:
        count = f"{len(rest)} more line{'s' * (len(rest) != 1)}"
        edits = tuple(spot.edit for spot in rest if spot.edit)
        fix = Fix(f"{done} {count}", edits) if edits else None
        finding = rule.at(path, (rest[0].line, rest[0].column), f"{rule.title}: {count} from here on", hint, fix)
        yield replace(finding, last_line=rest[-1].line)


def _spaces(file: ReadFile, kept: frozenset[int]) -> Iterable[Finding]:
    trailing: list[_Spot] = []
    tabs: list[_Spot] = []
    for number, line in enumerate(file.document.lines, start=1):
        if number - 1 in kept or not line:
            continue
        before = line[: len(line) - len(line.lstrip())] if "\t" in line else ""
        if "\t" in before and len(before) < len(line) and not file.is_markdown:
            edit = Edit(number, 1, number, len(before) + 1, before.replace("\t", "  "))
            tabs.append(_Spot(number, line.index("\t") + 1, "a tab before the text of the line", edit))
        if line[-1:] in _SPACES:
            kept_text = len(line.rstrip(" \t"))
            # Two spaces at the end of a Markdown line are its way to break a line.
            if not (file.is_markdown and line[kept_text:] == "  "):
                edit = Edit(number, kept_text + 1, number, len(line) + 1, "")
                trailing.append(_Spot(number, kept_text + 1, "spaces at the end of the line", edit))
    yield from _line_by_line(file, TRAILING, trailing, "delete them", "took the spaces from the end of")
    yield from _line_by_line(file, TAB, tabs, "indent with spaces", "wrote spaces for the tabs before")


def _other_line_ends(text: str, usual: str) -> Iterable[Edit]:
    """Edits at the ends of lines as `str.splitlines` counts them."""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        found = _LINE_END.search(line)
        if found and found[0] != usual:
            yield Edit(number, found.start() + 1, number, found.end() + 1, usual)


def _invisible(file: ReadFile) -> Iterable[Finding]:
    spots: list[_Spot] = []
    for number, line in enumerate(file.document.lines, start=1):
        seen: set[str] = set()
        for found in () if line.isascii() else _INVISIBLE.finditer(line):
            if found[0] not in seen:
                seen.add(found[0])
                name = unicodedata.name(found[0], "no name").lower()
                problem = f"the invisible character U+{ord(found[0]):04X} ({name})"
                spots.append(_Spot(number, found.start() + 1, problem))
    yield from _line_by_line(file, INVISIBLE, spots, "delete it")
