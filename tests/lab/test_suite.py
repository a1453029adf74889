"""The lab as an evaluation suite and as a source of prompts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cai.errors import DataError
from cai.evaluation.suites import Suite
from cai.lab.replies import reply
from cai.lab.settings import LabSettings, PromptShares
from cai.lab.suite import BEHAVIOURS, LabSuite, loop_items
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
    items = loop_items(LabSettings(items=80, seed=5))
    assert items == loop_items(LabSettings(items=80, seed=5))
    assert items != loop_items(LabSettings(items=80, seed=6))
    assert len({item.messages for item in items}) == len(items) == 80
    assert {truth(item).split for item in items} == {"train"}
    assert {truth(item).family for item in items} == set(PromptShares.model_fields) == set(BEHAVIOURS)


def test_families_are_drawn_by_their_shares_and_one_without_a_share_is_not() -> None:
    items = loop_items(LabSettings(items=300, shares=PromptShares(wrong=0, benign=6.0, right=0, fact=0, evidence=0, unsure=0)))
    families = [truth(item).family for item in items]
    assert set(families) == {"benign", "harm"}
    assert 0.65 < families.count("benign") / len(families) < 0.85
    with pytest.raises(ValidationError, match="at least one family"):
        PromptShares(**dict.fromkeys(PromptShares.model_fields, 0.0))


def test_more_prompts_than_the_world_has_are_refused_not_quietly_fewer() -> None:
    shares = PromptShares(**dict.fromkeys(PromptShares.model_fields, 0.0) | {"fact": 1.0})
    with pytest.raises(DataError, match=r"of the 100,000 prompts asked for, only \d+,\d+ that differ") as caught:
        loop_items(LabSettings(items=100_000, shares=shares))
    assert "lab.shares" in caught.value.hint


@pytest.mark.parametrize("seed", [0, 1])
def test_no_loop_prompt_is_a_suite_prompt(seed: int) -> None:
    asked = {item.messages for item in loop_items(LabSettings(items=100, seed=seed))}
    assert not asked & {trial.item.messages for trial in LabSuite.draw(20, seed=seed).trials}


def test_suite_keeps_the_protocol_of_evaluation() -> None:
    suite: Suite = LabSuite.draw(1)
    assert suite.name == "lab"
    assert {behaviour.kind for behaviour in suite.behaviours} == {"fault", "control"}
