"""Principles that say nearly the same as another one, or nearly the opposite. By rapidfuzz, which compares in C++."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from constitution.linting.findings import Finding
from constitution.linting.placed import PlacedPrinciple
from constitution.linting.rules import Example, Rule

ALIKE = 88.0
"""Percent of characters that two texts share once their words are sorted (rapidfuzz's normalised indel similarity)."""
ALL_PAIRS = 3000
"""Up to so many principles, each is compared with each; beyond, with its neighbours in two orders of sorting."""
NEIGHBOURS = 20

_KEY = "tests:\n    - {prompt: Hi, better: Hello., worse: Go.}"
SAME = Rule(
    "C201",
    "two principles that say nearly the same",
    "They are drawn twice as often as one, and each draw costs a critique that finds nothing new.",
    Example(
        "- id: kind\n  principle: Be kind and polite to the user.\n  " + _KEY + "\n"
        "- id: polite\n  principle: Be polite and kind to the user.\n  " + _KEY,
        "- id: kind\n  principle: Be kind and polite to the user.\n  " + _KEY,
    ),
)
OPPOSITE = Rule(
    "C202",
    "two principles that say nearly the opposite",
    "The later one undoes the revisions of the earlier one.",
    Example(
        "- id: sources\n  principle: Name the sources of facts and figures.\n  " + _KEY + "\n"
        "- id: no-sources\n  principle: Do not name the sources of facts and figures.\n  " + _KEY,
        "- id: sources\n  principle: Name the sources of facts and figures.\n  " + _KEY,
    ),
)

RULES = (SAME, OPPOSITE)

_NOT = frozenset("not no never nothing nobody none neither nor avoid without don dont isn isnt cannot refuse".split())  # noqa: SIM905
_EMPTY = frozenset("do does be t".split())  # noqa: SIM905 - helpers of a denial: "do not name" is "name", denied


def check_overlap(principles: Sequence[PlacedPrinciple]) -> Iterable[Finding]:
    """Each principle that is nearly an earlier one (in the order of the files), told once, at the later one."""
    principles = [placed for placed in principles if placed.whole("principle")]
    if len(principles) < 2:
        return
    bags = [_Bag(placed) for placed in principles]
    for later, earlier, score in _near_pairs([bag.sorted for bag in bags]):
        placed, other = principles[later], principles[earlier]
        line, _ = other.position()
        opposite = bags[later].denied != bags[earlier].denied
        rule = OPPOSITE if opposite else SAME
        word = "the opposite of" if opposite else "the same as"
        problem = f"says nearly {word} `{other.principle.id}` ({other.file.path}:{line}, {score:.0f} % alike)"
        hint = "delete one, or say which holds when" if opposite else "merge them, or say what differs"
        yield rule.of(placed, placed.position("principle"), problem, hint)


class _Bag:
    """The words of a principle in order of the alphabet, denials taken out; and whether it has an odd number of these."""

    def __init__(self, placed: PlacedPrinciple) -> None:
        text = unicodedata.normalize("NFKC", placed.principle.principle).casefold()
        words = re.findall(r"\w+", text) or [text]
        self.sorted = " ".join(sorted(word for word in words if word not in _NOT and word not in _EMPTY))
        self.denied = sum(word in _NOT for word in words) % 2


def _near_pairs(texts: Sequence[str]) -> Iterable[tuple[int, int, float]]:
    """(later, earlier, percent alike): for each text the most alike of the earlier ones, if it is alike enough."""
    from rapidfuzz import process
    from rapidfuzz.fuzz import ratio

    first: dict[str, int] = {}
    alone: list[int] = []
    for index, text in enumerate(texts):
        if text in first:
            yield index, first[text], 100.0
        else:
            first[text] = index
            alone.append(index)
    if len(alone) <= ALL_PAIRS:
        for count in range(1, len(alone)):
            earlier = [texts[index] for index in alone[:count]]
            near = process.extractOne(texts[alone[count]], earlier, scorer=ratio, score_cutoff=ALIKE)
            if near is not None:
                yield alone[count], alone[near[2]], float(near[1])
        return
    best: dict[int, tuple[float, int]] = {}
    for order in (sorted(alone, key=lambda i: texts[i]), sorted(alone, key=lambda i: texts[i][::-1])):
        ordered = [texts[index] for index in order]
        for position, index in enumerate(order):
            start = max(0, position - NEIGHBOURS)
            near = process.extractOne(texts[index], ordered[start:position], scorer=ratio, score_cutoff=ALIKE)
            if near is not None:
                later, earlier_one = sorted((index, order[start + near[2]]), reverse=True)
                best[later] = max(best.get(later, (0.0, 0)), (float(near[1]), earlier_one))
    for later, (score, earlier_one) in best.items():
        yield later, earlier_one, score
