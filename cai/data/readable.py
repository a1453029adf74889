"""A summary or a section of settings as lines of a table: names in words, shares in per cent."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import cast

_LISTED = 12


def readable(values: Mapping[str, object], *, leaving_out: Collection[str] = ()) -> dict[str, str]:
    """Name → value, in the order given; what is nested stands under `outer: inner`. Values that are None are left out."""
    lines: dict[str, str] = {}
    for name, value in values.items():
        if name in leaving_out or value is None:
            continue
        words = name.replace("_", " ")
        if isinstance(value, Mapping):
            inner = readable(cast("Mapping[str, object]", value), leaving_out=leaving_out)
            lines |= {f"{words}: {key}": text for key, text in inner.items()}
        else:
            lines[words] = _value(name, value)
    return lines


def _value(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isfinite(value):
        if name.endswith("_share"):
            return f"{value:.1%}"
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        each = [_value(name, part) for part in cast("Iterable[object]", value)]
        more = f" … ({len(each)})" if len(each) > _LISTED else ""
        return ", ".join(each[:_LISTED]) + more if each else "none"
    return str(value)
