"""Train/test leakage: passages of evaluation sets in what would be trained on.

A passage is 13 words in a row, in lower case and without punctuation, as GPT-3's overlap analysis took it (arXiv 2005.14165,
appendix C); of a shorter text of at least eight words it is the whole text (the least N of that analysis). Of an evaluation
set only 64-bit hashes of its passages are kept, eight bytes each. A file is taken as it comes: every text in a row counts,
whatever its column, but for system messages.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from cai.data.filters.findings import Finding, Place, Reply, Rule
from cai.data.filters.sentences import words
from cai.data.filters.settings import HELD_OUT_SET, LAB_SET
from cai.data.tables import container_of, raw_rows
from cai.data.text_files import BadRow
from cai.errors import CaiError, DataError
from cai.store.checksums import file_sha256

PASSAGE_WORDS = 13
SHORTEST_WORDS = 8
OWN_SETS = (HELD_OUT_SET, LAB_SET)

LEAKAGE = Rule("leakage", "A passage of an evaluation set stands in prompt or reply.", "whole", ("evaluation_sets",))


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """What is kept of an evaluation set: sorted hashes of its passages, and the lengths of those that are whole short texts."""

    name: str
    passages: array[int]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, name: str, texts: Iterable[str]) -> EvaluationSet:
        hashes: array[int] = array("Q")
        lengths: set[int] = set()
        for text in texts:
            said = _words(text)[0]
            size = min(len(said), PASSAGE_WORDS)
            if size >= SHORTEST_WORDS:
                lengths.add(size)
                hashes.extend(_hash(said[n : n + size]) for n in range(len(said) - size + 1))
        return cls(name, array("Q", sorted(set(hashes))), tuple(sorted(lengths, reverse=True)))

    def find(self, text: str) -> tuple[int, int] | None:
        """Where the first passage lies in a text."""
        if not self.passages:
            return None
        said, places = _words(text)
        for size in self.lengths:
            for n in range(len(said) - size + 1):
                value = _hash(said[n : n + size])
                at = bisect_left(self.passages, value)
                if at < len(self.passages) and self.passages[at] == value:
                    return places[n][0], places[n + size - 1][1]
        return None


def find_leakage(reply: Reply, sets: Sequence[EvaluationSet]) -> Finding | None:
    """The first passage of any set in the reply or in the last user turn."""
    texts: tuple[tuple[Place, str], ...] = (("reply", reply.text), ("prompt", reply.question))
    for place, text in texts:
        for each in sets:
            if (span := each.find(text)) is not None:
                return Finding("leakage", f"a passage of {each.name}", span, place)
    return None


def evaluation_set_problems(names: Sequence[str]) -> list[CaiError]:
    """What is wrong with the evaluation sets: a file not there, of no known format, unreadable, or with nothing to find.

    Data sets of the hub are looked into when they are needed.
    """
    problems: list[CaiError] = []
    for name in names:
        if name not in OWN_SETS:
            try:
                if container_of(name) != "hub":
                    _refuse_unsearchable(name, sum(map(_is_searched, file_texts(name))) > 0)  # to the last row
            except DataError as error:
                problems.append(DataError(f"filters.evaluation_sets: {error.problem}", error.hint))
    return problems


def file_set(name: str) -> EvaluationSet:
    """What is kept of an evaluation file.

    Raises:
        DataError: As `file_texts`, or if nothing in it could be found again.
    """
    found = EvaluationSet.of(name, file_texts(name))
    _refuse_unsearchable(name, bool(found.passages))
    return found


def evaluation_set_fingerprints(names: Sequence[str]) -> list[str]:
    """What tells that an evaluation set is not the one it was: SHA-256 of a file, the name of anything else."""
    paths = [Path(name).expanduser() for name in names]
    return [file_sha256(path) if path.is_file() else name for name, path in zip(names, paths, strict=True)]


def file_texts(name: str) -> Iterator[str]:
    """Every text of an evaluation file.

    Raises:
        DataError: If the file cannot be read, or a row of it: what stands there could be trained on unseen.
    """
    for row in raw_rows(name, container_of(name)):
        if isinstance(row, BadRow):
            raise DataError(
                f"{row.place}: {row.detail}; what stands in this row of an evaluation set would not be found.",
                "Mend the row, or take it out.",
            )
        yield from _texts(row.values)


def _is_searched(text: str) -> bool:
    return len(words(text)) >= SHORTEST_WORDS


def _refuse_unsearchable(name: str, searched: bool) -> None:  # noqa: FBT001 - what was found out
    if not searched:
        raise DataError(
            f"{name}: no text of {SHORTEST_WORDS} words or more, so that nothing of this evaluation set could ever be found.",
            "Name the file that holds its questions and answers.",
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        if fields.get("role", fields.get("from")) != "system":
            for below in fields.values():
                yield from _texts(below)
    elif isinstance(value, list | tuple):
        for below in cast("Sequence[Any]", value):
            yield from _texts(below)


def _words(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    places = words(text)
    return [text[start:end].lower() for start, end in places], places


def _hash(said: Sequence[str]) -> int:
    digest = blake2b(" ".join(said).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
