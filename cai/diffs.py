"""Word diff of two texts. Pure; knows nothing of terminals or HTML.

Words are compared, not characters, and a kept word or two between larger changes count as changed: people read phrases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rapidfuzz.distance import LCSseq

PieceKind: TypeAlias = Literal["kept", "removed", "added"]

MAX_COMPARED = 4_000_000
"""Words and signs of one text × those of the other. Beyond it the middle counts as replaced: matching is quadratic."""

# Scripts written without spaces are compared sign by sign; "don't", "3.5" and "e.g" are one word; a run of other signs that are
# not ASCII is one token, so that an emoji of several code points is never torn apart.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = rf"(?:(?![{_UNSPACED}])\w)+"
_TOKEN = re.compile(rf"\s+|[{_UNSPACED}]|{_WORD}(?:['’.,]{_WORD})*|[^\w\s\x00-\x7f]+|.", re.DOTALL)


_WORDS = re.compile(r"\w+")
_Unit: TypeAlias = tuple[str, str]
"""A word or sign, and the white space after it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text that is in both texts, only in the first (`removed`) or only in the second (`added`)."""

    kind: PieceKind
    text: str


@dataclass(slots=True)
class _Step:
    """`kept` text, then a change that takes out `removed` and puts in `added`."""

    kept: str
    removed: str
    added: str

    @property
    def size(self) -> int:
        removed, added = len(self.removed), len(self.added)
        return removed if removed > added else added


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """What became of `before` in `after`.

    Joined in order, the kept and removed pieces are `before`, the kept and added pieces are `after`, white space included. Of
    one change, what was removed comes first. No piece is empty.
    """
    steps = _joined(_compared(_units(before), _units(after)))
    pieces: list[Piece] = []
    for step in steps:
        pieces += [Piece("kept", step.kept), Piece("removed", step.removed), Piece("added", step.added)]
    return tuple(piece for piece in pieces if piece.text)


def kept_share(pieces: Sequence[Piece]) -> float:
    """How much of the longer text is in both, in [0, 1]; 1 for two empty texts."""
    lengths = {kind: sum(len(piece.text) for piece in pieces if piece.kind == kind) for kind in ("kept", "removed", "added")}
    longer = lengths["kept"] + max(lengths["removed"], lengths["added"])
    return lengths["kept"] / longer if longer else 1.0


def _units(text: str) -> list[_Unit]:
    """Words and signs, each with the white space after it; white space at the beginning has a unit of its own."""
    units: list[_Unit] = []
    for token in _TOKEN.findall(text):
        if token.isspace():
            word = units.pop()[0] if units else ""
            units.append((word, token))
        else:
            units.append((token, ""))
    return units


def _joined_units(units: Sequence[_Unit]) -> str:
    return "".join([part for unit in units for part in unit])


def _compared(before: Sequence[_Unit], after: Sequence[_Unit]) -> list[_Step]:
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    steps = [_Step(_joined_units(before[:start]), "", "")]
    if len(old) * len(new) > MAX_COMPARED:
        steps.append(_Step("", _joined_units(old), _joined_units(new)))
    else:
        # Words alone: white space, which is nearly all alike, would draw them to wherever most of it can be kept.
        # Numbers for words: the matcher goes by hashes, which two words may share.
        numbers: dict[str, int] = {}
        codes = LCSseq.opcodes(*([numbers.setdefault(word, len(numbers)) for word, _ in side] for side in (old, new)))
        equal = [(code.src_start, code.src_end, code.dest_start) for code in codes if code.tag == "equal"]
        i = j = 0
        for k, end_of_equal, m in (*equal, (len(old), len(old), len(new))):
            steps += _changed(old[i:k], new[j:m])
            length = end_of_equal - k
            steps += _kept(old[k:end_of_equal], new[m : m + length])
            i, j = end_of_equal, m + length
    steps.append(_Step(_joined_units(before[len(before) - end :]), "", ""))
    return steps


def _changed(old: Sequence[_Unit], new: Sequence[_Unit]) -> Iterator[_Step]:
    """A change; white space that ends both sides is no part of it."""
    space = old[-1][1] if old and new and old[-1][1] == new[-1][1] else ""
    removed, added = _joined_units(old), _joined_units(new)
    if removed or added:
        yield _Step("", removed[: len(removed) - len(space)], added[: len(added) - len(space)])
    if space:
        yield _Step(space, "", "")


def _kept(old: Sequence[_Unit], new: Sequence[_Unit]) -> Iterator[_Step]:
    """The same words, whatever white space is between them."""
    for (word, space), (_, other) in zip(old, new, strict=True):
        if space == other:
            yield _Step(word + space, "", "")
        else:
            yield _Step(word, "", "")
            yield _Step("", space, other)


def _shared(one: Sequence[_Unit], other: Sequence[_Unit]) -> int:
    """How many units both begin with."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _joined(steps: Iterable[_Step]) -> list[_Step]:
    """Put neighbours together, and make a change of kept text that is no longer than the changes on both its sides."""
    found: list[_Step] = [_Step("", "", "")]
    for step in steps:
        last = found[-1]
        if not last.size:
            found[-1] = _Step(last.kept + step.kept, step.removed, step.added)
        elif step.kept:
            found.append(step)
        else:
            found[-1] = _Step(last.kept, last.removed + step.removed, last.added + step.added)
        while len(found) > 1 and found[-1].size and _is_noise(found[-1].kept, found[-2].size, found[-1].size):
            newest = found.pop()
            before = found[-1]
            found[-1] = _Step(
                before.kept, before.removed + newest.kept + newest.removed, before.added + newest.kept + newest.added
            )
    return found


def _is_noise(kept: str, size_before: int, size_after: int) -> bool:
    if kept.isspace():
        return True
    words = _WORDS.findall(kept)
    return not words or (len(words) <= 2 and len(kept) <= size_before and len(kept) <= size_after)
