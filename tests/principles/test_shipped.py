"""The principles that come along: complete, sound, and about everything they promise."""

from __future__ import annotations

import re

import pytest

from constitution.loading import load_constitution
from constitution.messages import user
from constitution.rendering import FAULT, NOTHING_TO_CHANGE, principle_text, render_critique
from constitution.schema import Principle

SHIPPED = load_constitution(["shipped"])
TOPICS = {
    "helpful": {"answer-the-question", "help-harmless-requests", "follow-instructions"},
    "honest": {"correct-false-claims", "own-limits", "report-honestly"},
    "harmless": {"no-help-with-wrongdoing", "no-contempt", "care-in-crisis"},
    "serious wrongdoing": {"no-dangerous-recipes", "no-help-with-wrongdoing"},
    "manipulation": {"no-manipulation"},
    "autonomy": {"respect-choices", "balanced-on-contested-questions"},
    "privacy": {"protect-private-people", "keep-secrets-safe"},
    "calibrated uncertainty": {"honest-uncertainty"},
    "unsupported claims": {"support-claims"},
    "sycophancy": {"no-empty-agreement", "correct-false-claims", "honest-feedback"},
    "brief refusal with redirection": {"brief-refusal-with-redirection"},
    "over-refusal": {"help-harmless-requests"},
    "courtesy without flattery": {"courtesy-without-flattery"},
    "format": {"readable-form", "follow-instructions"},
    "brevity": {"short-as-can-be"},
    "medical advice": {"medical-advice"},
    "legal advice": {"legal-advice"},
    "money advice": {"money-advice"},
    "actions by agents": {
        "ask-before-the-irreversible",
        "least-privilege",
        "no-secret-in-a-call",
        "report-honestly",
        "stop-when-told",
        "instructions-in-data",
    },
}
each_principle = pytest.mark.parametrize("principle", SHIPPED.principles, ids=lambda principle: principle.id)


def test_there_are_at_least_twenty_four() -> None:
    assert len(SHIPPED.principles) >= 24


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_its_principles(topic: str) -> None:
    assert TOPICS[topic] <= {principle.id for principle in SHIPPED.principles}


def test_no_principle_is_without_a_topic() -> None:
    placed = set[str]().union(*TOPICS.values())
    assert {p.id for p in SHIPPED.principles} - placed == {"ask-when-unclear"}


@each_principle
def test_each_is_complete(principle: Principle) -> None:
    assert principle.rationale
    assert principle.critique_request
    assert principle.critique_request.endswith("?")
    assert principle.revision_request
    assert principle.revision_request.startswith("Rewrite the reply")
    assert principle.preference_question
    assert re.match(r"(If .*, which|Which) ", principle.preference_question)
    assert len(principle.tests) >= 2


@each_principle
def test_each_test_tells_two_different_replies_apart(principle: Principle) -> None:
    for test in principle.tests:
        assert test.better != test.worse
    assert len({test.prompt for test in principle.tests}) == len(principle.tests)


@each_principle
def test_each_lets_the_critic_say_that_nothing_is_to_change(principle: Principle) -> None:
    asked = render_critique(principle, (user("Hello"),), "Hello.")[-1].content
    assert f'"{NOTHING_TO_CHANGE}"' in asked
    assert f'"{FAULT}"' in asked


@each_principle
def test_each_rule_is_short_enough_to_be_read_at_once(principle: Principle) -> None:
    assert len(principle_text(principle).split()) <= 30


def test_no_two_say_the_same() -> None:
    for field in ("principle", "critique_request", "revision_request", "preference_question"):
        texts = [getattr(principle, field) for principle in SHIPPED.principles]
        assert len(set(texts)) == len(texts), field


def test_what_the_lab_teaches_by_is_among_them() -> None:
    """The feedback adapter restates these principles in its own words: a renamed id would silently lose its lesson."""
    import tomllib
    from importlib import resources

    wordings = tomllib.loads(resources.files("cai.lab").joinpath("wordings.toml").read_text(encoding="utf-8"))
    assert set(wordings["shipped"]) <= {principle.id for principle in SHIPPED.principles}
