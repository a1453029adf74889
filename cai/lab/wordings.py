"""Wordings of principles: a grammar of ways to say them, the shipped ones among them, each with its short restatement.

Everything comes from `wordings.toml`; the shipped principles are read from their YAML files where these are present.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml

from cai.lab.world import Split, capital, expand

MAIN_KINDS = ("truth", "calibration", "harm", "helpful", "courtesy")
CORE_IDS: Mapping[str, str] = {
    "correct-false-claims": "truth",
    "honest-uncertainty": "calibration",
    "no-help-with-wrongdoing": "harm",
    "help-harmless-requests": "helpful",
    "courtesy-without-flattery": "courtesy",
}
_SHIPPED_SHARE = 0.12
"""How often a main kind is worded as the shipped principle says it: these are what most users will run."""


@dataclass(frozen=True, slots=True)
class Wording:
    """A principle as a user would write it. `gist` completes "It asks …"; the requests are None for the default texts."""

    principle: str
    gist: str
    critique_request: str | None = None
    revision_request: str | None = None


@dataclass(frozen=True, slots=True)
class RuleWording:
    """How a rule is worded, and the clauses its critique is made of; all have the rule's parameters filled in."""

    wording: Wording
    kept: str
    seen: str
    fault: str


@dataclass(frozen=True, slots=True)
class Unrelated:
    """A principle that asks nothing of the reply, and the observation that says so."""

    wording: Wording
    kept: str


class Wordings:
    """The wordings, read once. `Wordings.load()` gives the shared one, with the shipped principles of the installation."""

    def __init__(self, spec: Mapping[str, Any], shipped: Mapping[str, Mapping[str, str]]) -> None:
        self._spec = spec
        self._core = {CORE_IDS[i]: entry for i, entry in shipped.items() if i in CORE_IDS}
        self._foreign = [(shipped[i], entry) for i, entry in spec["shipped"].items() if i in shipped]

    @staticmethod
    @cache
    def load() -> Wordings:
        spec = tomllib.loads(resources.files("cai.lab").joinpath("wordings.toml").read_text(encoding="utf-8"))
        return Wordings(spec, read_shipped())

    def main(self, rng: random.Random, kind: str, split: Split) -> Wording:
        """A wording of a main kind; test gives only those never taught."""
        spec = self._spec[kind]
        if split == "test":
            gist, text = rng.choice(spec["held"]).split("|", 1)
            return Wording(text, gist)
        if kind in self._core and rng.random() < _SHIPPED_SHARE:
            entry = self._core[kind]
            gist = rng.choice([g["gist"] for g in spec["groups"][:1]])
            return Wording(entry["principle"], gist, entry.get("critique_request"), entry.get("revision_request"))
        group = rng.choice(spec["groups"])
        critique = rng.choice(spec["critique_requests"]) if rng.random() < 0.35 else None
        revision = rng.choice(spec["revision_requests"]) if rng.random() < 0.35 else None
        return Wording(tidy(expand(rng.choice(group["forms"]), {}, rng)), group["gist"], critique, revision)

    def held_out(self, kind: str) -> list[Wording]:
        """All wordings of a main kind that are never taught."""
        return [Wording(text, gist) for gist, text in (h.split("|", 1) for h in self._spec[kind]["held"])]

    def shipped(self, kind: str) -> Wording | None:
        """The shipped principle of a main kind, if it is there."""
        entry = self._core.get(kind)
        if entry is None:
            return None
        gist = self._spec[kind]["groups"][0]["gist"]
        return Wording(entry["principle"], gist, entry.get("critique_request"), entry.get("revision_request"))

    def rule(self, rng: random.Random, kind: str, params: Mapping[str, str]) -> RuleWording:
        """`params` must hold the rule's own parameters and what was observed in the reply (see `cai.lab.observations`)."""
        spec = self._spec["rules"][kind]
        principle = tidy(expand(rng.choice(spec["forms"]), params, rng))
        gist, kept, seen, fault = (_filled(spec[k], params) for k in ("gist", "kept", "seen", "fault"))
        return RuleWording(Wording(principle, gist), kept, seen, fault)

    def unrelated(self, rng: random.Random, context: str) -> Unrelated:
        """A principle that has nothing to do with `context` (prompt and reply together)."""
        for _ in range(100):
            if self._foreign and rng.random() < 0.2:
                entry, spec = rng.choice(self._foreign)
                request = entry.get("critique_request")
                wording = Wording(entry["principle"], spec["gist"], request, entry.get("revision_request"))
            else:
                spec = rng.choice(self._spec["other"])
                wording = Wording(rng.choice(spec["forms"]), spec["gist"])
            if not spec["unless"] or not re.search(spec["unless"], context, re.I):
                return Unrelated(wording, spec["kept"])
        raise AssertionError("every unrelated principle might touch this reply")


def tidy(text: str) -> str:
    """Repairs what joining alternatives leaves: double spaces, spaces before stops, a missing full stop, lower case."""
    text = re.sub(r"\s+([,.;:])", r"\1", re.sub(r"\s+", " ", text)).strip()
    text = re.sub(r"([.,;:])\1+", r"\1", text)
    return capital(text if text[-1] in '.?!"' else text + ".")


def _filled(template: str, params: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: params.get(m[1], ""), template)


def read_shipped(folder: Path | None = None) -> dict[str, dict[str, str]]:
    """The shipped principles by id: principle, critique_request, revision_request. Empty where the files are not there."""
    root = Path(str(resources.files("constitution")))
    folders = [folder] if folder else [root / "shipped", root.parent / "principles"]
    found: dict[str, dict[str, str]] = {}
    for place in folders:
        for path in sorted(place.glob("*.yaml")):
            content = cast("dict[str, Any]", yaml.safe_load(path.read_text(encoding="utf-8")))
            for entry in cast("list[dict[str, Any]]", content.get("principles", [])):
                keys = ("principle", "critique_request", "revision_request")
                found.setdefault(str(entry["id"]), {k: str(entry[k]) for k in keys if k in entry})
    return found
