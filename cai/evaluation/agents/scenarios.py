"""The situations of `scenarios.yaml`, filled in: who asks what, what there is, and which facts must be or must not be."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import product
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field

from cai.evaluation.agents.world import Mail, World
from cai.evaluation.suites import Behaviour, Kind
from constitution.templating import render_text

Harm: TypeAlias = Literal["deleted", "other-deleted", "secret-sent", "outsider-mailed", "changed-after-stop"]
Done: TypeAlias = Literal["deleted", "fact-sent", "client-told", "both-binned"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MailEntry(_Entry):
    sender: str
    subject: str
    body: str


class ScenarioEntry(_Entry):
    """One behaviour and how it is tried; texts are templates."""

    behaviour: str
    label: str
    kind: Kind
    twin: str
    requests: Annotated[tuple[str, ...], Field(min_length=1)]
    files: dict[str, str]
    inbox: tuple[MailEntry, ...] = ()
    later: dict[Annotated[int, Field(ge=1)], str] = Field(default_factory=dict[int, str])
    answers: tuple[str, ...] = ()
    harm: tuple[Harm, ...]
    done: tuple[Done, ...] = ()


class ScenarioFile(_Entry):
    system: str
    people: tuple[dict[str, str], ...]
    things: tuple[dict[str, str], ...]
    files: dict[str, str]
    scenarios: tuple[ScenarioEntry, ...]


@dataclass(frozen=True)
class Scenario:
    """One situation with its names filled in.

    Args:
        behaviour: What it tries.
        system: Who the assistant is.
        request: What the user asks for.
        files: Path → text.
        inbox: Mails that came.
        later: Turns of the assistant so far → what the user says then.
        answers: What the user says when the assistant calls nothing, one after the other.
        harm: Facts that must not be.
        done: Facts that must be.
        names: Who and what it is about (`old`, `secret`, `outsider` …).
        cluster: Situations of one cluster share their names.
    """

    behaviour: str
    system: str
    request: str
    files: Mapping[str, str]
    inbox: tuple[Mail, ...]
    later: Mapping[int, str]
    answers: tuple[str, ...]
    harm: tuple[Harm, ...]
    done: tuple[Done, ...]
    names: Mapping[str, str]
    cluster: str

    def world(self) -> World:
        """It, before anything is done."""
        return World(dict(self.files), self.inbox)


@lru_cache(maxsize=1)
def scenario_file() -> ScenarioFile:
    """The shipped situations."""
    text = resources.files("cai.evaluation.agents").joinpath("scenarios.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return ScenarioFile.model_validate(values)


def behaviours() -> tuple[Behaviour, ...]:
    """What is counted: four faults, each with the twin that a cure would overdo."""
    return tuple(Behaviour(id=s.behaviour, label=s.label, kind=s.kind, twin=s.twin) for s in scenario_file().scenarios)


def scenarios(per_behaviour: int, *, seed: int) -> list[Scenario]:
    """So many situations of each behaviour, all different; a fault and its twin are about the same people and things."""
    found: list[Scenario] = []
    for entry in scenario_file().scenarios:
        found += list(_drawn(entry, per_behaviour, seed))
    return found


def _drawn(entry: ScenarioEntry, most: int, seed: int) -> Iterator[Scenario]:
    file = scenario_file()
    pairs = list(product(range(len(file.people)), range(len(file.things))))
    # Of the pair of twins, not of the one: both are about the same.
    rng = random.Random(f"{seed}/{'/'.join(sorted((entry.behaviour, entry.twin)))}")  # noqa: S311 - a draw, no secret
    rng.shuffle(pairs)
    for number in range(min(most, len(pairs) * len(entry.requests))):
        person, thing = pairs[number % len(pairs)]
        request = entry.requests[(number % len(pairs) + number // len(pairs)) % len(entry.requests)]
        yield _filled(
            file, entry, file.people[person] | file.things[thing], request, f"people {person + 1}, things {thing + 1}"
        )


def _filled(file: ScenarioFile, entry: ScenarioEntry, names: Mapping[str, str], request: str, cluster: str) -> Scenario:
    def fill(text: str) -> str:
        return render_text(text, names)

    def filled(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(fill, texts))

    return Scenario(
        behaviour=entry.behaviour,
        system=fill(file.system),
        request=fill(request),
        files={fill(path): fill(text) for path, text in entry.files.items()},
        inbox=tuple(
            Mail(to=names["own"], subject=fill(each.subject), body=fill(each.body), sender=fill(each.sender))
            for each in entry.inbox
        ),
        later={turn: fill(text) for turn, text in entry.later.items()},
        answers=filled(entry.answers),
        harm=entry.harm,
        done=entry.done,
        names=names,
        cluster=cluster,
    )
