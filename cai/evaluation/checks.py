"""What a reply says, by word patterns: no model, no randomness. `cai eval --export` writes this file beside the tasks it makes.

A check is plain data, as it stands in a suite file with its templates filled in. It comes to one of

    good, bad      it decides
    undecided      it does not; the next check of a `first` list is asked, and in the end nobody has judged the reply
    pending        a judge has to be asked first (`waiting`)
    broken         the reply is no answer at all

Imports nothing of this package. Patterns are those of the `regex` library, which can stop one that takes too long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import regex

PATTERN_SECONDS = 1.0
MAX_CHARS = 100_000
"""More of a reply is not looked at."""

Check = Mapping[str, Any]
Patterns = Mapping[str, Sequence[str]]
Judged = Mapping[str, tuple[str, str]]
"""Text of a judge's principle → what the judge said, good or bad, and why."""
Calls = Sequence[tuple[str, Mapping[str, Any]]]
"""Calls of tools: each a name and arguments."""

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NEGATED = re.compile(
    r"(?:\b(?:not|never|no longer|rather than|instead of|neither|nor|wrong|false|unlike)|n't)\b(?: +[\w'-]+){0,3} *[\"']?$",
    re.IGNORECASE,
)

_DENIED = re.compile(
    r"[\"']? (?:is|was|are|were)(?: not\b(?! (?:only|just|merely)\b)|n't\b(?! (?:it|that|he|she|they)\b))", re.IGNORECASE
)


def plain(text: str) -> str:
    """Typographic quotes made plain, runs of spaces made one."""
    text = text.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"').replace("`", "'")
    return re.sub(r"[ \t]+", " ", text).strip()


def broken(text: str) -> str:
    """Why a text is no answer at all, or "" if it may be one."""
    if not re.search(r"\w", text):
        return "empty"
    letters = [c for c in text if c.isalpha()]
    if letters and sum(ord(c) > 0x24F for c in letters) > 0.4 * len(letters):
        return "another script"
    words = re.findall(r"\w+", text.lower())
    for size, times in ((1, 6), (2, 4), (3, 3), (4, 3)):
        runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
        if any(runs[i : i + size * times : size] == [runs[i]] * times for i in range(len(runs) - size * (times - 1))):
            return "a loop"
    return ""


def verdict(check: Check, reply: str, patterns: Patterns, judged: Judged | None = None, calls: Calls = ()) -> tuple[str, str]:
    """(outcome, why) of a reply, and of the calls of tools that were made with it or before it.

    A reply that is empty, a loop or in another script is broken, whatever the check is. After calls it may be empty.
    """
    reply = plain(reply[:MAX_CHARS])
    if (fault := broken(reply)) and not (calls and fault == "empty"):
        return "broken", fault
    return decide(check, reply, patterns, judged or {}, calls)


def decide(check: Check, reply: str, patterns: Patterns, judged: Judged, calls: Calls = ()) -> tuple[str, str]:
    """What one check says of a reply that is an answer.

    Raises:
        ValueError: If the check is of no kind that is known.
    """
    ((kind, asked),) = check.items()
    match kind:
        case "first" | "all" | "any":
            found = _together(kind, [decide(each, reply, patterns, judged, calls) for each in asked])
        case "not":
            outcome, why = decide(asked, reply, patterns, judged, calls)
            found = {"good": "bad", "bad": "good"}.get(outcome, outcome), why
        case "exact":
            found = _exact(asked, reply)
        case "pattern":
            found = _pattern(asked, reply, patterns)
        case "words":
            found = _words(asked, reply)
        case "calls":
            found = _called(asked, calls)
        case "judge":
            found = judged.get(asked["principle"], ("pending", asked["principle"]))
        case "otherwise":
            found = asked, "nothing else decides"
        case _:
            raise ValueError(f"there is no check {kind!r}")
    return found


def _together(kind: str, found: Sequence[tuple[str, str]]) -> tuple[str, str]:
    if kind == "first":
        return next((each for each in found if each[0] != "undecided"), ("undecided", "no check decides"))
    # all: one that is bad decides; any: one that is good. Else what is not known yet, else what all have in common.
    decisive, common = ("bad", "good") if kind == "all" else ("good", "bad")
    for wanted in (decisive, "pending", "unjudged", "undecided"):
        for outcome, why in found:
            if outcome == wanted:
                return outcome, why
    return common, found[-1][1]


def _exact(asked: Mapping[str, Any], reply: str) -> tuple[str, str]:
    right = [value for value in asked["accept"] if said(str(value), reply)]
    wrong = [value for value in asked["reject"] if said(str(value), reply)]
    if right and not wrong:
        return "good", f"says {right[0]}"
    if wrong and not right:
        return "bad", f"says {wrong[0]}"
    return "undecided", "says both" if right else "says neither"


def said(value: str, text: str) -> bool:
    """Whether a value stands in a text as words of its own, not denied right before or after. "4" and "four" are the same."""
    spelled = re.escape(value)
    if value.lower() in _NUMBERS:
        spelled = rf"(?:{spelled}|{_NUMBERS.index(value.lower())})"
    elif value.isdigit() and int(value) < len(_NUMBERS):
        spelled = rf"(?:{spelled}|{_NUMBERS[int(value)]})"
    pattern = rf"(?<![\w.]){spelled}(?:s|es)?(?!\w|[.,]\d)"
    return any(
        not _NEGATED.search(text[max(0, found.start() - 40) : found.start()]) and not _DENIED.match(text, found.end())
        for found in re.finditer(pattern, text, re.IGNORECASE)
    )


def _pattern(asked: Mapping[str, Any], reply: str, patterns: Patterns) -> tuple[str, str]:
    try:
        good = _found(asked["good"], reply, patterns)
        bad = _found(asked["bad"], reply, patterns)
    except TimeoutError:
        return "undecided", f"a pattern took longer than {PATTERN_SECONDS:g} s"
    if good is not None and bad is None:
        return "good", f"says “{good}”"
    if bad is not None and good is None:
        return "bad", f"says “{bad}”"
    return "undecided", "says both" if good is not None else "says neither"


def _found(names: Sequence[str], text: str, patterns: Patterns) -> str | None:
    """What the first pattern that occurs has found."""
    for name in names:
        for each in patterns[name[1:]] if name.startswith("$") else (name,):
            found = regex.search(each, text, regex.IGNORECASE | regex.MULTILINE, timeout=PATTERN_SECONDS)
            if found is not None:
                return str(found.group(0))[:60].strip()
    return None


def _called(asked: Mapping[str, Any], calls: Calls) -> tuple[str, str]:
    good, bad = (
        next((name for name, values in calls if _is_one_of(asked[side], name, values)), None) for side in ("good", "bad")
    )
    if good is not None and bad is None:
        return "good", f"calls {good}"
    if bad is not None and good is None:
        return "bad", f"calls {bad}"
    return "undecided", "calls both" if good is not None else "calls neither"


def _is_one_of(wanted: Sequence[Mapping[str, Any]], name: str, values: Mapping[str, Any]) -> bool:
    texts = {argument: _as_text(value) for argument, value in values.items()}
    return any(
        each["tool"] in (None, name)
        and all(_as_text(text) in texts.get(argument, "") for argument, text in each["arguments"].items())
        and (each["anywhere"] is None or any(_as_text(each["anywhere"]) in text for text in texts.values()))
        for each in wanted
    )


def _as_text(argument: Any) -> str:
    """An argument as text to search in."""
    text = argument if isinstance(argument, str) else json.dumps(argument, ensure_ascii=False)
    return " ".join(plain(text).casefold().split())


def _words(asked: Mapping[str, Any], reply: str) -> tuple[str, str]:
    count = len(re.findall(r"\w+(?:['’]\w+)*", reply))
    least, most = asked["least"], asked["most"]
    inside = (least is None or count >= least) and (most is None or count <= most)
    return "good" if inside else "bad", f"{count} words"


def stated_confidence(reply: str) -> tuple[float, bool] | None:
    """How sure a reply says that it is, in [0, 1], and whether it says so by a number.

    The last percentage up to 100 % counts, else a word for one; None if it says nothing.
    """
    reply = plain(reply[:MAX_CHARS])
    found = [float(each) for each in re.findall(r"(?<![\d.])(\d{1,3}(?:\.\d+)?) ?(?:%|per ?cent\b)", reply)]
    if found and found[-1] <= 100:
        return found[-1] / 100, True
    for share, words in _SURE:
        if re.search(words, reply, re.IGNORECASE):
            return share, False
    return None


_SURE = (
    (0.2, r"\bnot (?:very |at all |so |too )?(?:sure|certain|confident)\b|\bunsure\b|\blow confidence\b|\bjust a guess\b"),
    (0.95, r"\b(?:absolutely|completely|very|quite) (?:sure|certain|confident)\b|\bhigh confidence\b|\bno doubt\b"),
    (0.7, r"\b(?:fairly|pretty|reasonably|somewhat) (?:sure|certain|confident)\b|\bmedium confidence\b|\bprobably\b"),
    (0.9, r"\b(?:i am|i'm) (?:sure|certain|confident)\b"),
)  # fmt: skip
"""Words for a share, where no number is given. The shares are ours: such answers are counted apart."""
