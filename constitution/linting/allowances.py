"""Comments that allow a warning: `# cai: allow C206 reason`, in Markdown `<!-- cai: allow C206 reason -->`.

What such a comment covers depends on where it stands:

* above everything else in the file: the whole file;
* at the end of a line: what begins on that line. On the first line of a principle that is the whole principle, on the line of a
  key its whole value;
* on a line of its own: what begins on the next line that has content.

Several ids are separated by commas or spaces; what follows them is the reason, for people. An error cannot be allowed, and an
allowance that covers nothing is a warning itself, so that none outlives its reason.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from constitution.linting.findings import Finding
from constitution.linting.rules import Example, Rule
from constitution.markdown import comments
from constitution.reading import ReadFile

_KIND = "- id: kind\n  principle: Always be kind.{}\n  tests:\n    - {{prompt: Hi, better: Hello., worse: Go.}}"

NOT_ALLOWED = Rule(
    "C231",
    "an allowance of what cannot be allowed",
    "Only warnings that exist can be allowed: `cai check --rules` lists them.",
    Example(
        _KIND.format("  # cai: allow C206 C999 we mean it"),
        _KIND.format("  # cai: allow C206 we mean it"),
    ),
)
UNUSED = Rule(
    "C232",
    "an allowance that covers nothing",
    "It outlived its reason, or stands in the wrong place; a later warning could hide behind it.",
    Example(
        _KIND.format("").replace("Always be", "Be") + "  # cai: allow C206",
        _KIND.format("").replace("Always be", "Be"),
    ),
)

MAX_ALLOWANCES = 1000
"""In one file; what stands beyond is told and does not count."""

RULES = (NOT_ALLOWED, UNUSED)

_ALLOW = re.compile(r"cai:\s*allow\b(?P<ids>(?:[\s,]+C\d+\b)*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Allowance:
    """Ids that are allowed from `first` to `last`, 1-based lines; (line, column) is the comment's own place."""

    line: int
    column: int
    ids: tuple[str, ...]
    first: int
    last: int


def apply_allowances(file: ReadFile, findings: Sequence[Finding], warnings: frozenset[str]) -> Sequence[Finding]:
    """The findings of one file without those that it allows, and with what is wrong with its allowances.

    Where several allow the same finding, the innermost counts as used. What a finding about several lines needs is an
    allowance that covers them all.

    Args:
        file: The file as it was read.
        findings: All findings of it.
        warnings: The ids of all rules that may be allowed.
    """
    if "cai:" not in file.document.text.lower():
        return findings
    allowances = list(islice(_allowances(file), MAX_ALLOWANCES + 1))
    used: set[tuple[int, int, str]] = set()
    kept: list[Finding] = []
    if len(allowances) > MAX_ALLOWANCES:
        last = allowances.pop()
        problem = f"more than {MAX_ALLOWANCES} allowances in one file; none counts from here on"
        kept.append(NOT_ALLOWED.at(str(file.path), (last.line, last.column), problem, "allow the rule for the whole file"))
    waiting = sorted(allowances, key=lambda each: -each.first)
    begun: dict[str, list[Allowance]] = defaultdict(list)
    for finding in sorted(findings, key=lambda finding: finding.line):
        while waiting and waiting[-1].first <= finding.line:
            each = waiting.pop()
            for rule in each.ids:
                begun[rule].append(each)
        covering = begun[finding.rule]
        while covering and covering[-1].last < finding.line:
            covering.pop()
        last_line = max(finding.line, finding.last_line)
        innermost = next((each for each in reversed(covering) if each.last >= last_line), None)
        if innermost is not None and finding.rule in warnings:
            used.add((innermost.line, innermost.column, finding.rule))
        else:
            kept.append(finding)
    for each in allowances:
        kept.extend(_wrong(str(file.path), each, used, warnings))
    # What is broken was not looked through for warnings: nobody can say that nothing needs an allowance.
    return kept if file.constitution is not None else [each for each in kept if each.rule != UNUSED.id]


def _wrong(path: str, each: Allowance, used: set[tuple[int, int, str]], warnings: frozenset[str]) -> Iterable[Finding]:
    position = each.line, each.column
    if not each.ids:
        yield NOT_ALLOWED.at(path, position, "it is not said what is allowed", "name the rules: `cai: allow C206`")
    for rule in each.ids:
        if rule not in warnings:
            problem = f"{rule} is an error, and cannot be allowed" if rule.startswith("C1") else f"there is no warning {rule}"
            yield NOT_ALLOWED.at(path, position, problem, "`cai check --rules` lists the rules")
        elif (*position, rule) not in used:
            yield UNUSED.at(path, position, f"nothing here needs the allowance of {rule}", "delete it")


def _allowances(file: ReadFile) -> Iterable[Allowance]:
    lines = file.document.lines
    spots = list(_markdown_comments(file) if file.is_markdown else _yaml_comments(file))
    starts = _first_and_last_lines(file)
    alone_on = {spot[0] for spot in spots if spot[3]}
    content = [number for number, line in enumerate(lines, start=1) if line.strip() and number not in alone_on]
    for line, column, text, alone in spots:
        found = _ALLOW.search(text)
        if found is None:
            continue
        ids = tuple(dict.fromkeys(each.upper() for each in re.findall(r"C\d+", found["ids"], re.IGNORECASE)))
        below = bisect_right(content, line)
        target = content[below] if alone and below < len(content) else line
        above_all = alone and (not content or line < content[0])
        first, last = (1, len(lines) + 1) if above_all else (target, starts.get(target, target))
        yield Allowance(line, column, ids, first, last)


def _first_and_last_lines(file: ReadFile) -> Mapping[int, int]:
    """For each line on which something begins, the last line of the largest thing that begins there."""
    last: dict[int, int] = {}
    reach: dict[tuple[str | int, ...], int] = {}
    for path, place in file.document.places.items():
        if place.style == "-":
            continue
        for length in range(1, len(path) + 1):
            reach[path[:length]] = max(reach.get(path[:length], 0), place.last_line)
    for path, line in reach.items():
        if path in file.document.places:  # the list of a Markdown file stands nowhere
            start = file.document.places[path].line
            last[start] = max(last.get(start, 0), line)
    return last


def _yaml_comments(file: ReadFile) -> Iterable[tuple[int, int, str, bool]]:
    """Each comment as (line, column, text, whether it stands alone on its line). A `#` inside a text is none."""
    texts: dict[int, list[tuple[int, int]]] = {}
    for place in file.document.places.values():
        if place.style == "-":
            continue
        span = place.span
        for line in range(span.line + (place.style in ("|", ">")), span.end_line + 1):
            start = span.column if line == span.line else 0
            end = span.end_column if line == span.end_line else 1 << 30
            texts.setdefault(line, []).append((start, end))
    for number, line in enumerate(file.document.lines):
        if "#" not in line:
            continue
        for at in (found.start() for found in re.finditer(r"(?:(?<=\s)|^)#", line)):
            if not any(start <= at < end for start, end in texts.get(number, ())):
                yield number + 1, at + 1, line[at:], not line[:at].strip()
                break


def _markdown_comments(file: ReadFile) -> Iterable[tuple[int, int, str, bool]]:
    text = file.document.text
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    for start, end in comments(text):
        number, last = bisect_right(starts, start), bisect_right(starts, end - 1)
        before, after = text[starts[number - 1] : start], text[end : starts[last]]
        yield number, len(before) + 1, text[start:end], not before.strip() and not after.strip()
