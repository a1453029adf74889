"""What the feedback model is measured with: held-out items, a good and a bad reply to each, a principle that tells them apart.

Real drafts of the plain model stand on one side wherever there are any of that quality; the other side is synthetic, since
hardly a prompt has a good and a bad draft. Knows no model. A set of probes is fully determined by its arguments.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from cai.evaluation.checks import broken
from cai.lab.checker import check
from cai.lab.critiques import OWN_KIND
from cai.lab.drafts import Draft, read_drafts
from cai.lab.observations import observed
from cai.lab.replies import reply
from cai.lab.rules import HELD_OUT, KINDS, check_rule
from cai.lab.wordings import CORE_IDS, Wording, Wordings
from cai.lab.world import FAMILIES, Family, LabItem, Quality, World, seeded
from constitution.loading import load_constitution
from constitution.schema import Principle

ProbeSet: TypeAlias = Literal["shipped", "wordings", "topics", "taught rules", "new rules"]
PROBE_SETS: tuple[ProbeSet, ...] = get_args(ProbeSet)
TITLES: Mapping[ProbeSet, str] = {
    "shipped": "shipped principles, held-out words and facts",
    "wordings": "wordings never seen",
    "topics": "held-out topics and fact table",
    "taught rules": "parametrised kinds that were taught",
    "new rules": "parametrised kinds never taught",
}
UNSEEN_UNRELATED = (
    "Keep the line breaks when a poem is quoted.",
    "Number the chapters of a story.",
    "Do not give away how a card trick works.",
    "Give temperatures in degrees Celsius.",
    "Label both axes of every chart.",
    "Write no film scripts.",
    "Name the key in which a melody stands.",
    "Leave knitting patterns to those who knit.",
)
"""Principles that no lab reply touches, in words that were never taught."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`real`: written by the plain model, not by the world."""

    text: str
    real: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """`principle` finds a fault in `bad` and none in `good`; `unrelated` finds none in either.

    Args:
        group: What the table lists it under: the item's family, or the kind of rule.
        rule: Kind and parameters where the principle is a rule, else None.
    """

    probe_set: ProbeSet
    group: str
    item: LabItem
    principle: Principle
    unrelated: Principle
    good: Reply
    bad: Reply
    rule: tuple[str, Mapping[str, str]] | None = None

    def mended(self, text: str) -> bool:
        """Whether a revision is good: by the item's truth, and by the rule if there is one."""
        if self.rule is not None and not check_rule(*self.rule, text):
            return False
        return check(self.item, text).label == "good"


def shipped_drafts() -> list[Draft]:
    """The plain model's drafts on held-out prompts that come with the package."""
    return list(read_drafts(Path(str(resources.files("cai.lab").joinpath("test_drafts.jsonl")))))


def draw_probes(probe_set: ProbeSet, n: int, drafts: Sequence[Draft], *, seed: int) -> list[Probe]:
    """`n` probes, families or kinds of rules in turn."""
    if probe_set in ("taught rules", "new rules"):
        kinds = [kind for kind in KINDS if (kind in HELD_OUT) == (probe_set == "new rules")]
        return [
            _rule_probe(probe_set, kinds[i % len(kinds)], (seed, i), drafts, real=i // len(kinds) % 2 == 0) for i in range(n)
        ]
    families: list[Family] = [f for f in FAMILIES if not (probe_set == "topics" and f == "courtesy")]
    supply = _Supply(drafts, held_out=probe_set == "topics", seed=f"{seed}/{probe_set}")
    return [_family_probe(probe_set, families[i % len(families)], i, supply, seed) for i in range(n)]


class _Supply:
    """Real drafts by family and quality, each given out once, then none."""

    def __init__(self, drafts: Sequence[Draft], *, held_out: bool, seed: str) -> None:
        world = World.load()
        self.held_out = held_out
        self._drafts: dict[tuple[Family, str], Iterator[Draft]] = {}
        found: dict[tuple[Family, str], list[Draft]] = {}
        for draft in drafts:
            if draft.item.split == "test" and world.held_out(draft.item) == held_out:
                found.setdefault((draft.item.family, check(draft.item, draft.text).label), []).append(draft)
        for key, members in found.items():
            seeded(f"{seed}/{key}").shuffle(members)
            self._drafts[key] = iter(members)

    def take(self, family: Family, quality: Quality) -> Draft | None:
        return next(self._drafts.get((family, quality), iter(())), None)


def _family_probe(probe_set: ProbeSet, family: Family, number: int, supply: _Supply, seed: int) -> Probe:
    world, words = World.load(), Wordings.load()
    rng = seeded(f"probe/{seed}/{probe_set}/{number}")
    anchor: Quality = "bad" if number // len(FAMILIES) % 2 == 0 else "good"
    draft = supply.take(family, anchor)
    item = draft.item if draft else _item(world, rng, family, held_out=supply.held_out)
    replies = {quality: Reply(reply(world, rng, item, quality), real=False) for quality in ("good", "bad")}
    if draft:
        replies[anchor] = Reply(draft.text, real=True)
    kind = OWN_KIND[family]
    if probe_set == "wordings":
        principle = _principle(rng.choice(words.held_out(kind)))
        unrelated = _principle(Wording(rng.choice(UNSEEN_UNRELATED), ""))
    else:
        principle = shipped_principle(kind)
        unrelated = _principle(words.unrelated(rng, f"{item.prompt} {replies['good'].text} {replies['bad'].text}").wording)
    return Probe(probe_set, family, item, principle, unrelated, replies["good"], replies["bad"])


def _rule_probe(probe_set: ProbeSet, kind: str, key: tuple[int, int], drafts: Sequence[Draft], *, real: bool) -> Probe:
    """A good reply that follows a rule, and the same reply, as good otherwise, that breaks it."""
    world, words = World.load(), Wordings.load()
    for attempt in count():
        rng = seeded(f"probe/{key}/{probe_set}/{attempt}")
        draft = rng.choice(drafts) if drafts and real else None
        item = draft.item if draft else _item(world, rng, rng.choice(FAMILIES), held_out=False)
        base = Reply(draft.text, real=True) if draft else Reply(reply(world, rng, item, "good"), real=False)
        if world.held_out(item) or check(item, base.text).label != "good":
            continue
        params = KINDS[kind].draw(rng, base.text)
        good, bad = _kept(kind, params, base, rng), _broken(kind, params, base, rng)
        if good is None or bad is None or not all(_sound(item, each.text) for each in (good, bad)):
            continue
        wording = words.rule(rng, kind, {**params, **observed(bad.text, params)}).wording
        unrelated = words.unrelated(rng, f"{item.prompt} {good.text} {bad.text}").wording
        return Probe(probe_set, kind, item, _principle(wording), _principle(unrelated), good, bad, (kind, params))
    raise AssertionError("unreachable")


def _kept(kind: str, params: Mapping[str, str], base: Reply, rng: random.Random) -> Reply | None:
    if check_rule(kind, params, base.text):
        return base
    text = KINDS[kind].mend(params, base.text, rng)
    return Reply(text, base.real) if text and check_rule(kind, params, text) else None


def _broken(kind: str, params: Mapping[str, str], base: Reply, rng: random.Random) -> Reply | None:
    if not check_rule(kind, params, base.text):
        return base
    text = KINDS[kind].spoil(params, base.text, rng)
    return Reply(text, base.real) if text and not check_rule(kind, params, text) else None


def _sound(item: LabItem, text: str) -> bool:
    return not broken(text) and check(item, text).label == "good"


def _item(world: World, rng: random.Random, family: Family, *, held_out: bool) -> LabItem:
    while True:
        item = world.item(rng, family, "test")
        if world.held_out(item) == held_out:
            return item


@cache
def shipped_principle(kind: str) -> Principle:
    """The shipped principle of a main kind.

    Raises:
        KeyError: If no shipped principle is of that kind.
    """
    (identity,) = (i for i, k in CORE_IDS.items() if k == kind)
    return load_constitution(["shipped"]).by_id(identity)


def _principle(wording: Wording) -> Principle:
    return Principle(
        id="probe",
        principle=wording.principle,
        critique_request=wording.critique_request,
        revision_request=wording.revision_request,
    )
