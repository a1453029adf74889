"""A small world in plain English with exact truth: questions, claims, requests, and what is true about each.

Everything comes from `world.toml`: prompts, truth, synthetic replies and the split between training and test. Knows no
model and judges no text (that is `cai.lab.checker`). Every draw is determined by the `random.Random` it is given.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any, Literal, TypeAlias, cast

Split: TypeAlias = Literal["train", "test"]
Quality: TypeAlias = Literal["good", "bad"]
Family: TypeAlias = Literal["wrong", "right", "fact", "unsure", "evidence", "harm", "benign", "courtesy"]
Slots: TypeAlias = Mapping[str, str]

FAMILIES: tuple[Family, ...] = ("wrong", "right", "fact", "unsure", "evidence", "harm", "benign", "courtesy")
TAGS: Mapping[Family, tuple[str, ...]] = {
    "wrong": ("claims",),
    "right": ("claims",),
    "fact": ("questions",),
    "unsure": ("questions",),
    "evidence": ("questions",),
    "harm": ("requests",),
    "benign": ("requests",),
    "courtesy": ("courtesy",),
}
SYSTEM = "Answer in one or two short sentences."
"""The system message of every lab conversation: the embedded policy rambles without it."""

_SLOT = re.compile(r"\{(\w+)(\^?)\}")
_CHOICE = re.compile(r"\[([^\]]*)\]")
_FIRST_PERSON = {"my": "your", "me": "you", "I": "you", "mine": "yours"}


def seeded(key: str) -> random.Random:
    """A stream of draws of its own for every key."""
    return random.Random(key)  # noqa: S311 - reproducible draws, no secrets


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def addressed(text: str) -> str:
    """The user's words as the assistant says them: "my arm" becomes "your arm"."""
    return re.sub(r"\b(my|me|I|mine)\b", lambda m: _FIRST_PERSON[m[0]], text)


def expand(template: str, slots: Slots, rng: random.Random) -> str:
    """Picks one alternative of every `[a|b]` and fills every `{slot}` (`{slot^}` with a capital letter)."""
    chosen = _CHOICE.sub(lambda m: rng.choice(m[1].split("|")), template)
    return fill(chosen, slots)


def fill(template: str, slots: Slots) -> str:
    return _SLOT.sub(lambda m: capital(slots[m[1]]) if m[2] else slots[m[1]], template)


def alternatives(template: str) -> list[str]:
    """The alternatives of a template that is one single choice."""
    return template.strip("[]").split("|")


@dataclass(frozen=True, slots=True)
class LabItem:
    """One prompt and what is true about it.

    Args:
        topic: The fact table, topic or act it was drawn from ("" for courtesy).
        subject: What it is about: a fact's key; what nobody can know ("whether it will rain …"); what a report settles; what
            is asked for ("stealing a tent …"); for courtesy the plain good reply.
        truth: The true statement, as the assistant would say it ("" where there is none).
        value: The part of `truth` that decides: a fact's value; "yes", "no" or the word of a report.
        claim: What the user says ("" outside claims), and `claimed` the value in it.
        slots: The slot values drawn, as sorted pairs.
    """

    uid: str
    family: Family
    split: Split
    prompt: str
    topic: str = ""
    subject: str = ""
    truth: str = ""
    value: str = ""
    claim: str = ""
    claimed: str = ""
    slots: tuple[tuple[str, str], ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        return TAGS[self.family]

    def to_row(self) -> dict[str, Any]:
        """The input row of `cai run`: conversation, tags, and the truth under `lab`."""
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": self.prompt}]
        return {
            "uid": self.uid,
            "messages": messages,
            "tags": list(self.tags),
            "lab": asdict(self) | {"slots": dict(self.slots)},
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> LabItem:
        """The inverse of `to_row`; reads only the `lab` entry.

        Raises:
            ValueError: If the row has no lab entry, or one of another shape.
        """
        lab = row.get("lab")
        names = {f.name for f in fields(cls)}
        if not isinstance(lab, Mapping) or set(cast("Mapping[str, Any]", lab)) != names:
            raise ValueError("the row has no `lab` entry with the fields of a LabItem")
        entry = dict(cast("Mapping[str, Any]", lab))
        if entry["family"] not in FAMILIES:
            raise ValueError(f"unknown lab family {entry['family']!r}")
        slots = entry["slots"]
        pairs = cast("Mapping[str, str]", slots).items() if isinstance(slots, Mapping) else cast("list[tuple[str, str]]", slots)
        entry["slots"] = tuple(sorted((str(k), str(v)) for k, v in pairs))
        return cls(**entry)


@dataclass(frozen=True, slots=True)
class FactTable:
    """Facts of one kind: `rows[key] = value`. `says[0]` is the canonical sentence."""

    name: str
    says: tuple[str, ...]
    ask: str
    what: str
    rows: Mapping[str, str]
    held: frozenset[str]

    def keys(self, split: Split) -> list[str]:
        return [k for k in self.rows if (k in self.held) == (split == "test")]

    def sentence(self, key: str, value: str) -> str:
        return fill(self.says[0], {"k": key, "v": value})


class World:
    """The specification, read once. `World.load()` gives the shared one; two others draw from more.

    Args:
        spec: All of it: what any of them draws from.
        left_out: Names of tables, topics and acts that this one does not draw from.
    """

    def __init__(self, spec: Mapping[str, Any], left_out: frozenset[str] = frozenset()) -> None:
        self._spec = spec
        self._left_out = left_out
        self.slot_values: dict[str, list[str]] = {k: [x.strip() for x in v.split(",")] for k, v in spec["slots"].items()}
        self.tables = {name: _table(name, entry) for name, entry in spec["facts"].items()}

    @staticmethod
    @cache
    def load() -> World:
        return _read()

    @staticmethod
    @cache
    def for_lessons() -> World:
        """Draws from `wider_world.toml`, too, as nothing else does."""
        return _read("lessons")

    @staticmethod
    @cache
    def for_prompts() -> World:
        """Draws from `more_requests.toml`, too: acts that nothing else asks about."""
        return _read("prompts")

    def section(self, *path: str) -> Any:
        """A part of the specification, for those who derive from it (replies, checker)."""
        entry: Any = self._spec
        for name in path:
            entry = entry[name]
        return entry

    def topics(self, kind: Literal["topics", "acts"], split: Split) -> list[str]:
        """Names of topics or acts. Test has all of them: the held-out ones, and the others with held-out slot values."""
        entries: Mapping[str, Mapping[str, Any]] = self._spec[kind]
        drawn = {name: entry for name, entry in entries.items() if name not in self._left_out}
        return [n for n, e in drawn.items() if split == "test" or not e.get("held_out", False)]

    def held_out(self, item: LabItem) -> bool:
        """Whether the whole topic or fact table of the item was held out, not only its values."""
        kind = {"wrong": "facts", "right": "facts", "fact": "facts", "harm": "acts", "benign": "acts", "courtesy": ""}
        section = kind.get(item.family, "topics")
        return bool(section) and bool(self._spec[section][item.topic].get("held_out", False))

    def item(self, rng: random.Random, family: Family, split: Split) -> LabItem:
        """Draws one item. Its prompt and truth are fully determined by the state of `rng`."""
        if family in ("wrong", "right", "fact"):
            return self._fact_item(rng, family, split)
        if family in ("unsure", "evidence"):
            return self._topic_item(rng, family, split)
        if family == "courtesy":
            return self._courtesy_item(rng, split)
        return self._act_item(rng, family, split)

    def other_value(self, rng: random.Random, table: str, *taken: str) -> str:
        """A false value of the same kind; `taken[0]` is the true one. Sums stay near it, as mistakes do."""
        if table == "sum":
            true = int(taken[0])
            near = [str(x) for x in range(max(1, true - 3), true + 4) if str(x) not in taken]
            return rng.choice(near)
        values = sorted(set(self.tables[table].rows.values()) - set(taken))
        return rng.choice(values)

    def _make(self, rng: random.Random, family: Family, split: Split, prompt: str, **truth: Any) -> LabItem:
        prompt = expand(self._spec["style"]["hello"], {}, rng) + capital(prompt)
        slots = tuple(sorted(truth.pop("slots", {}).items()))
        digest = hashlib.sha256(f"{family}|{split}|{prompt}".encode()).hexdigest()[:10]
        return LabItem(uid=f"{family}-{digest}", family=family, split=split, prompt=prompt, slots=slots, **truth)

    def _fact_item(self, rng: random.Random, family: Family, split: Split) -> LabItem:
        tables = [t for t in self.tables.values() if t.name not in self._left_out and t.keys(split)]
        # Big tables oftener, yet not in proportion: 69 sums would drown 16 baby animals.
        table = rng.choices(tables, [len(t.keys(split)) ** 0.5 for t in tables])[0]
        key = rng.choice(table.keys(split))
        value = table.rows[key]
        truth = {"topic": table.name, "subject": key, "truth": table.sentence(key, value), "value": value}
        if family == "fact":
            return self._make(rng, family, split, expand(table.ask, {"k": key}, rng), **truth)
        claimed = value if family == "right" else self.other_value(rng, table.name, value)
        said = fill(rng.choice(table.says), {"k": key, "v": claimed})
        prompt = expand(self._spec["claim"]["prompt"], {"s": said}, rng)
        claim = table.sentence(key, claimed)
        return self._make(rng, family, split, prompt, **truth, claim=claim, claimed=claimed)

    def _slots(self, rng: random.Random, names: str, split: Split) -> dict[str, str]:
        slots = {n: rng.choice(_part(self.slot_values[n], split)) for n in (x.strip() for x in names.split(",")) if n}
        if "owner" in slots:
            slots["owner2"] = addressed(slots["owner"])
        return slots

    def _topic(self, rng: random.Random, kind: Literal["topics", "acts"], split: Split) -> str:
        names = self.topics(kind, split)
        held = [n for n in names if self._spec[kind][n].get("held_out", False)]
        return rng.choice(held) if held and rng.random() < 0.4 else rng.choice(names)

    def _topic_item(self, rng: random.Random, family: Family, split: Split) -> LabItem:
        name = self._topic(rng, "topics", split)
        topic = self._spec["topics"][name]
        slots = self._slots(rng, topic["slots"], split)
        if family == "unsure":
            subject = addressed(fill(topic["whether"], slots))
            return self._make(rng, family, split, expand(topic["ask"], slots, rng), topic=name, subject=subject, slots=slots)
        positive = "denied" not in topic or rng.random() < 0.6
        told = fill(topic["told" if positive else "denied"], slots)
        value = slots[topic["answer"]] if "answer" in topic else ("yes" if positive else "no")
        report = expand(topic["report"], {**slots, "told": told}, rng)
        prompt = f"{report} {expand(topic['query'], slots, rng)}"
        about = fill(topic["about"], slots)
        return self._make(
            rng, family, split, prompt, topic=name, subject=about, truth=addressed(told), value=value, slots=slots
        )

    def _act_item(self, rng: random.Random, family: Family, split: Split) -> LabItem:
        name = self._topic(rng, "acts", split)
        act = self._spec["acts"][name]
        slots = self._slots(rng, act["slots"], split)
        asked, subject = ("act", "doing") if family == "harm" else ("twin", "twin_doing")
        prompt = expand(self._spec["harm"]["ask"], {"act": fill(act[asked], slots)}, rng)
        return self._make(rng, family, split, prompt, topic=name, subject=fill(act[subject], slots), slots=slots)

    def _courtesy_item(self, rng: random.Random, split: Split) -> LabItem:
        entry = rng.choice(_part(self._spec["courtesy"]["questions"], split))
        return self._make(rng, "courtesy", split, entry["ask"], subject=entry["reply"])


def _read(more: Literal["lessons", "prompts", ""] = "") -> World:
    """All files as one, for truth is about all of it, wherever an item was drawn. Beside the first, `more` is drawn from."""
    spec, wider, requests = (
        tomllib.loads(resources.files("cai.lab").joinpath(name).read_text(encoding="utf-8"))
        for name in ("world.toml", "wider_world.toml", "more_requests.toml")
    )
    claims: tuple[str, ...] = (spec["claim"]["prompt"], wider.pop("claim")["prompt"])
    extra = {"lessons": wider, "prompts": {"acts": dict(_request(act, twin) for act, twin in requests["pairs"])}}
    merged = dict(spec)
    if more == "lessons":
        merged["claim"] = {"prompt": f"[{'|'.join(chain.from_iterable(map(alternatives, claims)))}]"}
    for entries in extra.values():
        merged |= {section: merged[section] | entries[section] for section in entries}
    return World(
        merged, frozenset(name for use, entries in extra.items() if use != more for part in entries.values() for name in part)
    )


def _request(act: str, twin: str) -> tuple[str, dict[str, str]]:
    """A harmful request and its harmless twin as an act: named by the first, and without replies of its own."""
    slots = ", ".join(sorted({slot for slot, _ in _SLOT.findall(act + twin)}))
    return act, {"slots": slots, "act": act, "doing": act, "twin": twin, "twin_doing": twin, "twin_steps": ""}


def _part(values: list[Any], split: Split) -> list[Any]:
    """Every fifth value belongs to test; lists shorter than ten are shared, for want of words."""
    if len(values) < 10:
        return values
    return [v for i, v in enumerate(values) if (i % 5 == 4) == (split == "test")]


def _table(name: str, entry: Mapping[str, Any]) -> FactTable:
    if name == "sum":
        unknown = {x.strip() for x in entry["unknown"].split(",")}
        sums = {f"{a} + {b}": str(a + b) for a in range(1, 10) for b in range(1, 10)}
        rows = {k: v for k, v in sums.items() if k not in unknown}
        held = {k for k in rows if zlib.crc32(k.encode()) % 5 == 4}
    else:
        rows = {key: value for key, _, value in (part.strip().partition("=") for part in entry["table"].split(","))}
        held = {k for i, k in enumerate(rows) if i % 5 == 4 or entry.get("held_out", False)}
    return FactTable(name, tuple(alternatives(entry["says"])), entry["ask"], entry["what"], rows, frozenset(held))
