"""How a JSON file is laid out: remembered, so that data written again gives the same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias, cast

Indent: TypeAlias = int | str | None
_INDENTS: dict[str, Indent] = {"one line": None, "indent 1": 1, "indent 2": 2, "indent 4": 4, "indent tab": "\t"}


@dataclass(frozen=True)
class Layout:
    """`indent` is a key of `_INDENTS`; `escaped`: characters beyond ASCII are written as escapes; `newline`: one at the end."""

    indent: str = "indent 2"
    escaped: bool = False
    newline: bool = True
    lines: bool = False

    def text(self, data: object) -> str:
        """`data` as a JSON text; a list as one value a line where `lines`."""
        rows = cast("list[object]", data) if self.lines and isinstance(data, list) else [data]
        texts = [json.dumps(row, indent=_INDENTS[self.indent], ensure_ascii=self.escaped) for row in rows]
        return "\n".join(texts) + "\n" * self.newline

    def __str__(self) -> str:
        words = [
            self.indent,
            "escaped" if self.escaped else "",
            "newline" if self.newline else "",
            "lines" if self.lines else "",
        ]
        return ", ".join(filter(None, words))


def find_layout(text: str, data: object, *, lines: bool = False) -> Layout | None:
    """The layout in which `data` gives exactly `text`, or None when it is another one."""
    for indent in ["one line"] if lines else _INDENTS:
        layout = Layout(indent, escaped=text.isascii(), newline=text.endswith("\n"), lines=lines)
        if layout.text(data) == text:
            return layout
    return None


def read_layout(told: str, default: Layout) -> Layout:
    """A layout as `str` writes it; `default` where it is none."""
    words = told.split(", ")
    if words[0] not in _INDENTS:
        return default
    return Layout(words[0], escaped="escaped" in words, newline="newline" in words, lines="lines" in words)
