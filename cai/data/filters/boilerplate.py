"""Boilerplate, found by the data set itself: openings and sentences that its replies share far more than drafts and prompts do.

Two passes over the rows. The first counts, in how many replies and in how many texts before them each opening and each sentence
stands, in count-min sketches (Cormode and Muthukrishnan 2005): 8 MiB together, whatever the number of rows. A count may come
out too high by chance, by about 2e-5 of the rows; never too low.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.sentences import normal, sentences, words
from cai.data.filters.settings import FilterRules

DEPTH, WIDTH = 4, 2**18
OPENING_WORDS = 4
SENTENCE_WORDS = 4
MIN_REPLIES = 10
"""What fewer replies share is no habit yet, however few there are in all."""
MOST_UNITS = 400
"""Sentences of one reply that are looked at."""

BOILERPLATE = Rule(
    "boilerplate",
    "An opening or a sentence that the data set's replies share and its drafts and prompts do not.",
    "whole",
    ("boilerplate_share", "boilerplate_surplus"),
)


class CountMin:
    """How often texts were added, in fixed memory: `DEPTH` × `WIDTH` counters of four bytes; never too low."""

    def __init__(self) -> None:
        self._counters = array("I", bytes(4 * DEPTH * WIDTH))

    def add(self, unit: str) -> None:
        for place in _places(unit):
            self._counters[place] += 1

    def count(self, unit: str) -> int:
        return min(self._counters[place] for place in _places(unit))


class Habits:
    """What the replies of a data set have in common."""

    def __init__(self) -> None:
        self._replies, self._others = CountMin(), CountMin()
        self.rows = 0

    def learn(self, reply: Reply) -> None:
        """Count a row."""
        self.rows += 1
        for unit in {unit for unit, _ in _units(reply.text)}:
            self._replies.add(unit)
        for unit in {unit for text in (reply.beside or "", reply.question) for unit, _ in _units(text)}:
            self._others.add(unit)

    def find(self, reply: Reply, rules: FilterRules) -> Finding | None:
        """The opening or sentence of a reply that is most common among all, if that is boilerplate."""
        least = max(MIN_REPLIES, rules.boilerplate_share * self.rows)
        own = {unit for unit, _ in _units(reply.beside or "")}
        best: tuple[int, tuple[int, int]] | None = None
        for unit, span in _units(reply.text):
            count = self._replies.count(unit)
            if count < least or unit in own or count < rules.boilerplate_surplus * self._others.count(unit):
                continue
            if best is None or count > best[0]:
                best = count, span
        if best is None:
            return None
        said = f"in {best[0]} of {self.rows} replies"
        return Finding("boilerplate", said, best[1], score=best[0] / self.rows, limit=rules.boilerplate_share)


def learned(replies: Iterable[Reply]) -> Habits:
    """The habits of a data set."""
    habits = Habits()
    for reply in replies:
        habits.learn(reply)
    return habits


def _units(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The opening and the sentences of a text, each with its place; short ones say nothing."""
    first = words(text[:500])
    if len(first) > OPENING_WORDS:
        span = first[0][0], first[OPENING_WORDS - 1][1]
        yield f"opening {normal(text[slice(*span)])}", span
    for n, (start, end) in enumerate(sentences(text)):
        if n == MOST_UNITS:
            return
        unit = normal(text[start:end])
        if unit.count(" ") + 1 >= SENTENCE_WORDS:
            yield unit, (start, end)


def _places(unit: str) -> list[int]:
    digest = blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=4 * DEPTH).digest()
    return [row * WIDTH + int.from_bytes(digest[4 * row : 4 * row + 4], "big") % WIDTH for row in range(DEPTH)]
