"""What is different from the run that a folder holds: principles by field, settings by key, models, prompts.

Compares the manifest of the folder with checked inputs; knows no calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

from pydantic import ValidationError

from cai.pipeline.preflight import Inputs
from cai.records import Item
from cai.store import RunFolder
from constitution.schema import Constitution, Principle
from constitution.selection import select_principle

ChangeKind: TypeAlias = Literal["principle", "constitution", "setting", "model", "prompts"]

NEVER_IN_A_PROMPT = frozenset({"rationale", "tests"})
"""Fields of a principle that reach neither a prompt nor a draw (see `Principle.fingerprint`)."""
_SHOWN_OTHERWISE = ("run", "constitution", "principles", "prompts", "lab", "tracking")
"""Settings whose effect is told as a change of principles or prompts, or that have none."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was.

    Args:
        kind: Of thing.
        name: Principle id, key of a setting, role of a model, or what became of prompts.
        what: Fields that changed; for settings and models the old and the new value.
        rows: (Prompt, replica) pairs that use it; None where that cannot be said of one thing.
    """

    kind: ChangeKind
    name: str
    what: tuple[str, ...]
    rows: int | None = None


@dataclass(frozen=True)
class Before:
    """The run as the folder's manifest has it. `constitution` is None when it does not fit this version."""

    constitution: Constitution | None
    seed: int
    config: dict[str, Any]
    models: dict[str, str]
    items: dict[str, Item]

    @classmethod
    def read(cls, folder: RunFolder) -> Before:
        manifest = folder.whole_manifest
        described = _mapping(manifest.get("constitution"))
        described.pop("fingerprint", None)
        try:
            constitution = Constitution.model_validate(described)
        except ValidationError:
            constitution = None
        models = {role: str(_mapping(each).get("fingerprint")) for role, each in _mapping(manifest.get("models")).items()}
        items = {item.uid: item for item in folder.items()}
        return cls(constitution, int(manifest.get("seed", 0)), _mapping(manifest.get("config")), models, items)


@dataclass(frozen=True)
class Comparison:
    """The run before, and the inputs of now."""

    before: Before
    inputs: Inputs
    models: Mapping[str, str]

    def changes(self) -> list[Change]:
        """All that is different, whether or not a row depends on it."""
        return [*self._principles(), *self._settings(), *self._models(), *self._prompts()]

    def why(self, uid: str) -> str:
        """Why the answers of an item of the input are not all there."""
        item, old = self._items[uid], self.before.items.get(uid)
        if old is None:
            return "new prompt"
        if (old.messages, old.tags) != (item.messages, item.tags):
            return "the prompt changed"
        reasons = [*dict.fromkeys(self._drawn_otherwise(item))]
        if reasons:
            return "; ".join(reasons)
        others = [*self._models(), *self._settings()]
        if others:
            return f"{others[0].kind} {others[0].name} changed" + (" …" if len(others) > 1 else "")
        edited = [change.name for change in self._principles() if not NEVER_IN_A_PROMPT.issuperset(change.what)]
        return f"{', '.join(edited)} changed" if edited else "not finished yet"

    @cached_property
    def _items(self) -> dict[str, Item]:
        return {item.uid: item for item in self.inputs.items}

    def _drawn_otherwise(self, item: Item) -> Iterator[str]:
        if self.before.constitution is None:
            return
        for number in range(self.inputs.config.loop.rounds):
            old, new = self._drawn_before(item, number), self._drawn_now(item, number)
            if old is None or new is None or old.id != new.id:
                if old is not new:
                    yield f"draws {_name(new)} instead of {_name(old)}"
            elif old.fingerprint != new.fingerprint:
                fields = [name for name in changed_fields(old, new) if name not in NEVER_IN_A_PROMPT]
                yield f"{new.id}: {', '.join(fields)} changed"

    def _principles(self) -> Iterator[Change]:
        if self.before.constitution is None:
            yield Change("constitution", "constitution", ("of another version",))
            return
        old = {each.id: each for each in self.before.constitution.principles}
        new = {each.id: each for each in self.inputs.constitution.principles}
        for name in [*new, *(each for each in old if each not in new)]:
            if name not in old:
                yield Change("principle", name, ("added",), self._rows(new[name], self.inputs.constitution))
            elif name not in new:
                yield Change("principle", name, ("removed",), self._rows(old[name], self.before.constitution))
            elif fields := changed_fields(old[name], new[name]):
                yield Change("principle", name, fields, self._rows(new[name], self.inputs.constitution))
        prose = [name for name in ("name", "description") if self._prose(name)]
        if prose:
            yield Change("constitution", self.inputs.constitution.name, tuple(prose), 0)
        shared = [name for name in old if name in new]
        if shared != [name for name in new if name in old]:
            yield Change("constitution", self.inputs.constitution.name, ("order of the principles",))

    def _prose(self, field: str) -> bool:
        return getattr(self.before.constitution, field) != getattr(self.inputs.constitution, field)

    def _rows(self, principle: Principle, constitution: Constitution) -> int:
        """Rows that draw it in some round."""
        loop = self.inputs.config.loop
        drawn = self._drawn_now if constitution is self.inputs.constitution else self._drawn_before
        drawing = [
            item
            for item in self.inputs.training_items
            if any(drawn(item, number) == principle for number in range(loop.rounds))
        ]
        return len(drawing) * loop.replicas

    def _drawn_now(self, item: Item, number: int) -> Principle | None:
        config = self.inputs.config
        return select_principle(
            self.inputs.constitution,
            seed=config.seed,
            uid=item.uid,
            round=number,
            tags=item.tags,
            repeat=config.loop.repeat_principles,
        )

    def _drawn_before(self, item: Item, number: int) -> Principle | None:
        if self.before.constitution is None:
            return None
        repeat = bool(_mapping(self.before.config.get("loop")).get("repeat_principles", True))
        return select_principle(
            self.before.constitution, seed=self.before.seed, uid=item.uid, round=number, tags=item.tags, repeat=repeat
        )

    def _settings(self) -> Iterator[Change]:
        old = dict(leaves(self.before.config))
        new = dict(leaves(self.inputs.config.model_dump(mode="json")))
        for key in [*new, *(each for each in old if each not in new)]:
            if key.split(".")[0] not in _SHOWN_OTHERWISE and old.get(key) != new.get(key):
                yield Change("setting", key, (f"{_value(old, key)} → {_value(new, key)}",))

    def _models(self) -> Iterator[Change]:
        for role, fingerprint in self.models.items():
            old = self.before.models.get(role)
            if old != fingerprint:
                yield Change("model", role, (f"{old[:12] if old else 'not there'} → {fingerprint[:12]}",))

    def _prompts(self) -> Iterator[Change]:
        old, new = self.before.items, {item.uid: item for item in self.inputs.items}
        replicas = self.inputs.config.loop.replicas
        edited = [uid for uid in new if uid in old and (old[uid].messages, old[uid].tags) != (new[uid].messages, new[uid].tags)]
        for name, uids in (
            ("added", [uid for uid in new if uid not in old]),
            ("removed", [uid for uid in old if uid not in new]),
            ("edited", edited),
        ):
            if uids:
                yield Change(
                    "prompts", name, (f"{len(uids)} of {len(old if name == 'removed' else new)}",), len(uids) * replicas
                )


def changed_fields(old: Principle, new: Principle) -> tuple[str, ...]:
    """Names of the fields in which two versions of a principle differ, in the order of the schema."""
    return tuple(name for name in Principle.model_fields if getattr(old, name) != getattr(new, name))


def _name(principle: Principle | None) -> str:
    return "no principle" if principle is None else principle.id


def _mapping(value: object) -> dict[str, Any]:
    return dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else {}


def leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a tree that is no section, by its key with dots."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(cast("dict[str, Any]", value), f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _value(leaves: Mapping[str, Any], key: str) -> str:
    return str(leaves[key]) if key in leaves else "not set"
