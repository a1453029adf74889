"""Markdown of cards: values become text, whatever markup stands in them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, has_code: bool = False) -> str:
    """A table; with `has_code`, what stands between backticks in a cell is code."""
    shown = prose if has_code else text
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(shown(str(cell)) for cell in row) + " |" for row in rows)])


def prose(value: str) -> str:
    """Sentences of our own: code between backticks stays code, all else is text."""
    parts = re.split(r"(`[^`|\n]+`)", " ".join(value.split()))
    return "".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts))


def text(value: str) -> str:
    """The value on one line, with nothing in it that Markdown or HTML would take for its own."""
    return _escaped(" ".join(value.split()))


def _escaped(value: str) -> str:
    escaped = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", value)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
