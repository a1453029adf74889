"""What is wrong or unwise about the `tests` of a principle."""

from __future__ import annotations

import re
from collections.abc import Iterable

from constitution.linting.findings import Finding
from constitution.linting.placed import PlacedPrinciple
from constitution.linting.rules import Example, Rule
from constitution.schema import Principle, PrincipleTest

LONGER = 1.5
"""A reply leans to a length when it has this many times the words of the other."""
PADDED = 2.0
SHARED = 0.8
"""A reply is the other, padded, when it has `PADDED` times its words, and `SHARED` of them are the same."""

SAME_REPLIES = Rule(
    "C132",
    "a test whose two replies are the same",
    "No judge can prefer one of two equal replies, so the test can only fail.",
    Example(
        "principle: Be kind.\ntests:\n  - prompt: Where is the key?\n    better: On the hook.\n    worse: On the hook.",
        "principle: Be kind.\ntests:\n  - prompt: Where is the key?\n    better: On the hook.\n    worse: Look for it, fool.",
    ),
)
UNTESTED = Rule(
    "C208",
    "a principle without tests",
    "A rule that is plain to you may not be plain to the labelling model; a test shows it. Markdown files cannot hold tests, "
    "so their principles are left alone.",
    Example(
        "- id: kind\n  principle: Be kind.",
        "- id: kind\n  principle: Be kind.\n  tests:\n    - prompt: Where is the key?\n"
        "      better: On the hook beside the door.\n      worse: I won't tell you that.",
    ),
)
LENGTH_ONLY = Rule(
    "C209",
    "a test whose replies differ mostly in length",
    "When one reply is the other with more words, a judge that counts words passes the test. Principles that are about length "
    "are left alone.",
    Example(
        "principle: Be kind.\ntests:\n  - prompt: Where is the key?\n    better: On the hook beside the door.\n"
        "    worse: On the hook beside the door, as was said once or twice before by the others.",
        "principle: Be kind.\ntests:\n  - prompt: Where is the key?\n    better: On the hook beside the door.\n"
        "    worse: Have you no eyes of your own?",
    ),
)
ONE_LENGTH = Rule(
    "C210",
    "in every test the better reply is the longer one, or in every test the shorter",
    "A judge that only looks at the length passes them all. Let one test go the other way. Principles that are about length "
    "are left alone.",
    Example(
        "principle: Be kind.\ntests:\n  - prompt: Where is the key?\n    better: It hangs on the hook near the door, as ever.\n"
        "    worse: Find it yourself.\n  - prompt: May I come in?\n    better: Yes, gladly, do come in and take a seat.\n"
        "    worse: Go away.",
        "principle: Be kind.\ntests:\n  - prompt: Where is the key?\n    better: It hangs on the hook near the door, as ever.\n"
        "    worse: Find it yourself.\n  - prompt: May I come in?\n    better: Yes, gladly.\n"
        "    worse: People like you had better stay outside, today and tomorrow.",
    ),
)

RULES = (SAME_REPLIES, UNTESTED, LENGTH_ONLY, ONE_LENGTH)

_ABOUT_LENGTH = re.compile(
    r"\b(?:short\w*|brief\w*|brevity|concise\w*|long|longer|length\w*|words?|sentences?|paragraphs?|padding|pad|terse|verbose"
    r"|repetition|at most|at least)\b",
    re.IGNORECASE,
)


def check_tests(placed: PlacedPrinciple) -> Iterable[Finding]:
    """All that `RULES` say about one principle."""
    principle = placed.principle
    if not principle.tests:
        if not placed.file.is_markdown and placed.whole("tests"):
            hint = "add a prompt with a `better` and a `worse` reply"
            yield UNTESTED.of(placed, placed.position(), f"`{principle.id}` has no tests", hint)
        return
    for index, test in enumerate(principle.tests):
        if test.better == test.worse:
            hint = "write what a reply that breaks the principle would say"
            position = placed.position("tests", index, "worse")
            yield SAME_REPLIES.of(placed, position, "`better` and `worse` are the same", hint)
    if placed.whole("principle") and not _ABOUT_LENGTH.search(principle.principle):
        yield from _by_length(placed, principle)


def _by_length(placed: PlacedPrinciple, principle: Principle) -> Iterable[Finding]:
    for index, test in enumerate(principle.tests):
        if _differs_in_length_only(test):
            hint = "let `worse` break the principle in what it says"
            position = placed.position("tests", index, "worse")
            yield LENGTH_ONLY.of(placed, position, "`better` and `worse` differ mostly in length", hint)
    leanings = {_leaning(test) for test in principle.tests}
    if placed.whole("tests") and len(principle.tests) > 1 and len(leanings) == 1 and leanings != {0}:
        word = "longer" if leanings == {1} else "shorter"
        hint = f"add a test in which the better reply is the {'shorter' if word == 'longer' else 'longer'} one"
        yield ONE_LENGTH.of(placed, placed.position("tests"), f"in every test the better reply is by far the {word} one", hint)


def _plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold()) or text.split()


def _differs_in_length_only(test: PrincipleTest) -> bool:
    short, long = sorted((_plain(test.better), _plain(test.worse)), key=len)
    if len(short) < 3 or len(long) < PADDED * len(short):
        return False
    held = set(long)
    return sum(word in held for word in short) >= SHARED * len(short)


def _leaning(test: PrincipleTest) -> int:
    """1 where the better reply is much the longer one, −1 where it is much the shorter, else 0."""
    better, worse = len(_plain(test.better)), len(_plain(test.worse))
    return int(better >= LONGER * worse) - int(worse >= LONGER * better)
