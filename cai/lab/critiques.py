"""The exact critique and revision of one reply under one principle, made from the truth of its item.

A critique reads "It asks {what}. {the deciding facts} Nothing to change." or "… Fault: {what is wrong; what to do}." The facts
come before the verdict, because a small model recalls them well when it writes them down and cannot compare them silently.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cai.evaluation.checks import broken
from cai.lab.checker import check, courtesy, refuses, remarks, values_in
from cai.lab.observations import observed
from cai.lab.replies import reply
from cai.lab.rules import KINDS, check_rule, parts, word_count
from cai.lab.wordings import Unrelated, Wording, Wordings
from cai.lab.world import LabItem, Split, World, capital
from constitution.rendering import FAULT, NOTHING_TO_CHANGE

OWN_KIND: Mapping[str, str] = {
    "wrong": "truth",
    "right": "truth",
    "fact": "calibration",
    "unsure": "calibration",
    "evidence": "calibration",
    "harm": "harm",
    "benign": "helpful",
    "courtesy": "courtesy",
}
"""The main kind of principle whose verdict the item's truth decides."""
_LONGEST_REVISION = 32
"""Words a revision keeps at most of a long draft."""
_REPLIES_TRIED = 8
"""Good replies that are tried in turn, where a draft cannot be mended."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One principle applied to a reply.

    Args:
        kind: "truth", "calibration", "harm", "helpful", "courtesy", "rule:<kind>" or "other".
        critique_request, revision_request: None for the default texts.
        verdict_start: Character offset in `critique` of "Nothing to change." or "Fault:".
        revision: None when nothing is to change.
    """

    kind: str
    principle: str
    critique_request: str | None
    revision_request: str | None
    critique: str
    verdict_start: int
    revision: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What decides: `facts` as one sentence or two, and `fault` ("" when there is none)."""

    facts: str
    fault: str = ""


def own_branch(world: World, words: Wordings, rng: random.Random, item: LabItem, text: str, split: Split) -> Branch:
    """The principle of the item's own kind: its verdict is that of the checker."""
    kind = OWN_KIND[item.family]
    finding = own_finding(item, text)
    revision = None
    if finding.fault:
        revision = mended_tone(world, rng, item, text) if kind == "courtesy" else reply(world, rng, item, "good")
    return _branch(kind, words.main(rng, kind, split), finding, revision)


def own_finding(item: LabItem, text: str) -> Finding:
    """What the truth of the item says about a reply that is not broken."""
    if item.family == "courtesy":
        return tone_finding(text)
    good = check(item, text).label == "good"
    if item.family in ("wrong", "right"):
        return _claim_finding(item, text, good=good)
    if item.family == "fact":
        return _fact_finding(item, text, good=good)
    if item.family in ("unsure", "evidence"):
        return _topic_finding(item, good=good)
    return _act_finding(item, text, good=good)


def _fact_finding(item: LabItem, text: str, *, good: bool) -> Finding:
    truth = capital(item.truth)
    if good:
        return Finding(f"{truth}, and the reply says so.")
    return Finding(f"{truth}, but the reply {_said(item, text)}.", f"the known fact is missing; give {_value(item)}.")


def _topic_finding(item: LabItem, *, good: bool) -> Finding:
    link = "and" if good else "but"
    if item.family == "unsure":
        known = f"Nobody can know {item.subject}, {link} the reply {'admits it' if good else 'does not admit it'}."
        return Finding(known, "" if good else "it is too sure; say that nobody can know.")
    told = f"The report says that {item.truth}, {link} the reply {'says so' if good else 'does not say so'}."
    return Finding(told, "" if good else "it leaves the report unused; say what it says.")


def _act_finding(item: LabItem, text: str, *, good: bool) -> Finding:
    link = "and" if good else "but"
    if item.family == "harm":
        does = "refuses" if good else ("helps all the same" if refuses(text) else "does not refuse")
        fault = "it does not decline; refuse and offer something better."
        return Finding(f"{capital(item.subject)} is harmful, {link} the reply {does}.", "" if good else fault)
    does = "does not refuse" if good else ("refuses" if refuses(text) else "does not help")
    fault = "it refuses without need; help." if refuses(text) else "it is no help; give useful help."
    return Finding(f"{capital(item.subject)} is harmless, {link} the reply {does}.", "" if good else fault)


def _value(item: LabItem) -> str:
    return "none" if item.value == "no" else item.value


def _said(item: LabItem, text: str) -> str:
    values = values_in(item, text)
    return f"says {values[0]}" if values and values[0] != item.value else "does not say so"


def _claim_finding(item: LabItem, text: str, *, good: bool) -> Finding:
    values = values_in(item, text)
    truth = capital(item.truth)
    if good:
        return Finding(
            f"{truth}, and the reply says {item.value}." if item.value in values else f"{truth}, and the reply {_side(item)}."
        )
    if item.family == "right":
        does = (
            f"says {values[0]}"
            if values and item.value not in values
            else ("denies it" if "denies" in check(item, text).why else "does not say so")
        )
        fault = "it does not confirm the claim" if does == "does not say so" else "it denies a true claim"
        return Finding(f"{truth}, but the reply {does}.", f"{fault}; confirm {_value(item)}.")
    why = check(item, text).why
    if item.claimed in values:
        does, fault = f"says {item.claimed}", "it accepts a false claim"
    elif "agrees" in why:
        does, fault = f"agrees with {item.claimed}", "it accepts a false claim"
    elif values and item.value not in values:
        does, fault = f"says {values[0]}", "it gives a wrong fact"
    else:
        does, fault = "does not say so", "it does not correct the claim"
    return Finding(f"{truth}, but the reply {does}.", f"{fault}; give {_value(item)}.")


def _side(item: LabItem) -> str:
    return "agrees" if item.family == "right" else f"denies {item.claimed}"


def tone_finding(text: str) -> Finding:
    """Rude and flattering words in any reply."""
    verdict = courtesy(text)
    if verdict.label == "good":
        return Finding("The reply neither insults nor flatters.")
    word = verdict.why.partition(": ")[2]
    does, fault = ("is rude", "it insults the user") if verdict.why.startswith("rude") else ("flatters", "it flatters the user")
    return Finding(f'The reply {does}: "{word}".', f"{fault}; leave that out.")


def tone_branch(world: World, words: Wordings, rng: random.Random, item: LabItem, text: str, split: Split) -> Branch:
    finding = tone_finding(text)
    revision = mended_tone(world, rng, item, text) if finding.fault else None
    return _branch("courtesy", words.main(rng, "courtesy", split), finding, revision)


def crossing_branch(words: Wordings, rng: random.Random, item: LabItem, text: str, split: Split) -> Branch | None:
    """A main kind that is not the item's own, where the truth decides that nothing is to change; None where it does not."""
    options: list[tuple[str, str]] = []
    claims, requests = item.family in ("wrong", "right"), item.family in ("harm", "benign")
    if item.family == "benign":
        options.append(("harm", f"{capital(item.subject)} is harmless, so help is fine."))
    elif item.family != "harm":
        options.append(("harm", "The user plans nothing harmful."))
    if item.family == "harm":
        options.append(("helpful", f"{capital(item.subject)} is harmful, so no help is owed."))
    elif item.family != "benign" and not refuses(text):
        options.append(("helpful", "The reply refuses nothing."))
    if requests or item.family in ("unsure", "courtesy"):
        options.append(("truth", "The user claims nothing false."))
    if requests or item.family == "courtesy":
        options.append(("calibration", "The user asks nothing unknowable."))
    if claims and check(item, text).label == "good" and item.value in values_in(item, text):
        options.append(("calibration", f"{capital(item.truth)}, and the reply says so."))
    if not options:
        return None
    kind, facts = rng.choice(options)
    return _branch(kind, words.main(rng, kind, split), Finding(facts), None)


def unrelated_branch(words: Wordings, rng: random.Random, item: LabItem, text: str) -> Branch:
    other: Unrelated = words.unrelated(rng, f"{item.prompt} {text}")
    return _branch("other", other.wording, Finding(other.kept), None)


def rule_branch(
    world: World, words: Wordings, rng: random.Random, item: LabItem, text: str, kind: str, params: Mapping[str, str]
) -> Branch | None:
    """A parametrised principle; None where no revision keeps both the rule and the item's own good."""
    kept = check_rule(kind, params, text)
    revision = None if kept else mended_rule(world, rng, item, text, kind, params)
    if not kept and revision is None:
        return None
    said = words.rule(rng, kind, {**params, **observed(text, params)})
    finding = Finding(said.kept) if kept else Finding(said.seen, said.fault)
    return _branch(f"rule:{kind}", said.wording, finding, revision)


def mended_tone(world: World, rng: random.Random, item: LabItem, text: str) -> str:
    """The reply without its remarks about the user, if what is left is good; else a good reply."""
    for remark in remarks(text):
        text = text.replace(remark, "").strip()
    rest = whole(text)
    good = bool(rest) and check(item, rest).label == "good" and courtesy(rest).label == "good"
    return rest if good else reply_polite(world, rng, item)


def reply_polite(world: World, rng: random.Random, item: LabItem) -> str:
    while True:
        text = reply(world, rng, item, "good")
        if courtesy(text).label == "good":
            return text


def mended_rule(world: World, rng: random.Random, item: LabItem, text: str, kind: str, params: Mapping[str, str]) -> str | None:
    """A revision that follows the rule and is good: the draft mended, or else a good reply mended."""
    for attempt in range(1 + _REPLIES_TRIED):
        if attempt == 0 and check(item, text).label != "good":
            continue
        base = reply_polite(world, rng, item) if attempt else whole(text)
        fresh = base if not base or check_rule(kind, params, base) else KINDS[kind].mend(params, base, rng)
        if fresh and check_rule(kind, params, fresh) and _sound(item, fresh):
            return fresh
    return None


def _sound(item: LabItem, text: str) -> bool:
    return not broken(text) and check(item, text).label == "good" and courtesy(text).label == "good"


def whole(text: str) -> str:
    """The finished sentences of a draft, as many as a short reply may have; "" when none is finished."""
    kept: list[str] = []
    for part in parts(re.sub(r"^\s*(?:\d+[.)]|[-*•])\s+", "", text, flags=re.M)):
        if part[-1] not in '.!?"' or word_count(" ".join([*kept, part])) > _LONGEST_REVISION:
            break
        kept.append(part)
    return " ".join(kept)


def _branch(kind: str, wording: Wording, finding: Finding, revision: str | None) -> Branch:
    ground = f"It asks {wording.gist}. {finding.facts} "
    verdict = f"{FAULT} {finding.fault}" if finding.fault else NOTHING_TO_CHANGE
    return Branch(
        kind,
        wording.principle,
        wording.critique_request,
        wording.revision_request,
        ground + verdict,
        len(ground),
        revision if finding.fault else None,
    )
