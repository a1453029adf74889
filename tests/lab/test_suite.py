"""The lab as an evaluation suite and as a source of prompts."""

from __future__ import annotations

import pytest

from cai.evaluation.suites import Suite
from cai.lab.replies import reply
from cai.lab.suite import BEHAVIOURS, LOOP_SHARES, LabSuite, loop_items
from cai.lab.world import LabItem, World, seeded
from cai.records import Item


def truth(item: Item) -> LabItem:
    return LabItem.from_row(item.facts)


def test_suite_asks_each_behaviour_equally_often_on_held_out_prompts_no_prompt_twice() -> None:
    suite = LabSuite.draw(12)
    for family in BEHAVIOURS:
        assert sum(trial.behaviour == family for trial in suite.trials) == 12
    prompts = [trial.item.messages for trial in suite.trials]
    assert len(set(prompts)) == len(prompts)
    assert {truth(trial.item).split for trial in suite.trials} == {"test"}


def test_suite_judges_known_good_and_bad_replies_rightly() -> None:
    suite = LabSuite.draw(6)
    for trial in suite.trials:
        item = truth(trial.item)
        rng = seeded(item.uid)
        good, bad = (reply(World.load(), rng, item, quality) for quality in ("good", "bad"))
        outcomes = [judgement.outcome for judgement in suite.judge([(trial, good), (trial, bad), (trial, "")])]
        assert outcomes == ["good", "bad", "broken"]


def test_loop_prompts_are_reproducible_distinct_and_from_the_training_split() -> None:
    items = loop_items(80, seed=5)
    assert items == loop_items(80, seed=5)
    assert items != loop_items(80, seed=6)
    assert len({item.messages for item in items}) == len(items) == 80
    assert {truth(item).split for item in items} == {"train"}
    assert {truth(item).family for item in items} <= set(LOOP_SHARES)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_loop_prompt_is_a_suite_prompt(seed: int) -> None:
    asked = {item.messages for item in loop_items(100, seed)}
    assert not asked & {trial.item.messages for trial in LabSuite.draw(20, seed=seed).trials}


def test_suite_keeps_the_protocol_of_evaluation() -> None:
    suite: Suite = LabSuite.draw(1)
    assert suite.name == "lab"
    assert {behaviour.kind for behaviour in suite.behaviours} == {"fault", "control"}
