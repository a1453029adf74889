"""Reads the long lists out of a report, as the page's own script does."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PackedRow:
    """A row of a list. `facets`: name → values; `turns`: (kind, heading, text before, text after)."""

    name: str
    facets: dict[str, list[str]]
    line: str
    tags: list[str]
    turns: list[tuple[str, str, str, str]]
    notes: list[str]
    end: str

    @property
    def text(self) -> str:
        said = [part for turn in self.turns for part in turn[1:]]
        return " ".join([self.line, *self.tags, *said, *self.notes, self.end])


def packed_rows(source: str, name: str) -> list[PackedRow]:
    """Every row of a list, in order; none where there is no such list."""
    parts = re.findall(
        rf'<script type="application/octet-stream" data-list="{name}" data-part="(\w+)">([\w+/=]+)</script>', source
    )
    if not parts:
        return []
    (_, index), *chunks = ((part, json.loads(zlib.decompress(base64.b64decode(data)))) for part, data in parts)
    rows = [row for _, chunk in chunks for row in chunk]
    assert len(rows) == len(index["rows"]) == len(index["names"])
    assert index["starts"] == [sum(len(chunk) for _, chunk in chunks[:n]) for n in range(len(chunks))]
    return [
        _row(row, title, index["profiles"][profile])
        for row, title, profile in zip(rows, index["names"], index["rows"], strict=True)
    ]


def _row(row: dict[str, Any], name: str, facets: dict[str, list[str]]) -> PackedRow:
    turns: list[tuple[str, str, str, str]] = []
    notes: list[str] = []
    for turn in row["b"]:
        if turn["k"] == "sides":
            for n, side in enumerate(turn["s"]):
                notes.append(_words(side["n"]))
                before, after = _texts(turn.get("d") or side["x"])
                turns.append(("sides", side["h"], before if n == 0 else after, before if n == 0 else after))
        else:
            turns.append((turn["k"], _words(turn["h"]), *_texts(turn["x"])))
            notes += [text for _, text in turn.get("n", ())]
    return PackedRow(name, facets, row["l"], [words for _, words in row["t"]], turns, notes, _words(row["e"]))


def _texts(body: str | list[str]) -> tuple[str, str]:
    if isinstance(body, str):
        return body, body
    return tuple("".join(text for n, text in enumerate(body) if n % 3 != left_out) for left_out in (2, 1))  # type: ignore[return-value]


def _words(parts: list[Any]) -> str:
    return " ".join(part if isinstance(part, str) else part[1] for part in parts)
