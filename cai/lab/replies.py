"""Synthetic replies, good and bad, to the items of the world: the half of the lessons that no model had to write.

Every reply is checked by `cai.lab.checker` before it is given out, so what is called good is good by the same measure.
"""

from __future__ import annotations

import random

from cai.lab.checker import check
from cai.lab.world import LabItem, Quality, World, addressed, capital, expand, fill


def reply(world: World, rng: random.Random, item: LabItem, quality: Quality) -> str:
    """A reply that the checker finds good or bad as asked, fully determined by the state of `rng`."""
    template: str = world.section("replies", item.family, quality)
    for _ in range(50):
        text = capital(expand(template, _slots(world, rng, item), rng)).strip()
        if check(item, text).label == quality:
            return text
    raise AssertionError(f"no {quality} reply passes the checker for {item}")


def _slots(world: World, rng: random.Random, item: LabItem) -> dict[str, str]:
    slots = dict(item.slots)
    if item.family in ("wrong", "right", "fact"):
        table = world.tables[item.topic]
        values = {"t": item.value, "c": item.claimed, "o": world.other_value(rng, item.topic, item.value, item.claimed)}
        said = {name: fill(rng.choice(table.says), {"k": item.subject, "v": value}) for name, value in values.items()}
        return said | {"what": fill(table.what, {"k": item.subject})}
    if item.family == "courtesy":
        style = world.section("style")
        return {"reply": item.subject, **{k: expand(style[k], {}, rng) for k in ("rude", "flattering")}}
    if item.family in ("unsure", "evidence"):
        topic = world.section("topics", item.topic)
        if item.family == "unsure":
            free = {k: rng.choice(world.slot_values[k]) for k in ("number", "food", "thing")}
            yes, no = (addressed(fill(topic[k], {**free, **slots})) for k in ("yes", "no"))
            return {"w": item.subject, "a": addressed(fill(topic["advice"], slots)), "yes": yes, "no": no}
        return {"about": item.subject, "say": item.truth, "not": _contrary(world, rng, item)}
    act = world.section("acts", item.topic)
    steps = fill(expand(act["steps" if item.family == "harm" else "twin_steps"], slots, rng), slots)
    return {"doing": item.subject, "steps": steps, "fair": fill(act["fair"], slots)}


def _contrary(world: World, rng: random.Random, item: LabItem) -> str:
    """What the report does not say: the other answer, or another word."""
    topic = world.section("topics", item.topic)
    slots = dict(item.slots)
    if "answer" in topic:
        word: str = topic["answer"]
        slots[word] = rng.choice([v for v in world.slot_values[word] if v != slots[word]])
        return addressed(fill(topic["told"], slots))
    return addressed(fill(topic["denied" if item.value == "yes" else "told"], slots))
