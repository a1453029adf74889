"""Candidates: all pairs of a chain or of samples, each answer judged once."""

from __future__ import annotations

import pytest
from candidate_answers import BOTH, chain, graded, settings

from cai.engines.base import ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.labels import (
    run_labels,
)
from cai.records import Outcome, RevisionRecord
from constitution.messages import assistant


def test_all_pairs_of_a_chain_come_from_one_judgement_of_each_answer() -> None:
    """Three answers make three pairs; each is judged once, and the margins are the differences of their scores."""
    engine = graded({"draft": -2.0, "better": 0.5, "best": 3.0})
    (made,) = run_labels([chain("draft", "better", "best")], BOTH, [engine], settings("pointwise", candidates="chain"), seed=0)
    pairs = [(p.number, p.chosen, p.rejected, p.chosen_index, p.rejected_source, p.margin_nats) for p in made.pairs]
    assert pairs == [
        (0, "best", "better", 1, "revision", 2.5),
        (1, "best", "draft", 1, "draft", 5.0),
        (2, "better", "draft", 0, "draft", 2.5),
    ]
    assert made.entry.outcome is Outcome.PAIR
    assert len([each for each in engine.asked if isinstance(each, ScoreRequest)]) == 3


def test_of_a_chain_pairs_that_are_decided_count_and_others_are_kept_beside_them() -> None:
    engine = graded({"draft": 0.0, "same": 0.05, "best": 3.0})
    chosen = settings("pointwise", candidates="chain", min_margin_nats=0.1)
    (made,) = run_labels([chain("draft", "same", "best")], BOTH, [engine], chosen, seed=0)
    assert [(p.number, p.chosen) for p in made.pairs] == [(0, "best"), (1, "best")]
    assert [(p.number, p.first, p.second, p.reason) for p in made.undecided] == [
        (2, "same", "draft", "the judge does not know")
    ]


def test_every_two_different_samples_of_one_prompt_are_compared() -> None:
    records = [chain(text, replica=n) for n, text in enumerate(["good", "bad", "bad", "best"])]
    chosen = settings("pointwise", candidates="samples")
    made = list(
        run_labels([*records, chain("alone", uid="b")], BOTH, [graded({"good": 1, "bad": -1, "best": 2})], chosen, seed=0)
    )
    assert [(p.chosen, p.chosen_index, p.rejected, p.rejected_index, p.chosen_source) for p in made[0].pairs] == [
        ("good", 0, "bad", 1, "sample"),
        ("best", 3, "good", 0, "sample"),
        ("best", 3, "bad", 1, "sample"),
    ]
    assert [(m.entry.uid, m.entry.replica, m.entry.reason) for m in made[1:]] == [
        ("a", 1, "judged beside replica 0"),
        ("a", 2, "the same as replica 1"),
        ("a", 3, "judged beside replica 0"),
        ("b", 0, "no second sample to compare with"),
    ]


@pytest.mark.parametrize(
    ("drafts", "reasons"),
    [
        (["good", " ", "bad"], ["", "an answer is empty", "judged beside replica 0"]),
        (["", "good", "bad"], ["", "judged beside replica 0", "judged beside replica 0"]),
        (["good", ""], ["an answer is empty"] * 2),
        (["good", "good", "good"], ["all samples are the same"] * 3),
    ],
)
def test_a_sample_that_nobody_judged_is_not_said_to_have_been(drafts: list[str], reasons: list[str]) -> None:
    """Story: an empty sample, and all samples of a prompt that gave no pair, stood in the ledger as judged."""
    records = [chain(text, replica=n) for n, text in enumerate(drafts)]
    chosen = settings("pointwise", candidates="samples")
    made = list(run_labels(records, BOTH, [graded({"good": 1, "bad": -1})], chosen, seed=0))
    assert [(each.entry.replica, each.entry.reason) for each in made] == [*enumerate(reasons)]
    assert sum(len(each.pairs) for each in made) == (reasons[0] == "")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (chain("draft", " "), "an answer is empty"),
        (chain("", "revision"), "an answer is empty"),
        (chain("draft", "draft"), "the revision repeats the draft"),
    ],
)
def test_answers_that_are_empty_or_the_same_are_no_candidates(record: RevisionRecord, reason: str) -> None:
    engine = ScriptedEngine({})
    (made,) = run_labels([record], BOTH, [engine], settings("pointwise"), seed=0)
    assert (made.entry.outcome, made.entry.reason) == (Outcome.KEPT, reason)
    assert not engine.asked


def test_a_judgement_that_fails_fails_its_item_and_no_other() -> None:
    engine = graded({"draft": 0.0, "better": 1.0, "bad": 2.0}, fault=lambda request: assistant("bad") in request.messages)
    records = [chain("draft", "better", uid="a"), chain("draft", "better", "bad", uid="b"), chain("draft", "better", uid="c")]
    made = list(run_labels(records, BOTH, [engine], settings("pointwise", candidates="chain"), seed=0))
    assert [each.entry.outcome for each in made] == [Outcome.PAIR, Outcome.FAILED, Outcome.PAIR]
    assert made[1].failure is not None
    assert made[1].entry.reason == "label: out_of_memory"
