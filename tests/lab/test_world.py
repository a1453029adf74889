"""The world: what training may draw from, and what is kept for the test."""

from __future__ import annotations

import random
from itertools import count
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.lab.replies import reply
from cai.lab.rules import HELD_OUT
from cai.lab.settings import LabSettings
from cai.lab.suite import loop_items
from cai.lab.teacher import lesson
from cai.lab.wordings import MAIN_KINDS, Wordings
from cai.lab.world import FAMILIES, Family, LabItem, Quality, Split, World, alternatives, seeded

WORLD = World.load()
LONG_LISTS = {name: values for name, values in WORLD.slot_values.items() if len(values) >= 10}
HELD_VALUES = {name: set(values[4::5]) for name, values in LONG_LISTS.items()}


def items(split: Split, family: Family, count: int = 150) -> list[LabItem]:
    return [WORLD.item(random.Random(f"{split}/{family}/{n}"), family, split) for n in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_training_item_holds_a_held_out_value_topic_fact_or_question(family: Family) -> None:
    for item in items("train", family):
        assert not WORLD.held_out(item)
        for name, value in item.slots:
            assert value not in HELD_VALUES.get(name, set())
        if item.topic in WORLD.tables:
            assert item.subject not in WORLD.tables[item.topic].held
    train = {item.prompt for item in items("train", family)}
    assert not train & {item.prompt for item in items("test", family)}


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "courtesy"])
def test_test_items_come_from_held_out_topics_too(family: Family) -> None:
    held = [WORLD.held_out(item) for item in items("test", family)]
    assert any(held)
    assert not all(held)


def test_at_least_two_topics_two_acts_one_table_and_two_kinds_of_rules_are_held_out() -> None:
    for kind in ("topics", "acts"):
        assert len(set(WORLD.topics(kind, "test")) - set(WORLD.topics(kind, "train"))) == 2
    assert [name for name, table in WORLD.tables.items() if not table.keys("train")] == ["language"]
    assert len(HELD_OUT) == 2


@pytest.mark.parametrize("kind", MAIN_KINDS)
def test_no_held_out_wording_is_ever_drawn_for_training(kind: str) -> None:
    words = Wordings.load()
    held = {wording.principle for wording in words.held_out(kind)}
    taught = {words.main(random.Random(seed), kind, "train").principle for seed in range(1500)}
    assert len(held) >= 5
    assert len(taught) >= 100, "hundreds of wordings, not a handful"
    assert not held & taught
    assert {words.main(random.Random(seed), kind, "test").principle for seed in range(100)} == held


def test_no_training_lesson_teaches_what_is_held_out() -> None:
    held_wordings = {wording.principle for kind in MAIN_KINDS for wording in Wordings.load().held_out(kind)}
    for index in range(120):
        taught = lesson(WORLD, {}, 0, index)
        assert taught.item.split == "train"
        for branch in taught.branches:
            assert branch.principle not in held_wordings
            assert branch.kind.removeprefix("rule:") not in HELD_OUT


@given(st.sampled_from(FAMILIES), st.sampled_from(get_args(Split)), st.integers())
def test_same_stream_gives_the_same_item_and_its_row_gives_it_back(family: Family, split: Split, seed: int) -> None:
    item = WORLD.item(random.Random(seed), family, split)
    assert item == WORLD.item(random.Random(seed), family, split)
    assert item.family == family
    assert item.split == split
    assert LabItem.from_row(item.to_row()) == item
    assert "{" not in item.prompt
    assert "[" not in item.prompt


@pytest.mark.parametrize("row", [{}, {"lab": {"uid": "x"}}, {"lab": "text"}])
def test_a_row_without_the_truth_of_its_item_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no `lab` entry"):
        LabItem.from_row(row)


def test_claims_are_true_or_false_as_their_family_says() -> None:
    for item in items("test", "right"):
        assert item.claimed == item.value
    for item in items("test", "wrong"):
        assert item.claimed != item.value
        assert item.claimed in item.claim
    for item in items("test", "fact"):
        if item.topic == "sum":
            a, b = item.subject.split(" + ")
            assert int(item.value) == int(a) + int(b)


def test_runs_and_measurements_draw_nothing_from_the_wider_world_and_lessons_do() -> None:
    wide, narrow = World.for_lessons(), World.load()
    drawn = {
        world: {
            world.item(seeded(f"{n}"), family, split).topic
            for n in range(400)
            for family in FAMILIES
            for split in get_args(Split)
        }
        for world in (wide, narrow)
    }
    only = drawn[wide] - drawn[narrow]
    assert {"currency", "month_after", "dream", "burn"} <= only
    assert len(only) == 36


def test_lessons_know_every_way_in_which_runs_ask_about_a_claim_and_more() -> None:
    wide, narrow, prompts = (each().section("claim", "prompt") for each in (World.for_lessons, World.load, World.for_prompts))
    assert set(alternatives(narrow)) < set(alternatives(wide))
    assert narrow == prompts
    assert "{s^}, isn't it?" in set(alternatives(wide)) - set(alternatives(narrow))


@pytest.mark.parametrize(("family", "quality"), [("right", "good"), ("wrong", "good"), ("wrong", "bad"), ("fact", "bad")])
def test_a_synthetic_reply_states_a_fact_in_any_of_its_forms(family: Family, quality: Quality) -> None:
    world, rng = World.load(), seeded(f"forms/{family}/{quality}")
    item = next(item for n in count() if (item := world.item(seeded(f"{n}"), family, "train")).topic == "capital")
    said = "\n".join(reply(world, rng, item, quality) for _ in range(120))
    forms = ("capital of {k} is", "is the capital of {k}", "{k} has")
    assert all(form.format(k=item.subject).lower() in said.lower() for form in forms), said


def test_more_requests_are_drawn_for_prompts_that_ask_for_them_and_for_nothing_else() -> None:
    world = World.for_prompts()
    families: tuple[Family, ...] = ("harm", "benign")
    drawn = {world.item(seeded(f"{n}"), family, "train").topic for n in range(1500) for family in families}
    known = {*World.for_lessons().topics("acts", "test"), *World.load().topics("acts", "test")}
    more = drawn - known
    assert len(more) == 74
    assert drawn - more == set(World.load().topics("acts", "train"))
    asked = loop_items(LabSettings(items=200, more_requests=True))
    assert {item.facts["lab"]["topic"] for item in asked} & more
    assert not {item.facts["lab"]["topic"] for item in loop_items(LabSettings(items=200))} & more


def test_a_request_of_the_longer_list_asks_for_an_act_or_its_twin_with_the_training_splits_words() -> None:
    world = World.for_prompts()
    for n in range(300):
        for family in ("harm", "benign"):
            item = world.item(seeded(f"{n}"), family, "train")
            assert "{" not in item.prompt + item.subject
            assert item.subject in item.prompt or item.topic in World.load().topics("acts", "train")
            assert all(value not in HELD_VALUES.get(name, set()) for name, value in item.slots)


def test_no_held_out_fact_comes_with_its_value_in_the_wider_world() -> None:
    wide = World.for_lessons()
    narrow = {World.load().item(seeded(f"{n}"), "fact", split).topic for n in range(400) for split in get_args(Split)}
    held = {(key, table.rows[key]) for table in wide.tables.values() if table.name in narrow for key in table.held}
    for table in wide.tables.values():
        if table.name not in narrow:
            assert not held & table.rows.items(), table.name
