"""Rows whose prompt and reply are nearly those of an earlier row.

Likeness is Jaccard's, of the sets of word 3-grams, for the prompt and for the reply each. Candidates come from MinHash bands
(Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4): 10 bands of 5, which find a pair of likeness
0.85 with 99.7 %, of 0.8 with 98 %; candidates are then compared (see `likeness`). Hash functions are fixed, so equal rows in
equal order give equal findings. What is remembered lies in a temporary SQLite file, as the rows of a corpus do.
"""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.sentences import normal
from cai.data.filters.settings import FilterRules
from cai.errors import DataError

SHINGLE_WORDS = 3
BANDS, BAND_ROWS = 10, 5
MOST_SHINGLES = 4096
"""Of one text; the smallest hashes of a longer one stand for it, as in a bottom-k sketch (Cohen and Kaplan 2007)."""
MOST_CANDIDATES = 50
CACHE_KIB = 8192

NEAR_DUPLICATE = Rule("near_duplicate", "Prompt and reply are nearly those of an earlier row.", "whole", ("max_jaccard",))

Hashes = npt.NDArray[np.uint32]

_SCHEMA = f"""
PRAGMA cache_size = -{CACHE_KIB}; PRAGMA journal_mode = OFF;
CREATE TABLE rows (place INTEGER PRIMARY KEY, uid BLOB NOT NULL, prompt BLOB NOT NULL, reply BLOB NOT NULL);
CREATE TABLE bands (band INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (band, place)) WITHOUT ROWID;
BEGIN;
"""
_LIKELY = """
SELECT uid, prompt, reply FROM rows
WHERE place IN (SELECT place FROM bands WHERE band IN (SELECT value FROM json_each(?))) AND uid != ?
ORDER BY place LIMIT ?
"""
"""Earlier rows of other items that share a band."""


@dataclass(frozen=True, slots=True)
class _Sketch:
    uid: bytes
    prompt: Hashes
    answer: Hashes
    bands: list[int]


class SeenRows:
    """The rows so far, by their MinHash bands."""

    def __init__(self) -> None:
        # The empty name is SQLite's for a file of its own making that nobody else sees.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._close = weakref.finalize(self, self._connection.close)
        with _explained():
            self._connection.executescript(_SCHEMA)
        draw = np.random.Generator(np.random.PCG64(20231))
        self._factors = draw.integers(0, 2**63, size=(BANDS * BAND_ROWS, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._shifts = draw.integers(0, 2**63, size=(BANDS * BAND_ROWS, 1), dtype=np.uint64)

    def find(self, reply: Reply, rules: FilterRules) -> Finding | None:
        """The first earlier row of another item that is as like as `max_jaccard`; without one, the row is remembered."""
        sketch = self._sketch(reply)
        found = self._like(sketch, rules)
        if found is None:
            self._remember(sketch)
        return found

    def like(self, reply: Reply, rules: FilterRules) -> Finding | None:
        """As `find`; the row is not remembered."""
        return self._like(self._sketch(reply), rules)

    def remember(self, reply: Reply) -> None:
        """For those that come later."""
        self._remember(self._sketch(reply))

    def _sketch(self, reply: Reply) -> _Sketch:
        prompt, answer = _shingles("\n".join(message.content for message in reply.prompt)), _shingles(reply.text)
        return _Sketch(reply.uid.encode("utf-8", "surrogatepass"), prompt, answer, self._bands(prompt, answer))

    def _like(self, row: _Sketch, rules: FilterRules) -> Finding | None:
        with _explained():
            candidates = self._connection.execute(_LIKELY, (json.dumps(row.bands), row.uid, MOST_CANDIDATES))
            for other, their_prompt, their_answer in candidates:
                likeness = min(_jaccard(row.prompt, _read(their_prompt)), _jaccard(row.answer, _read(their_answer)))
                if likeness >= rules.max_jaccard:
                    detail = f"like row {other.decode('utf-8', 'replace')}"
                    return Finding("near_duplicate", detail, score=likeness, limit=rules.max_jaccard)
        return None

    def _remember(self, row: _Sketch) -> None:
        with _explained():
            (place,) = self._connection.execute(
                "INSERT INTO rows (uid, prompt, reply) VALUES (?, ?, ?) RETURNING place",
                (row.uid, row.prompt.tobytes(), row.answer.tobytes()),
            ).fetchone()
            self._connection.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(band, place) for band in row.bands])

    def _bands(self, prompt: Hashes, answer: Hashes) -> list[int]:
        """A number for each band. Prompt and reply are hashed apart, so that one cannot stand for the other."""
        tagged = np.concatenate([prompt.astype(np.uint64) << np.uint64(1), (answer.astype(np.uint64) << np.uint64(1)) | 1])
        # Multiply-shift (Dietzfelbinger et al. 1997): odd factors, the upper 32 bits; overflow is meant.
        hashed = (self._factors * tagged[None, :] + self._shifts) >> np.uint64(32)
        least = hashed.min(axis=1).reshape(BANDS, BAND_ROWS)
        digests = (blake2b(bytes([n]) + row.tobytes(), digest_size=8).digest() for n, row in enumerate(least))
        return [int.from_bytes(digest, "big", signed=True) for digest in digests]


def likeness(one: str, other: str) -> float:
    """Jaccard's index, in [0, 1], of the sets of word 3-grams of two texts; 1 for two texts without a word.

    Of a text with `MOST_SHINGLES` or more, an estimate; its standard error is at most 0.008.
    """
    return _jaccard(_shingles(one), _shingles(other))


def _shingles(text: str) -> Hashes:
    """Sorted hashes of a text's word 3-grams; of fewer words, of the text as it is. Never empty."""
    said = normal(text).split(" ")
    grams = {" ".join(said[n : n + SHINGLE_WORDS]) for n in range(max(1, len(said) - SHINGLE_WORDS + 1))}
    hashes = {int.from_bytes(blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big") for gram in grams}
    return np.array(sorted(hashes)[:MOST_SHINGLES], dtype=np.uint32)


def _jaccard(one: Hashes, other: Hashes) -> float:
    """Exact for sets that are whole. Of a cut one the smallest hashes are known: then the smallest of both are compared."""
    both, counts = np.unique(np.concatenate([one, other]), return_counts=True)
    known = MOST_SHINGLES if MOST_SHINGLES in (len(one), len(other)) else len(both)
    return float((counts[:known] == 2).mean())


def _read(blob: Any) -> Hashes:
    return np.frombuffer(blob, dtype=np.uint32)


@contextmanager
def _explained() -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DataError(
            f"The rows seen cannot be kept in a temporary file ({error}).",
            "Free space in the folder for temporary files, or name another: SQLITE_TMPDIR=/path/to/folder.",
        ) from error
