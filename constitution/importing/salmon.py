"""SALMON's principle collections: a list of `{dimension, definition, negative_definition?, weight?}`, in JSON or YAML.

`weight` is, as here, the relative chance to be drawn. `negative_definition` is the opposite rule, by which SALMON trains its
reward model to follow instructions rather than taste; nothing here uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from constitution.documents import Path
from constitution.importing.exporting import extras_of, given, name_of
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering, kind_of
from constitution.importing.sources import Source
from constitution.rendering import principle_text
from constitution.schema import Constitution, Principle

NAME = "salmon"
_NEGATIVE = "negative_definition"
_KEYS = frozenset({"dimension", "definition", "weight"})


def recognise(source: Source) -> bool:
    return any("dimension" in entry and "definition" in entry for entry in source.objects)


def read(gathering: Gathering) -> None:
    for path, entry in gathering.objects((), gathering.source.data):
        dimension, definition = (gathering.text(path, entry, key) for key in ("dimension", "definition"))
        if dimension is None or definition is None:
            continue
        about = gathering.extras(path, entry, _KEYS, frozenset({_NEGATIVE}))
        fields: dict[str, Any] = {"principle": definition, **_weight(gathering, path, entry)}
        gathering.add(path, name=dimension, words=definition, source=about, **fields)


def write(constitution: Constitution) -> object:
    return [_entry(constitution, principle) for principle in constitution.principles]


def _entry(constitution: Constitution, principle: Principle) -> dict[str, object]:
    entry: dict[str, object] = {
        "dimension": name_of(principle),
        "definition": given(principle, "principle") or principle_text(principle),
        **extras_of(constitution, principle, NAME),
    }
    if "weight" in principle.model_fields_set:
        entry["weight"] = int(principle.weight) if principle.weight.is_integer() else principle.weight
    return entry


def _weight(gathering: Gathering, path: Path, entry: Mapping[str, Any]) -> dict[str, float]:
    if "weight" not in entry:
        return {}
    weight: object = entry["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        gathering.lose((*path, "weight"), f"`weight` is {kind_of(weight)}, not a number; 1 is used", Fate.PART)
        return {}
    if not 0 < weight <= 1000:
        gathering.lose((*path, "weight"), f"`weight` is {weight}: it has to lie above 0 and up to 1000; 1 is used", Fate.PART)
        return {}
    return {"weight": float(cast("float", weight))}
