"""Word diff of two texts. Pure; knows nothing of terminals or HTML.

Words are compared, not characters, and a kept word or two between larger changes count as changed: people read phrases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, TypeAlias

PieceKind: TypeAlias = Literal["kept", "removed", "added"]

MAX_COMPARED = 4_000_000
"""Tokens of one text × tokens of the other. Beyond it the middle counts as replaced as a whole: the matcher is quadratic."""

# Scripts written without spaces are compared sign by sign; "don't", "3.5" and "e.g" are one word; a run of other signs that are
# not ASCII is one token, so that an emoji of several code points is never torn apart.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = rf"(?:(?![{_UNSPACED}])\w)+"
_TOKEN = re.compile(rf"\s+|[{_UNSPACED}]|{_WORD}(?:['’.,]{_WORD})*|[^\w\s\x00-\x7f]+|.", re.DOTALL)


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
        return max(len(self.removed), len(self.added))


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """What became of `before` in `after`.

    Joined in order, the kept and removed pieces are `before`, the kept and added pieces are `after`, white space included. Of
    one change, what was removed comes first. No piece is empty.
    """
    steps = _joined(_compared(_TOKEN.findall(before), _TOKEN.findall(after)))
    pieces: list[Piece] = []
    for step in steps:
        pieces += [Piece("kept", step.kept), Piece("removed", step.removed), Piece("added", step.added)]
    return tuple(piece for piece in pieces if piece.text)


def kept_share(pieces: Sequence[Piece]) -> float:
    """How much of the longer text is in both, in [0, 1]; 1 for two empty texts."""
    lengths = {kind: sum(len(piece.text) for piece in pieces if piece.kind == kind) for kind in ("kept", "removed", "added")}
    longer = lengths["kept"] + max(lengths["removed"], lengths["added"])
    return lengths["kept"] / longer if longer else 1.0


def _compared(before: Sequence[str], after: Sequence[str]) -> list[_Step]:
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    steps = [_Step("".join(before[:start]), "", "")]
    if len(old) * len(new) > MAX_COMPARED:
        steps.append(_Step("", "".join(old), "".join(new)))
    else:
        matcher = SequenceMatcher(None, old, new, autojunk=False)
        for tag, i, k, j, m in matcher.get_opcodes():
            kept = "".join(old[i:k]) if tag == "equal" else ""
            steps.append(_Step(kept, "", "") if kept else _Step("", "".join(old[i:k]), "".join(new[j:m])))
    steps.append(_Step("".join(before[len(before) - end :]), "", ""))
    return steps


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many tokens both begin with."""
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
    words = re.findall(r"\w+", kept)
    return not words or (len(words) <= 2 and len(kept) <= size_before and len(kept) <= size_after)
