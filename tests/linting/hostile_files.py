"""Files made to stall or to fill the memory of whoever reads them. Run as a script, it checks each in a process of its own and
prints one JSON line for it: seconds of processor time, the most memory that was held (MiB), and the rules that were found."""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

SIZE = 3_900_000
"""Just below what a principle file may have."""


def _filled(unit: str, before: str = "", after: str = "") -> str:
    return before + unit * ((SIZE - len(before) - len(after)) // len(unit.encode())) + after


def _numbered(unit: str, before: str = "", count: int = 10**9) -> str:
    """As many units as fit, `count` at most, each with its number in place of `{}`."""
    parts, size = [before], len(before)
    for number in range(count):
        part = unit.replace("{}", str(number))
        size += len(part)
        if size > SIZE:
            break
        parts.append(part)
    return "".join(parts)


def _laughs() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in itertools.pairwise("abcdefghijkl")]
    return "\n".join(lines)


def _chain() -> str:
    """A nest of brackets within bounds, with an alias of the nest before in its middle."""
    nests = [f"  k{n}: &a{n} {'[' * 90}{f'*a{n - 1}' if n else '1'}{']' * 90}" for n in range(25)]
    return "\n".join(["principles: []", "x:", *nests, ""])


_ONE = "principles:\n  - id: kind\n    principle: "


def _long_id(identity: str) -> str:
    return f"  - id: {identity}\n    principle: Be kind.\n"


def _questions(words: str, key: str = "critique_request") -> str:
    """Principles with the longest questions there may be, of the same words over and over."""
    question = (words * (3900 // len(words))).strip()
    return _numbered(
        f"- {{id: a{{}}, principle: b {{}} c, {key}: '{question.replace(chr(39), chr(39) * 2)}'}}\n", "principles:\n"
    )


HOSTILE: dict[str, Callable[[], str | bytes]] = {
    "a line of ten megabytes": lambda: "a" * 10_000_000,
    "a line as long as allowed": lambda: _filled("a", _ONE),
    "commas": lambda: _filled("a,", "principles: [", "]"),
    "brackets": lambda: _filled("["),
    "dashes": lambda: _filled("- "),
    "questions": lambda: _filled("? "),
    "braces in braces": lambda: _filled("{a: "),
    "an unclosed quote": lambda: _filled("a ", _ONE + '"'),
    "escapes": lambda: _filled("\\x41", _ONE + '"', '"'),
    "an alias bomb": _laughs,
    "aliases in a chain": _chain,
    "more lines than are read": lambda: _filled("#  \n"),
    "many anchors": lambda: _numbered("- &a{} x\n"),
    "aliases of one text": lambda: _filled(", *a", "a: &a " + "x" * 3000 + "\nprinciples: [*a", "]"),
    "a cyclic anchor": lambda: "principles: &all\n  - *all\n",
    "a cyclic section": lambda: _filled("- *one\n", "principles: &one\n"),
    "a number to base sixty": lambda: _filled(":1", _ONE + "1"),
    "a number of millions of digits": lambda: _filled("9", _ONE + "1"),
    "a hexadecimal number": lambda: _filled("f", _ONE + "0x"),
    "digits and underscores": lambda: _filled("_1", _ONE + "1", "x"),
    "comments": lambda: _filled("# cai: allow C206\n"),
    "allowances": lambda: _numbered("  - id: a{} # cai: allow C206\n    principle: x\n", "principles:\n", 13_000),
    "blank lines": lambda: _filled("\n", "name: x"),
    "spaces": lambda: _filled(" ", "name: x\n"),
    "lines with a space at the end": lambda: "#  \n" * 190_000,
    "unknown keys": lambda: _numbered("k{}: 1\n", "", 39_000),
    "one key": lambda: _filled("k: 1\n"),
    "empty principles": lambda: _filled("  -\n", "principles:\n"),
    "more principles than are read": lambda: _numbered("- {id: a{}, principle: b {} c}\n", "principles:\n"),
    "small principles": lambda: _numbered("- {id: a{}, principle: b {} c}\n", "principles:\n", 13_000),
    "alike principles": lambda: _numbered("- {id: a{}, principle: Be kind as you are told by {}}\n", "principles:\n", 13_000),
    "one id": lambda: _numbered("- {id: a, principle: b c}\n", "principles:\n", 13_000),
    "broken principles": lambda: _numbered("- {id: A {}, principle: 1, tests: no}\n", "principles:\n", 9_500),
    "principles without ids": lambda: _numbered("- principle: Be kind.\n", "principles:\n", 19_500),
    "templates": lambda: _numbered("- {id: a{}, principle: '{{ w|upper }} {}', parameters: {w: x}}\n", "principles:\n", 7_900),
    "broken templates": lambda: _numbered("- {id: a{}, principle: '{{ w{} '}\n", "principles:\n", 13_000),
    "allowed principles": lambda: _numbered("- {id: a{}, principle: always {} c} # cai: allow C206\n", "principles:\n", 13_000),
    "a long template": lambda: _filled("{{ a }}", _ONE + "'", "'"),
    "open comments of a template": lambda: _filled("{# ", _ONE + "'", "'"),
    "tags": lambda: _numbered("tag{}, ", _ONE + "Be kind.\n    applies_to: [") + "x]\n",
    "tags of many principles": lambda: _numbered(
        "- {id: a{}, principle: b {} c, applies_to: [tag-{}, of-{}]}\n", "principles:\n", 6500
    ),
    "tags that are nearly each other": lambda: _numbered(
        "- {id: a{}, principle: b {} c, applies_to: [" + "x-" * 35 + "{}]}\n", "principles:\n", 6500
    ),
    "tags used once and twice": lambda: _numbered(
        "- {id: a{}, principle: b {} c, applies_to: [common-tag-of-two-{}, common-tag-of-two-1{}]}\n", "principles:\n", 6500
    ),
    "one tag": lambda: _numbered("tag, ", _ONE + "Be kind.\n    applies_to: [", 30_000) + "x]\n",
    "different tags": lambda: _numbered("tag{}, ", _ONE + "Be kind.\n    applies_to: [", 30_000) + "x]\n",
    "improper tags": lambda: _numbered("Tag {}, ", _ONE + "Be kind.\n    applies_to: [", 30_000) + "x]\n",
    "a million tags": lambda: _filled("t, ", _ONE + "Be kind.\n    applies_to: [", "x]\n"),
    "a million tags a line each": lambda: _filled("      - t\n", _ONE + "Be kind.\n    applies_to:\n"),
    "a tag of megabytes": lambda: _filled("a", _ONE + "Be kind.\n    applies_to: [", "]\n"),
    "an id of megabytes": lambda: _filled("a-", "principles:\n  - id: ", "a\n    principle: Be kind.\n"),
    "an id of megabytes twice": lambda: "principles:\n" + 2 * _long_id("a" * (SIZE // 2 - 100)),
    "long ids": lambda: _numbered("- {id: " + "a" * 3900 + "{}, principle: b {} c}\n", "principles:\n"),
    "ids that are nearly each other": lambda: _numbered(
        "- {id: " + "a-" * 36 + "{}, principle: b {} c}\n", "principles:\n", 13_000
    ),
    "ids in several lines": lambda: _numbered("- {id: 'a\n\n b {}', principle: b {} c}\n", "principles:\n", 9_000),
    "one id without a text": lambda: _numbered("- {id: a}\n", "principles:\n", 19_000),
    "unknown keys of megabytes": lambda: "".join(f"{'k' * 390_000}{number}: 1\n" for number in range(9)),
    "unknown keys like known ones": lambda: _numbered("principle{}s: 1\n", "", 39_000),
    "unknown keys of one principle": lambda: _numbered("    principel{}: x\n", _ONE + "Be kind.\n", 39_000),
    "unknown keys of many principles": lambda: _numbered(
        "- {id: a{}, principle: b {} c, rivision: x, few-shot: y}\n", "principles:\n", 7_900
    ),
    "unknown keys with long values": lambda: _numbered("k{}: " + "v " * 1000 + "\n", "", 1900),
    "many parameters": lambda: _ONE + "Be kind.\n    parameters: {" + _numbered("p{}: 1, ", "", 19_000) + "}\n",
    "many used parameters": lambda: (
        _ONE + "'{{ p1 }} {p1} {{ p2 | upper }}'\n    parameters: {" + _numbered("p{}: 1, ", "", 19_000) + "}\n"
    ),
    "parameters of megabytes": lambda: _filled("v ", _ONE + "'{{ p }}'\n    parameters: {p: '", "'}\n"),
    "long parameters": lambda: _ONE + "'{{ p1 ~ p2 }}'\n    parameters:\n" + _numbered("      p{}: " + "v" * 3900 + "\n"),
    "parameters of many principles": lambda: _numbered(
        "- {id: a{}, principle: 'b {{ p }} {q} {} c', parameters: {p: 1, q: 2, r: 3}}\n", "principles:\n", 5_000
    ),
    "a huge parameter in many texts": lambda: (
        f"x: &p {'v ' * 1990}\n"
        + _numbered("- {id: a{}, principle: '{{ p }} {} {{ p }}{{ p }}{{ p }}', parameters: {p: *p}}\n", "principles:\n", 6_500)
    ),
    "large templates": lambda: _numbered(
        "- {id: a{}, principle: '" + "{{ w|upper }} " * 99 + "{}', parameters: {w: x}}\n", "principles:\n"
    ),
    "large broken templates": lambda: _numbered(
        "- {id: a{}, principle: '" + "{{ w }} " * 450 + "{{ z }}{}'}\n", "principles:\n"
    ),
    "templates of many faults": lambda: _numbered("- {id: a{}, principle: '" + "{{ a.b }} " * 390 + "{}'}\n", "principles:\n"),
    "templates of many broken tags": lambda: _numbered(
        "- {id: a{}, principle: '" + "{{ ( }} " * 480 + "{}'}\n", "principles:\n"
    ),
    "templates of many open tags": lambda: _numbered("- {id: a{}, principle: '" + "{{ ( " * 780 + "{}'}\n", "principles:\n"),
    "templates with a fault at the end": lambda: _numbered(
        '- {id: a{}, principle: "' + "\\x41" * 900 + '{{ z{} }}"}\n', "principles:\n"
    ),
    "costly filters": lambda: (
        f"x: &p {'v ' * 1990}\n"
        + _numbered("- {id: a{}, principle: '{{ p" + "|title" * 30 + " }}{}', parameters: {p: *p}}\n", "principles:\n", 6_500)
    ),
    "templates that write much": lambda: (
        f"x: &p {'v ' * 1990}\n"
        + _numbered("- {id: a{}, principle: '{{ p" + " ~ p" * 13 + " }}{}', parameters: {p: *p}}\n", "principles:\n", 6_500)
    ),
    "templates that fail": lambda: _numbered(
        "- {id: a{}, principle: '" + "{{ w - 1 }}" * 90 + "{}', parameters: {w: x}}\n", "principles:\n"
    ),
    "questions of many words": lambda: _questions("whether "),
    "questions of many ands": lambda: _questions("is and the a "),
    "questions of many faults": lambda: _questions("this bad "),
    "questions of many subjects": lambda: _questions("the reply is a-reply's "),
    "questions of many commas": lambda: _questions("a, b; ", "preference_question"),
    "deep tests": lambda: _filled("[", _ONE + "Be kind.\n    tests: "),
    "deep parameters": lambda: _ONE + "Be kind.\n    parameters: " + "{a: " * 90 + "1" + "}" * 90 + "\n",
    "deep sections of many principles": lambda: _numbered(
        "- {id: a{}, principle: b {} c, x: " + "[" * 90 + "]" * 90 + "}\n", "principles:\n", 400
    ),
    "demonstrations": lambda: (
        _numbered("{prompt: a {}, draft: b, critique: c}, ", _ONE + "Be kind.\n    demonstrations: [", 9_000) + "]\n"
    ),
    "broken demonstrations": lambda: (
        _numbered("{prompt: a {}, draft: [b]}, ", _ONE + "Be kind.\n    demonstrations: [", 9_000) + "]\n"
    ),
    "tests and demonstrations of one topic": lambda: (
        _ONE
        + "Be kind.\n    demonstrations: ["
        + _numbered("{prompt: topic of the zebra {}, draft: b, critique: c}, ", "", 3_900)
        + "]\n    tests: ["
        + _numbered("{prompt: other walrus {}, better: b, worse: c}, ", "", 3_900)
        + "]\n"
    ),
    "sources": lambda: _ONE + "Be kind.\n    source: {" + _numbered("s{}: x, ", "", 19_000) + "}\n",
    "questions of tests": lambda: _filled("{prompt: a, better: b, worse: c}, ", _ONE + "Be kind.\n    tests: [", "]"),
    "nulls": lambda: b"\0" * SIZE,
    "no text": lambda: b"\xff\xfe" * (SIZE // 2),
    "many documents": lambda: _filled("---\n"),
    "directives": lambda: _filled("%YAML 1.1\n"),
    "tags of YAML": lambda: _filled("!a ", _ONE),
    "line separators": lambda: _filled("\u2028", _ONE + "x"),
    "markdown: bullets": lambda: "- \n" * 190_000,
    "markdown: one bullet of many lines": lambda: "- a\n" + "a\n" * 190_000,
    "markdown: bullets in bullets": lambda: _filled("    - a\n", "- a\n"),
    "markdown: equal bullets": lambda: "- a\n" * 190_000,
    "markdown: bullets of one kind": lambda: _numbered("- Be kind, as you are told by number {}.\n"),
    "markdown: a rule": lambda: _filled("- ", "", "x"),
    "markdown: stars and spaces": lambda: _filled("*   ", "", "x"),
    "markdown: open comments": lambda: _filled("<!-- ", "- a "),
    "markdown: comments": lambda: _filled("<!-- cai: allow C206 -->\n", "- a\n"),
    "markdown: ticks": lambda: _filled("`a` <!-- a --> ", "- <!-- a --> "),
    "markdown: fences": lambda: _filled("```\n", "- <!-- a -->\n"),
    "markdown: templates": lambda: _numbered("- {{ a{} }}\n"),
    "markdown: headings": lambda: _filled("# a\n"),
    "markdown: prose": lambda: _filled("a\n\n", "- a\n\n"),
}


def write(name: str, folder: Path) -> Path:
    """The hostile file of that name, written to the folder."""
    content = HOSTILE[name]()
    path = folder / f"{sorted(HOSTILE).index(name):02}.{'md' if name.startswith('markdown') else 'yaml'}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _check(path: Path) -> str:
    from constitution.linting import lint

    findings = lint([path]).findings
    assert all(finding.line >= 1 and finding.column >= 1 for finding in findings)
    return ",".join(sorted({finding.rule for finding in findings}))


def measure(name: str, path: Path) -> None:
    """Check one file in a child process, so that its memory is its own."""
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        code = 1
        try:
            rules = _check(path)
            seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before
            os.write(written, json.dumps({"rules": rules, "seconds": seconds}).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(written)
    said = os.read(read, 1 << 16)
    os.close(read)
    _, status, usage = os.wait4(child, 0)
    result = json.loads(said) if said else {"rules": "", "seconds": usage.ru_utime}
    print(json.dumps({"name": name, "status": status, "mebibytes": usage.ru_maxrss / 1024, **result}), flush=True)


if __name__ == "__main__":
    import rapidfuzz.process  # noqa: F401 - imports are no part of the time

    for each in sys.argv[2:] or HOSTILE:
        measure(each, write(each, Path(sys.argv[1])))
