"""What two runs were made of, and where that differs: principles word by word, settings with their origins, models, packages.

Compares manifests, which anybody may see; opens no database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from pydantic import ValidationError

from cai.diffs import Piece, word_diff
from cai.pipeline.changes import changed_fields, leaves
from cai.store import canonical_json
from cai.store.places import without_places
from constitution.schema import Constitution

Fate: TypeAlias = Literal["added", "removed", "changed"]
_NOT_A_CAUSE = ("run", "tracking")
"""Settings that change nothing of what is made."""
_TOLD_OTHERWISE = ("constitution", "principles")
NOT_NOTED = "not noted"
"""Origin of a setting that a run's version did not have."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A named fact that is not the same in both; None: not there, or not noted."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class ChangedSetting:
    """A setting, and where each run has its value from: `NOT_NOTED` without one.

    A section that one run has, and the other has switched off (None), is one setting.
    """

    key: str
    first: Any
    second: Any
    first_origin: str
    second_origin: str


@dataclass(frozen=True, slots=True)
class ChangedPrinciple:
    """A principle that only one run has, or that reads otherwise: field → its words, kept, removed and added."""

    id: str
    fate: Fate
    fields: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict[str, "tuple[Piece, ...]"])


@dataclass(frozen=True, slots=True)
class Causes:
    """All in which two runs' makings differ. `unknown`: parts that a manifest of an earlier version does not have."""

    principles: tuple[ChangedPrinciple, ...] = ()
    constitution: tuple[Changed, ...] = ()
    settings: tuple[ChangedSetting, ...] = ()
    prompts: tuple[Changed, ...] = ()
    models: tuple[Changed, ...] = ()
    packages: tuple[Changed, ...] = ()
    environment: tuple[Changed, ...] = ()
    git: tuple[Changed, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def named(self) -> list[str]:
        """Each kind of cause in a few words, those that decide most first."""
        parts = {
            "principles": self.principles,
            "constitution": self.constitution,
            "settings": self.settings,
            "prompts": self.prompts,
            "models": self.models,
            "packages": self.packages,
            "machine": self.environment,
            "program": self.git,
        }
        return [f"{name} ({len(found)})" for name, found in parts.items() if found]


def causes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Causes:
    """Compare two manifests: where a file lies makes no difference, what is in it does."""
    first, second = without_places(first)[0], without_places(second)[0]  # the first version had paths among the rest
    principles, constitution = _constitutions(_part(first, "constitution"), _part(second, "constitution"))
    parts = ("packages", "environment", "git", "models")
    return Causes(
        principles=tuple(principles),
        constitution=tuple(constitution),
        settings=tuple(_settings(first, second)),
        prompts=tuple(_facts(first, second, "prompts", leaving_out=("source",))),
        models=tuple(_facts(first, second, "models", leaving_out=("name", "source", "licence"))),
        packages=tuple(_facts(first, second, "packages")),
        environment=tuple(_facts(first, second, "environment")),
        git=tuple(_facts(first, second, "git", leaving_out=("work",))),
        unknown=tuple(part for part in parts if not (_part(first, part) and _part(second, part))),
    )


def _constitutions(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[ChangedPrinciple], list[Changed]]:
    one, other = _constitution(old), _constitution(new)
    if one is None or other is None:
        prints = old.get("fingerprint"), new.get("fingerprint")
        return [], [Changed("fingerprint", *prints)] if prints[0] != prints[1] else []
    mine, theirs = ({each.id: each for each in side.principles} for side in (one, other))
    found: list[ChangedPrinciple] = []
    for name in dict.fromkeys((*mine, *theirs)):
        if name not in theirs:
            found.append(ChangedPrinciple(name, "removed"))
        elif name not in mine:
            found.append(ChangedPrinciple(name, "added"))
        elif names := changed_fields(mine[name], theirs[name]):
            words = {each: word_diff(_text(getattr(mine[name], each)), _text(getattr(theirs[name], each))) for each in names}
            found.append(ChangedPrinciple(name, "changed", words))
    facts = [
        Changed(name, getattr(one, name), getattr(other, name))
        for name in ("name", "description")
        if getattr(one, name) != getattr(other, name)
    ]
    shared = [name for name in mine if name in theirs]
    if shared != (order := [name for name in theirs if name in mine]):
        facts.append(Changed("order of the principles", shared, order))
    return found, facts


def _constitution(described: dict[str, Any]) -> Constitution | None:
    try:
        return Constitution.model_validate({name: value for name, value in described.items() if name != "fingerprint"})
    except ValidationError:
        return None  # of another version: its fingerprint says whether it is the same


def _text(value: Any) -> str:
    """A field of a principle as words: lists and tables as JSON."""
    return value if isinstance(value, str) else "" if value in (None, (), {}) else canonical_json(value)


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[ChangedSetting]:
    origins = [_part(each, "origins") for each in (first, second)]
    for key, *values in _unlike(_part(first, "config"), _part(second, "config")):
        if key.split(".")[0] in (*_NOT_A_CAUSE, *_TOLD_OTHERWISE):
            continue
        one, other = (None if value is _ABSENT else value for value in values)
        here, there = (_origin_of(value, each, key) for value, each in zip(values, origins, strict=True))
        yield ChangedSetting(key, one, other, here, there)


_ABSENT = object()


def _unlike(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Keys with dots whose values are not the same; of a section that both have, those in it."""
    for name in dict.fromkeys((*old, *new)):
        one, other = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _unlike(cast("dict[str, Any]", one), cast("dict[str, Any]", other), f"{path}{name}.")
        elif one != other:
            yield f"{path}{name}", one, other


def _origin_of(value: object, origins: Mapping[str, Any], key: str) -> str:
    if value is _ABSENT:
        return NOT_NOTED
    if isinstance(value, dict):  # a whole section: the first place in which anything of it was set
        return next((str(at) for name, at in origins.items() if name.startswith(f"{key}.")), _origin(origins, key))
    return _origin(origins, key)


def _origin(origins: Mapping[str, Any], key: str) -> str:
    """Of the setting, or of the section or list that it is a part of."""
    parts = key.split(".")
    named = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((str(origins[name]) for name in named if name in origins), "default")


def _facts(
    first: Mapping[str, Any], second: Mapping[str, Any], part: str, *, leaving_out: tuple[str, ...] = ()
) -> Iterator[Changed]:
    old, new = (dict(leaves(_part(each, part))) for each in (first, second))
    if not old or not new:
        return  # not noted by an earlier version, which is told
    for key in sorted({*old, *new}):
        if not set(key.split(".")) & set(leaving_out) and old.get(key) != new.get(key):
            yield Changed(key, old.get(key), new.get(key))


def _part(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = manifest.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
