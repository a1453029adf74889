"""A constitution → another format again, and whether what was imported comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from constitution.documents import Path
from constitution.importing.exporting import is_from
from constitution.importing.findings import Imported, where
from constitution.importing.formats import Format
from constitution.importing.layouts import Layout, read_layout
from constitution.importing.markdown_list import shape_of
from constitution.importing.reading import LAYOUT
from constitution.importing.sources import Source
from constitution.schema import Constitution, Principle

_NEVER_SAID = frozenset({"id", "principle", "source"})
"""Every format says who a principle is and what it asks, in its own way."""


@dataclass(frozen=True)
class Return:
    """What comes back: the same `bytes`, the same `data` in another layout, or something `different` at `places`."""

    same: Literal["bytes", "data", "different"]
    places: tuple[str, ...] = ()


def export_text(constitution: Constitution, chosen: Format) -> str:
    """The constitution in one of the formats that can be written.

    Raises:
        ValueError: If the format has no writer, or the constitution nothing that it could hold.
    """
    if chosen.write is None:
        raise ValueError(f"{chosen.name} cannot be written")
    if chosen.needs and not any(getattr(principle, chosen.needs) for principle in constitution.principles):
        raise ValueError(f"no principle here has {chosen.needs}, and {chosen.name} holds nothing else")
    data = chosen.write(constitution)
    if isinstance(data, str) and chosen.form == "text":
        return data
    default = Layout("one line", lines=True) if chosen.form == "lines" else Layout()
    told = constitution.source.get(LAYOUT, "") if is_from(constitution, chosen.name) else ""
    return read_layout(told, default).text(data)


def way_back(constitution: Constitution, chosen: Format, source: Source, imported: Imported) -> Return | None:
    """What an imported constitution gives when it is written back; None when such a file cannot be written."""
    if chosen.write is None or not imported.returns:
        return None
    written = export_text(constitution, chosen)
    if written == source.text:
        return Return("bytes")
    data = shape_of(written) if chosen.form == "text" else chosen.write(constitution)
    places = tuple(where(path) or "the whole" for path in _differences(imported.original, data, ()))
    return Return("different", places) if places else Return("data")


def unsaid(constitution: Constitution, chosen: Format) -> dict[str, tuple[str, ...]]:
    """The fields that the format has no place for, each with the ids of the principles that set it."""
    found: dict[str, list[str]] = {}
    for principle in constitution.principles:
        for field in _set_fields(principle) - chosen.says - _NEVER_SAID:
            found.setdefault(field, []).append(principle.id)
    order = list(Principle.model_fields)
    return {field: tuple(found[field]) for field in sorted(found, key=order.index)}


def _set_fields(principle: Principle) -> set[str]:
    plain = Principle(id=principle.id, principle=principle.principle)
    return {name for name in Principle.model_fields if getattr(principle, name) != getattr(plain, name)}


def _differences(one: object, other: object, path: Path) -> Iterator[Path]:
    if isinstance(one, dict) and isinstance(other, dict):
        first, second = cast("Mapping[str, object]", one), cast("Mapping[str, object]", other)
        for key in {**first, **second}:
            if key in first and key in second:
                yield from _differences(first[key], second[key], (*path, key))
            else:
                yield (*path, key)
    elif isinstance(one, list) and isinstance(other, list):
        rows, others = cast("list[object]", one), cast("list[object]", other)
        for index, (mine, theirs) in enumerate(zip(rows, others, strict=False)):
            yield from _differences(mine, theirs, (*path, index))
        yield from ((*path, index) for index in range(min(len(rows), len(others)), max(len(rows), len(others))))
    elif one != other or isinstance(one, bool) != isinstance(other, bool):
        yield path
