"""What can be read of a principle that has errors: its other parts get their warnings all the same.

A part that has an error is left out: a whole text or number, or one entry of `tests`, `demonstrations`, `applies_to` or
`parameters`. Who looks at what is missing has to ask `whole` first: a part that could not be read is not one that is not there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from pydantic import ValidationError

from constitution.explaining import meant_field
from constitution.ids import FALLBACK, first_words
from constitution.schema import Principle

_OF_ENTRIES = frozenset({"tests", "demonstrations", "applies_to", "parameters"})
MAX_GUESSES = 10
"""Unknown keys of one principle for which it is asked what they mean."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A principle's readable parts. `principle.principle` is "" where the rule itself cannot be read.

    `unread` are the keys of which something is missing; `kept`: for each list that is not whole, the places of its entries in
    the file, by their places in `principle`.
    """

    principle: Principle
    unread: frozenset[str] = frozenset()
    kept: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])


def salvage(entry: Mapping[str, Any], broken_texts: frozenset[str]) -> Salvaged | None:
    """Read what can be read of one entry of `principles`; None where that is nothing.

    Args:
        entry: What the file says, unchecked.
        broken_texts: Keys of texts whose templates are not sound.
    """
    readable = {key: value for key, value in entry.items() if key in Principle.model_fields and key not in broken_texts}
    unknown = islice((key for key in entry if key not in Principle.model_fields), MAX_GUESSES)
    unread = set(broken_texts) | {meant for key in unknown if (meant := meant_field(Principle, key, entry))}
    broken: dict[str, set[int | str]] = defaultdict(set)
    for loc in _errors(entry):
        key, below = str(loc[0]), loc[1] if len(loc) > 1 else None
        if key not in readable or key == "id":
            continue
        unread.add(key)
        if below is None or key not in _OF_ENTRIES:
            del readable[key]
        else:
            broken[key].add(below)
    kept: dict[str, Sequence[int]] = {}
    for key, places in broken.items():
        value: Any = readable.get(key)
        if isinstance(value, dict):
            readable[key] = {name: each for name, each in cast("dict[str, Any]", value).items() if name not in places}
        elif isinstance(value, list):
            entries = cast("list[Any]", value)
            kept[key] = [place for place in range(len(entries)) if place not in places]
            readable[key] = [entries[place] for place in kept[key]]
    return _made(entry, readable, frozenset(unread), kept)


def _made(
    entry: Mapping[str, Any], readable: dict[str, Any], unread: frozenset[str], kept: Mapping[str, Sequence[int]]
) -> Salvaged | None:
    rule = readable.get("principle", "")
    given = entry.get("id")
    called = first_words(given) if isinstance(given, str) else ""
    name = called or first_words(rule) or FALLBACK
    try:
        made = Principle.model_validate({**readable, "id": name, "principle": rule or name})
    except ValidationError:
        return None
    if rule:
        return Salvaged(made, unread, kept)
    return Salvaged(made.model_copy(update={"principle": ""}), unread | {"principle"}, kept)


def _errors(entry: Mapping[str, Any]) -> Sequence[tuple[int | str, ...]]:
    try:
        Principle.model_validate(entry)
    except ValidationError as error:
        return [
            detail["loc"]
            for detail in error.errors(include_url=False, include_input=False, include_context=False)
            if detail["loc"]
        ]
    return []
