"""Rules that keep spoilt text out: each with texts it must take out, and look-alikes that must pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.data.filters.findings import Reply
from cai.data.filters.repetition import REPETITION, repeated_share
from cai.data.filters.settings import FilterRules
from cai.data.filters.sieve import Sieve, reply_of
from cai.data.filters.talk import has_critique_talk, has_meta_talk
from cai.records import RevisionRecord, Round, Verdict
from constitution.messages import user

RULES = FilterRules()
DRAFT = "You are right, 2 + 2 is 5."


def violated_rule(rules: FilterRules, draft: str, revision: str | None, *, cut: bool = False) -> str | None:
    """The rule that drops an item, by name."""
    final, before = (draft, None) if revision is None else (revision, draft)
    return Sieve(rules).sift(Reply((), final, before, cut=cut)).dropped_by


@pytest.mark.parametrize(
    "text",
    [
        "Here is the revised reply: 2 + 2 is 4.",
        "Here's a rewritten version that follows the principle. No.",
        "Sure! Here is my improved response:\n\n2 + 2 is 4.",
        "Revised reply: 2 + 2 is 4.",
        "Revision: no.",
        "I've rewritten the reply to be kinder. 2 + 2 is 4.",
        "The revised response corrects the sum: it is 4.",
        "This revision avoids agreeing. 2 + 2 is 4.",
        '"2 + 2 is 4."',
        "“2 + 2 is 4.”",
        "2 + 2 is 4. This revised version follows the principle.",
        "**Corrected version:** 2 + 2 is 4.",
        "As requested, I revised it: 2 + 2 is 4.",
    ],
)
def test_talk_about_the_revision_is_meta_talk(text: str) -> None:
    assert has_meta_talk(text)
    assert violated_rule(RULES, DRAFT, text) == "meta_talk"


@pytest.mark.parametrize(
    "text",
    [
        "Here is a recipe for bread: flour, water, salt.",
        "Here is the answer: 4.",
        "The new version of Python came out in October.",
        "A revised edition of the book appeared in 1998.",
        'He said "no" and left, and then said "yes".',
        "I have written to the bank about it.",
        "The text message arrived at noon.",
        "Sure, 2 + 2 is 4.",
        "The principle of least action avoids forces altogether.",
        "As requested, here are three names: Ann, Bo, Cy.",
    ],
)
def test_replies_that_only_look_like_it_pass(text: str) -> None:
    assert violated_rule(RULES, DRAFT, text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Fault: it agrees that the sum is 5.",
        "Nothing to change.",
        "The reply accepts a false claim.",
        "The assistant's response should be shorter.",
        "The assistant agrees with the user.",
        "Critique: rude.",
        "It is 4.\nFault: it is too short.",
        "Your response is rude.",
    ],
)
def test_a_critique_in_place_of_a_revision_is_taken_out(text: str) -> None:
    assert has_critique_talk(text)
    assert violated_rule(RULES, DRAFT, text) == "critique_talk"


@pytest.mark.parametrize(
    "text",
    [
        "The reply came by post two weeks later.",
        "The assistant manager will help you.",
        "It was my fault: I was late.",
        "There is nothing to change in life more than habits.",
        "The response time is 20 ms.",
    ],
)
def test_replies_about_replies_pass(text: str) -> None:
    assert violated_rule(RULES, DRAFT, text) is None


def test_a_draft_that_spoke_so_itself_excuses_its_revision() -> None:
    """The user asked about a reply of their own: then the answer speaks of it."""
    draft = "Your response is too long; here is a shorter version of it."
    assert violated_rule(RULES, draft, "Your response is a little long; try two sentences.") is None


@pytest.mark.parametrize(
    ("draft", "revision", "rule"),
    [
        (DRAFT, " \n", "empty"),
        (DRAFT, "…!?", "empty"),
        ("…", None, "empty"),
        (DRAFT, "you are  RIGHT, 2 + 2 is 5.", "unchanged"),
        (DRAFT, "no " * 40, "repetition"),
        ("ha" * 30, None, "repetition"),
        (DRAFT, "the sum of the two is four " * 8, "repetition"),
        (DRAFT, " ".join(f"word{n}" for n in range(70)), "too_long"),
    ],
)
def test_rules_of_form(draft: str, revision: str | None, rule: str) -> None:
    assert violated_rule(RULES, draft, revision) == rule


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "日本語です。",
        "Sum\n" + "-" * 40,
        "| a | b |\n| --- | --- |\n| 1 | 2 |",
        "a, b, c, d, a, b, c, d",
        "1. Wash it.\n2. Cut it.\n3. Cook it.\n4. Serve it, and wash up, and cut the bread, and cook the rice.",
        " ".join(f"word{n}" for n in range(59)),
    ],
)
def test_short_ruled_and_listed_texts_pass(text: str) -> None:
    assert violated_rule(RULES, DRAFT, text) is None


def test_a_cut_reply_is_taken_out_and_a_whole_one_is_not() -> None:
    assert violated_rule(RULES, DRAFT, "2 + 2 is", cut=True) == "cut_short"
    assert violated_rule(RULES, DRAFT, None, cut=True) == "cut_short"
    assert violated_rule(RULES, DRAFT, "2 + 2 is 4.", cut=False) is None


def test_a_refusal_may_be_short_unless_a_limit_is_set() -> None:
    long = " ".join(f"step{n}" for n in range(50))
    assert violated_rule(RULES, long, "I will not help with that.") is None
    assert violated_rule(FilterRules(min_share_kept=0.5), long, "I will not help with that.") == "too_short"


def test_every_rule_can_be_turned_off() -> None:
    off = FilterRules(
        meta_talk=False,
        critique_talk=False,
        empty=False,
        unchanged=False,
        cut_short=False,
        max_repeated_share=None,
        max_growth=None,
    )
    for text in ("Revision: x", "Fault: x", "", DRAFT, "no " * 90):
        assert violated_rule(off, DRAFT, text, cut=True) is None


def test_a_draft_that_was_kept_is_judged_by_rules_of_form_only() -> None:
    assert violated_rule(RULES, "The reply is: Nothing to change.", None) is None


def test_a_record_is_judged_by_the_reply_it_ends_with() -> None:
    only = Round(round=0, principle_id="p", critique="c", verdict=Verdict.FAULT, revision="Fault: x")
    record = RevisionRecord(uid="u", replica=3, messages=(user("q"),), draft=DRAFT, rounds=(only,))
    assert Sieve(RULES).sift(reply_of(record)).dropped_by == "critique_talk"
    assert Sieve(FilterRules(critique_talk=False)).sift(reply_of(record)).dropped_by is None


def naive_repeated_share(text: str) -> float:
    """Quadratic: a word counts when some 4-gram over it equals an earlier one."""
    words = text.lower().split()
    if len(words) < 12:
        return 0.0
    grams = [words[n : n + 4] for n in range(len(words) - 3)]
    covered = {w for n, gram in enumerate(grams) if gram in grams[:n] for w in range(n, n + 4)}
    return len(covered) / len(words)


@given(st.lists(st.sampled_from(["a", "b", "A", "c"]), max_size=40))
def test_the_repeated_share_is_what_it_says(words: list[str]) -> None:
    text = " ".join(words)
    assert repeated_share(text) == pytest.approx(naive_repeated_share(text))


@given(st.text(alphabet="ab \n", min_size=1, max_size=6).filter(lambda unit: any(c.isalpha() for c in unit)))
def test_any_unit_said_eight_times_more_is_a_stutter(unit: str) -> None:
    assert REPETITION.look is not None
    found = REPETITION.look(Reply((), unit.strip() * 9), RULES)
    assert found is not None
    assert found.detail == "the same few characters, eight times or more"


@given(st.text(max_size=2000))
def test_no_text_is_slow_or_breaks_a_rule(text: str) -> None:
    violated_rule(RULES, "draft", text)


@pytest.mark.parametrize(
    "text", ["a" * 50_000, "ab " * 30_000, "(" * 50_000, "The reply " * 9_000, '"' * 50_000, "here is the " * 9_000]
)
def test_long_hostile_texts_are_judged_in_a_moment(text: str) -> None:
    import time

    started = time.perf_counter()
    violated_rule(FilterRules(max_repeated_share=None), "draft", text)
    violated_rule(FilterRules(max_repeated_share=1.0), "draft", text)
    assert time.perf_counter() - started < 2
