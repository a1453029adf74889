"""Score requests come in groups that hold what begins alike, and that follow from the requests alone."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from cai.engines.base import ScoreRequest
from cai.store.grouping import CHARACTERS_TOGETHER, REQUESTS_TOGETHER, score_groups
from constitution.messages import user

TEXTS = st.lists(st.text("ab", max_size=12), max_size=40)


def asked(text: str) -> ScoreRequest:
    return ScoreRequest((user(text),), (" A", " B"))


def pair(number: int, principles: int, words: int = 100) -> list[ScoreRequest]:
    """Both orders under each principle."""
    told = f"{number} says " * words
    orders = (f"{told}first, second", f"{told}second, first")
    return [asked(f"{order} {principle} {'rule ' * 10}") for principle in range(principles) for order in orders]


@given(TEXTS)
def test_every_request_is_in_one_group(texts: list[str]) -> None:
    groups = list(score_groups([asked(text) for text in texts]))
    assert sorted(index for group in groups for index in group) == list(range(len(texts)))
    assert all(groups)


def test_a_pair_under_many_principles_is_never_cut_in_whatever_order_it_is_asked() -> None:
    requests = [request for number in range(30) for request in pair(number, 31)]
    for seed in range(3):
        order = list(range(len(requests)))
        random.Random(seed).shuffle(order)
        groups = [{order[place] // 62 for place in group} for group in score_groups([requests[n] for n in order])]
        assert sum(map(len, groups)) == 30, "a pair is in two groups"
        assert min(map(len, groups)) > 1, "pairs are computed together"


def test_groups_are_no_larger_than_a_kill_may_cost() -> None:
    different = [asked(f"{number} " * 2000) for number in range(40)]
    for group in score_groups(different):
        assert sum(len(different[index].messages[0].content) for index in group) <= CHARACTERS_TOGETHER
    alike = [asked("all begin so, " * 100 + str(number)) for number in range(1000)]
    assert max(map(len, score_groups(alike))) == REQUESTS_TOGETHER
    short = [asked(str(number)) for number in range(1000)]
    assert max(map(len, score_groups(short))) <= REQUESTS_TOGETHER


def test_a_request_longer_than_a_group_is_a_group() -> None:
    long = "".join(chr(97 + place % 26) for place in range(2 * CHARACTERS_TOGETHER))
    assert sorted(score_groups([asked("x"), asked(long), asked("y")])) == [[0], [1], [2]]


def test_answers_that_are_scored_whole_count_too() -> None:
    """By contrast an answer is the continuation: 256 long ones under short prompts used to be one group."""
    answers = [" ".join(f"{number}-{word}" for word in range(500)) for number in range(100)]
    requests = [ScoreRequest((user(f"Question {number}?"),), (answer,)) for number, answer in enumerate(answers)]
    for group in score_groups(requests):
        assert sum(len(answers[index]) for index in group) <= CHARACTERS_TOGETHER
