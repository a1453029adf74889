"""Rows of a long list, packed: any number of them stand in the page, and the browser reads those that it shows.

A `Row` is what a reader sees of one transcript or answer, already in words. Rows are written as JSON, cut into chunks, and each
chunk is deflated and put into base64: nothing of it is markup, whatever the texts are. An index, packed likewise, holds names
and what can be filtered by. The page's script, `templates/page.js`, knows this form and no more.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from cai.diffs import kept_share, word_diff
from cai.shown_text import is_ordinary, visible

CHUNK_CHARACTERS = 160_000
"""Of JSON; a row is in one chunk, however long it is."""
QUIET_BELOW = 0.2
"""Where less than this is in both of two texts side by side, marks would only be paint."""

_ESCAPED = re.compile(r"\\[ubfr]")
"""What JSON writes for control characters other than tab and line feed."""

Part: TypeAlias = str | tuple[str, str]
"""Of a heading: text, or (class, text); the class `principle` makes a link to a principle."""
Body: TypeAlias = str | list[str]
"""A text, or a word diff: kept, removed, added, kept, removed, added …"""
Turn: TypeAlias = dict[str, Any]
_Profile: TypeAlias = tuple[tuple[str, ...], ...]
"""For each facet, a row's values."""
_DRAWS = 2**64


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Args:
        name: Unique in its list, the same for the same run: rows are linked to by it.
        line: Its beginning, on one line.
        tags: (tone, words) beside the line.
        turns: Made by `turn` and `sides`.
        end: The last line.
        facets: Name of a `Facet` → this row's values.
    """

    name: str
    line: str
    tags: tuple[tuple[str, str], ...]
    turns: tuple[Turn, ...]
    end: tuple[Part, ...]
    facets: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Facet:
    """Something to filter by. `words`: values → how they are called, in this order; others are called as they are."""

    name: str
    label: str
    words: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ShownFacet:
    """A facet with the values that occur: (value, words). `name` and `label` are the facet's."""

    name: str
    label: str
    choices: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """`shown` of `total` rows, in base64. Facets in which all rows are alike are left out."""

    total: int
    shown: int
    facets: tuple[ShownFacet, ...]
    index: str
    chunks: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return len(self.index) + sum(map(len, self.chunks))


def turn(kind: str, *heading: Part, body: Body = "", notes: Sequence[tuple[str, str]] = ()) -> Turn:
    """A part of a row: what is said by whom. `notes` are (class, text), below it."""
    made: Turn = {"k": kind, "h": heading, "x": body}
    return made | ({"n": notes} if notes else {})


def sides(*columns: tuple[str, str, tuple[Part, ...]]) -> Turn:
    """Texts side by side: (heading, text, judged) each. Of two that are alike enough, the differences are marked."""
    shown = [{"h": heading, "x": visible(text), "n": judged} for heading, text, judged in columns]
    if len(columns) == 2:
        pieces = word_diff(cast("str", shown[0]["x"]), cast("str", shown[1]["x"]))
        if kept_share(pieces) >= QUIET_BELOW:
            diff = flat([(piece.kind, piece.text) for piece in pieces])
            return {"k": "sides", "d": diff, "s": [{"h": each["h"], "n": each["n"]} for each in shown]}
    return {"k": "sides", "s": shown}


def diff(before: str, after: str) -> Body:
    """What became of a text, word by word; the plain text where nothing did."""
    before, after = visible(before), visible(after)
    return after if before == after else flat([(piece.kind, piece.text) for piece in word_diff(before, after)])


def flat(pieces: Iterable[tuple[str, str]]) -> list[str]:
    """Pieces of a word diff as kept, removed, added, kept …; "" where there is nothing of a kind."""
    kinds = ("kept", "removed", "added")
    made: list[str] = []
    for kind, text in pieces:
        made += [""] * ((kinds.index(kind) - len(made)) % 3)
        made.append(text)
    return made


def is_drawn(name: str, share: float) -> bool:
    """Whether a row is in a sample of this share of all: by the hash of its name alone, so that larger samples hold smaller."""
    return _drawn(name) < share * _DRAWS


def _drawn(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest(), "big")


def pack(
    rows: Callable[[Callable[[str], bool]], Iterable[Row]], total: int, facets: Sequence[Facet], *, budget_bytes: float
) -> Listing | None:
    """All rows, or a sample of them that takes no more than `budget_bytes` in the page; None where there are none.

    Args:
        rows: Gives the rows whose names are wanted, in order. What is wanted becomes less where they turn out not to fit.
        total: Rows there are.
        facets: To filter by.
        budget_bytes: Of base64.
    """
    if not total:
        return None
    sample = _Sample(total, _Packer(facets))
    for row in rows(sample.wants):
        sample.packer.add(row)
        while sample.packer.size_bytes > budget_bytes and sample.packer.shown:
            sample.shrink()
    while (listing := sample.packer.listing(total)).size_bytes > budget_bytes and listing.shown:
        sample.shrink()
    return listing


@dataclass(slots=True)
class _Sample:
    """A share of all rows, and those of it that came so far."""

    total: int
    packer: _Packer
    share: float = 1.0

    def wants(self, name: str) -> bool:
        return is_drawn(name, self.share)

    def shrink(self) -> None:
        """To a share that fits if about so many rows do."""
        self.share = min(0.95 * self.share, 0.95 * max(1, self.packer.shown - 1) / self.total)
        self.packer = self.packer.thinned(self.share)


class _Packer:
    """Takes rows one by one and keeps them packed."""

    def __init__(self, facets: Sequence[Facet]) -> None:
        self._facets = facets
        self._profiles: dict[_Profile, int] = {}
        self._rows: list[int] = []
        self._names: list[str] = []
        self._starts: list[int] = []
        self._chunks: list[str] = []
        self._drawn: list[int] = []
        self._lengths: list[int] = []
        self._open: list[str] = []
        self._open_characters = 0
        self._packed_bytes = 0

    @property
    def shown(self) -> int:
        return len(self._rows)

    @property
    def size_bytes(self) -> int:
        """Of the finished chunks, and about that of the index."""
        return self._packed_bytes + 12 * len(self._names)

    def add(self, row: Row) -> None:
        text = _json({"l": row.line, "t": row.tags, "b": row.turns, "e": row.end})
        if not is_ordinary(text) or _ESCAPED.search(text):
            text = _json(_visible({"l": row.line, "t": row.tags, "b": row.turns, "e": row.end}))
        profile = tuple(tuple(dict.fromkeys(map(visible, row.facets.get(facet.name, ())))) for facet in self._facets)
        self._put(text, profile, visible(row.name), _drawn(row.name))

    def thinned(self, share: float) -> _Packer:
        """The same of a smaller sample: as if only its rows had been added."""
        made = _Packer(self._facets)
        profiles = list(self._profiles)
        for n, text in enumerate(self._texts()):
            if self._drawn[n] < share * _DRAWS:
                made._put(text, profiles[self._rows[n]], self._names[n], self._drawn[n])
        return made

    def _put(self, text: str, profile: _Profile, name: str, drawn: int) -> None:
        if self._open and self._open_characters + len(text) > CHUNK_CHARACTERS:
            self._close()
        if not self._open:
            self._starts.append(self.shown)
        self._open.append(text)
        self._open_characters += len(text)
        self._lengths.append(len(text))
        self._rows.append(self._profiles.setdefault(profile, len(self._profiles)))
        self._names.append(name)
        self._drawn.append(drawn)

    def _texts(self) -> Iterator[str]:
        """Every row as it was put."""
        n = 0
        for end, chunk in zip([*self._starts[1:], self.shown], self._chunks, strict=False):
            text, at = zlib.decompress(base64.b64decode(chunk)).decode(), 1
            for length in self._lengths[n:end]:
                yield text[at : at + length]
                at += length + 1
            n = end
        yield from self._open

    def listing(self, total: int) -> Listing:
        self._close()
        facets = tuple(shown for n, facet in enumerate(self._facets) if (shown := self._shown_facet(n, facet)) is not None)
        names = {facet.name for facet in facets}
        profiles = [
            {facet.name: values for facet, values in zip(self._facets, profile, strict=True) if facet.name in names}
            for profile in self._profiles
        ]
        index = {"profiles": profiles, "rows": self._rows, "names": self._names, "starts": self._starts}
        return Listing(total, self.shown, facets, _packed(_json(index)), tuple(self._chunks))

    def _shown_facet(self, number: int, facet: Facet) -> ShownFacet | None:
        found = {profile[number] for profile in self._profiles}
        if len(found) < 2:
            return None
        values = {value for each in found for value in each}
        order = {visible(value): n for n, value in enumerate(facet.words)}
        words = {visible(value): word for value, word in facet.words.items()}
        listed = sorted(values, key=lambda value: (order.get(value, len(order)), value))
        return ShownFacet(facet.name, facet.label, tuple((value, words.get(value, value)) for value in listed))

    def _close(self) -> None:
        if self._open:
            self._chunks.append(_packed(f"[{','.join(self._open)}]"))
            self._packed_bytes += len(self._chunks[-1])
            self._open, self._open_characters = [], 0


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def _visible(value: Any) -> Any:
    """The same with every text in it made safe to look at."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _visible(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_visible(each) for each in cast("list[Any]", value)]
    return value
