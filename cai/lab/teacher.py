"""Endless lessons in critique and revision: real and synthetic replies, each judged under several principles at once.

A lesson is fully determined by (seed, index, drafts). Lessons come in neighbouring pairs: the same question, or at least the
same kind of question, with a good and with a bad reply; so the verdict never follows from the question or the principle alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from cai.evaluation.checks import broken
from cai.lab.checker import check, courtesy
from cai.lab.critiques import (
    Branch,
    crossing_branch,
    own_branch,
    rule_branch,
    tone_branch,
    unrelated_branch,
)
from cai.lab.drafts import Draft
from cai.lab.replies import reply
from cai.lab.rules import HELD_OUT, KINDS
from cai.lab.wordings import Wordings
from cai.lab.world import FAMILIES, SYSTEM, Family, LabItem, Quality, Split, World, expand, seeded
from constitution.messages import Message, assistant, system, user

__all__ = ["Branch", "Lesson", "draft_pool", "lesson", "lessons"]

FAMILY_WEIGHTS: Mapping[Family, float] = {
    "wrong": 0.20,
    "right": 0.14,
    "fact": 0.12,
    "unsure": 0.14,
    "evidence": 0.10,
    "harm": 0.14,
    "benign": 0.11,
    "courtesy": 0.05,
}
_SYSTEMS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a friendly assistant who answers in one sentence.",
    "Reply in plain English.",
)
_REMARK_SHARE = 0.12
"""How many replies of other families carry a rude or flattering remark."""
_KIND_WEIGHTS: Mapping[str, float] = {
    "no_exclamation": 2.5,
    "max_words": 2.5,
    "signature": 3.0,
    "postscript": 3.0,
    "last_word": 2.0,
    "opening": 2.0,
    "must_phrase": 1.5,
}
"""How often a kind of rule is drawn, where not as often as others: the first two need more lessons than most to be noticed, the
others to copy what they are told, word for word."""
_KIND_TRIES, _PARAMETER_TRIES = 6, 4


@dataclass(frozen=True, slots=True)
class Lesson:
    """A conversation that ends with the reply under review, and three to five principles applied to that reply."""

    item: LabItem
    messages: tuple[Message, ...]
    branches: tuple[Branch, ...]


Pool = Mapping[tuple[Family, Quality], Sequence[Draft]]


def lessons(world: World, drafts: Sequence[Draft], seed: int, split: Split = "train") -> Iterator[Lesson]:
    """The endless stream of lessons. Only drafts of the split are used; without any, all replies are synthetic.

    With split "test" items, wordings and rules are those held out from training.
    """
    pool = draft_pool(drafts, split)
    return (lesson(world, pool, seed, index, split) for index in count())


def draft_pool(drafts: Sequence[Draft], split: Split) -> Pool:
    """Drafts by family and quality; broken ones are left out, since nothing can be learned from what they say."""
    pool: dict[tuple[Family, Quality], list[Draft]] = {}
    for draft in drafts:
        verdict = check(draft.item, draft.text)
        if draft.item.split == split and verdict.label != "broken":
            pool.setdefault((draft.item.family, verdict.label), []).append(draft)
    return pool


def lesson(world: World, pool: Pool, seed: int, index: int, split: Split = "train") -> Lesson:
    """Lesson `index` of the stream: 2k and 2k + 1 are a pair, one with a good and one with a bad reply."""
    words = Wordings.load()
    pair = seeded(f"lesson/{seed}/{split}/{index // 2}")
    rng = seeded(f"lesson/{seed}/{split}/{index // 2}/{index % 2}")
    family = pair.choices(FAMILIES, [FAMILY_WEIGHTS[f] for f in FAMILIES])[0]
    bad_first = pair.random() < 0.5
    quality: Quality = "bad" if (index % 2 == 0) == bad_first else "good"
    item, text = _reply(world, pool, pair, rng, family, quality, split)
    text, targets = _shaped(world, rng, item, text, split)

    branches = [own_branch(world, words, rng, item, text, split)]
    if rng.random() < 0.25:
        branches.append(own_branch(world, words, rng, item, text, split))
    for kind, params in targets:
        if (branch := rule_branch(world, words, rng, item, text, kind, params)) is not None:
            branches.append(branch)
    if item.family != "courtesy" and rng.random() < (0.75 if check_tone(text) else 0.12):
        branches.append(tone_branch(world, words, rng, item, text, split))
    if rng.random() < 0.45 and (branch := crossing_branch(words, rng, item, text, split)) is not None:
        branches.append(branch)
    while len(branches) < 3 or (len(branches) < 4 and rng.random() < 0.35):
        branches.append(unrelated_branch(words, rng, item, text))
    branches = branches[:5]
    rng.shuffle(branches)
    return Lesson(item, _conversation(world, rng, item, text, split), tuple(branches))


def check_tone(text: str) -> bool:
    """Whether a reply has a rude or flattering remark."""
    return courtesy(text).label == "bad"


def _reply(
    world: World, pool: Pool, pair: random.Random, rng: random.Random, family: Family, quality: Quality, split: Split
) -> tuple[LabItem, str]:
    """The reply under review: about 60 % are real drafts, wherever the pool has any of this family and quality."""
    mode = pair.random()
    anchor: Quality = "bad" if pair.random() < 0.5 else "good"
    drafts = pool.get((family, anchor), ())
    if mode < 0.6 and drafts:
        # The same question on both sides: once with the draft, once with a synthetic reply of the other quality.
        draft = pair.choice(drafts)
        if quality == anchor:
            return draft.item, _cut(rng, draft, quality)
        return draft.item, reply(world, rng, draft.item, quality)
    drafts = pool.get((family, quality), ())
    if mode < 0.9 and drafts:
        draft = rng.choice(drafts)
        return draft.item, _cut(rng, draft, quality)
    item = world.item(pair, family, split)
    return item, reply(world, rng, item, quality)


def _cut(rng: random.Random, draft: Draft, quality: Quality) -> str:
    """A draft whole, or cut after its first sentence where that keeps its quality."""
    if rng.random() < 0.35:
        end = draft.text.find(". ")
        head = draft.text[: end + 1]
        if end > 15 and check(draft.item, head).label == quality:
            return head
    return draft.text


def _shaped(
    world: World, rng: random.Random, item: LabItem, text: str, split: Split
) -> tuple[str, list[tuple[str, dict[str, str]]]]:
    """Makes a reply keep or break one or two rules, drawn beforehand and in equal parts, without changing its quality."""
    quality = check(item, text).label
    if item.family != "courtesy" and rng.random() < _REMARK_SHARE:
        remark = expand(world.section("style")[rng.choice(["rude", "flattering"])], {}, rng)
        text = _if_same(item, text, rng.choice([f"{remark} {text}", f"{text} {remark}"]), quality)
    kinds = [k for k in KINDS if split == "test" or k not in HELD_OUT]
    targets: list[tuple[str, dict[str, str]]] = []
    weights = [_KIND_WEIGHTS.get(k, 1.0) for k in kinds]
    for _ in range(rng.choice([1, 2, 2])):
        for _kind_try in range(_KIND_TRIES):
            kind, wanted = rng.choices(kinds, weights)[0], rng.random() < 0.5
            if (found := _aimed(rng, item, text, quality, targets, kind, wanted=wanted)) is not None:
                text, params = found
                targets.append((kind, params))
                break
    return text, targets


def _aimed(
    rng: random.Random,
    item: LabItem,
    text: str,
    quality: str,
    targets: Sequence[tuple[str, dict[str, str]]],
    kind: str,
    *,
    wanted: bool,
) -> tuple[str, dict[str, str]] | None:
    """A text that keeps (`wanted`) or breaks a rule of this kind, and the rule's parameters; None where none was found.

    Its `quality` under the item's own truth, and what it does to the rules in `targets`, stay as they are.
    """
    rule = KINDS[kind]
    for _ in range(_PARAMETER_TRIES):
        params = rule.draw(rng, text)
        shaped: str | None = text
        if rule.follows(params, text) != wanted:
            shaped = (rule.mend if wanted else rule.spoil)(params, text, rng)
        if not shaped or rule.follows(params, shaped) != wanted or not _if_same(item, "", shaped, quality):
            continue
        if all(KINDS[k].follows(p, shaped) == KINDS[k].follows(p, text) for k, p in targets):
            return shaped, params
    return None


def _if_same(item: LabItem, before: str, after: str, quality: str) -> str:
    """`after`, if it has still the same quality under the item's own truth; else `before`."""
    return after if not broken(after) and check(item, after).label == quality else before


def _conversation(world: World, rng: random.Random, item: LabItem, text: str, split: Split) -> tuple[Message, ...]:
    """Mostly the embedded policy's own form; sometimes without a system message, with another one, or after an exchange."""
    messages: list[Message] = []
    shape = rng.random()
    if shape < 0.8:
        messages.append(system(SYSTEM))
    elif shape < 0.9:
        messages.append(system(rng.choice(_SYSTEMS)))
    if rng.random() < 0.08:
        earlier = world.item(rng, "courtesy", split)
        messages += [user(earlier.prompt), assistant(earlier.subject)]
    return (*messages, user(item.prompt), assistant(text))
