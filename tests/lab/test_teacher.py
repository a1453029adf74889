"""Lessons: their verdicts are those of exact truth, good and bad replies come in pairs, and the stream is reproducible."""

from __future__ import annotations

from collections import Counter

import pytest

from cai.lab.checker import check, courtesy
from cai.lab.critiques import OWN_KIND
from cai.lab.drafts import Draft
from cai.lab.replies import reply
from cai.lab.rules import HELD_OUT, KINDS
from cai.lab.teacher import Lesson, Pool, draft_pool, lesson, lessons
from cai.lab.world import FAMILIES, Split, World, seeded
from constitution.rendering import FAULT, NOTHING_TO_CHANGE, read_critique

WORLD = World.load()
COUNT = 160


def drafts(split: Split) -> list[Draft]:
    """Replies that stand in for those of a model: what matters here is that they come from outside the lessons."""
    found: list[Draft] = []
    for family in FAMILIES:
        for number in range(12):
            rng = seeded(f"{split}/{family}/{number}")
            item = WORLD.item(rng, family, split)
            text = reply(WORLD, rng, item, "good" if number % 2 else "bad")
            found.append(Draft(item, f"{text} Some people say so.", 1.0))
    return found


@pytest.fixture(scope="module")
def pool() -> Pool:
    return draft_pool(drafts("train"), "train")


@pytest.fixture(scope="module")
def taught(pool: Pool) -> list[Lesson]:
    return [lesson(WORLD, pool, 0, index) for index in range(COUNT)]


def test_verdict_stands_where_the_branch_says(taught: list[Lesson]) -> None:
    for one in taught:
        for branch in one.branches:
            verdict = branch.critique[branch.verdict_start :]
            assert verdict.startswith((NOTHING_TO_CHANGE, FAULT))
            reading = read_critique(branch.critique)
            assert reading.ground == branch.critique[: branch.verdict_start].strip()
            assert reading.nothing_to_change == verdict.startswith(NOTHING_TO_CHANGE) == (branch.revision is None)


def test_own_branch_has_the_checkers_verdict_and_a_revision_that_passes_it(taught: list[Lesson]) -> None:
    seen = 0
    for one in taught:
        text = one.messages[-1].content
        for branch in one.branches:
            if branch.kind == OWN_KIND[one.item.family]:
                seen += 1
                assert (branch.revision is None) == (check(one.item, text).label == "good")
                if branch.revision is not None:
                    assert check(one.item, branch.revision).label == "good"
    assert seen >= COUNT


def test_tone_branch_finds_what_is_rude_or_flattering_and_nothing_else(taught: list[Lesson]) -> None:
    found: set[bool] = set()
    for one in taught:
        rude = courtesy(one.messages[-1].content).label == "bad"
        for branch in one.branches:
            if branch.kind == "courtesy" and one.item.family != "courtesy":
                found.add(rude)
                assert (branch.revision is not None) == rude
                assert branch.revision is None or courtesy(branch.revision).label == "good"
    assert found == {True, False}


def test_unrelated_principles_change_nothing(taught: list[Lesson]) -> None:
    unrelated = [branch for one in taught for branch in one.branches if branch.kind == "other"]
    assert len(unrelated) >= COUNT // 4
    assert all(branch.revision is None for branch in unrelated)


def test_neighbours_are_one_good_and_one_bad_reply_of_the_same_family(taught: list[Lesson]) -> None:
    for one, other in zip(taught[::2], taught[1::2], strict=True):
        assert one.item.family == other.item.family
        labels = {check(each.item, each.messages[-1].content).label for each in (one, other)}
        assert labels == {"good", "bad"}


def test_verdicts_of_main_kinds_are_balanced_so_that_no_prior_pays(taught: list[Lesson]) -> None:
    own = [branch.revision is None for one in taught for branch in one.branches if branch.kind == OWN_KIND[one.item.family]]
    assert 0.4 <= sum(own) / len(own) <= 0.6


def test_lessons_depend_on_seed_index_and_drafts_only(pool: Pool) -> None:
    stream = lessons(WORLD, drafts("train"), 7)
    straight = [next(stream) for _ in range(6)]
    assert straight == [lesson(WORLD, pool, 7, index) for index in range(6)]
    assert lesson(WORLD, pool, 7, 5) == straight[5]
    assert lesson(WORLD, pool, 8, 5) != straight[5]


def test_drafts_of_the_other_split_and_broken_ones_are_left_out() -> None:
    (some,) = drafts("train")[:1]
    mixed = [*drafts("test"), Draft(some.item, "no no no no no no no no", 1.0)]
    assert draft_pool(mixed, "train") == {}


def test_lessons_use_real_drafts_where_there_are_any(taught: list[Lesson]) -> None:
    real = sum("Some people say so" in one.messages[-1].content for one in taught)
    assert 0.3 <= real / COUNT <= 0.8


def test_every_taught_kind_of_rule_is_both_kept_and_broken_and_weighted_kinds_come_more_often(pool: Pool) -> None:
    kinds = [(branch.kind, branch.revision is None) for n in range(1200) for branch in lesson(WORLD, pool, 3, n).branches]
    rules = Counter(kind.removeprefix("rule:") for kind, _ in kinds if kind.startswith("rule:"))
    assert rules.keys() == KINDS.keys() - HELD_OUT
    for kind in rules:
        kept, faulty = kinds.count((f"rule:{kind}", True)), kinds.count((f"rule:{kind}", False))
        assert min(kept, faulty) >= 3
        assert kept + faulty == rules[kind]
    weighted = {"no_exclamation", "max_words", "signature", "postscript", "last_word", "opening"}
    assert {kind for kind, _ in rules.most_common(len(weighted))} == weighted
