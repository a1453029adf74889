"""Preference on suites: wins in both orders, and what the judge is worth."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from suite_contestants import ask, contestant, many, saying
from suite_texts import PLANETS

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.evaluation.data_suites import as_principle
from cai.evaluation.judging import JudgeModel, read_letter
from cai.evaluation.suite_files import Judge
from cai.evaluation.suite_results import SuiteResult
from constitution.messages import assistant, user
from constitution.schema import PrincipleTest

PREFERENCE: dict[str, Any] = {
    "preference": {
        "prompts": [{"for_each": ["rows"], "prompt": "Tell me of {{ n }}."}],
        "principle": "Give what was asked for.",
        "tests": [{"prompt": "Hi", "better": "Hello!", "worse": "Go."}] * 8,
    }
}


def choosing(word: str) -> JudgeModel:
    """Names the answer that holds a word; A where none or both do."""

    def answer(request: GenerationRequest) -> str:
        first, _, second = request.messages[-1].content.partition("Reply B:")
        second = second.partition("Principle:")[0]
        return "The better reply is (B)." if word in second and word not in first else "The better reply is (A)."

    return JudgeModel("judge", lambda: ScriptedEngine(answer), by="words")


def test_wins_are_counted_in_both_orders_and_a_judge_of_places_gives_ties(tmp_path: Path) -> None:
    def after(request: GenerationRequest) -> str:
        number = int(request.messages[-1].content.split()[-1].rstrip("."))
        return "Hello! good" if number < 30 else "the same"

    before = contestant("a", saying("the same"))
    found = ask(tmp_path, many(**PREFERENCE), before, contestant("b", saying(after)), judge=choosing("Hello!"))
    (change,) = found.result.comparisons[0].measures
    assert (change.before, change.after, change.clusters) == (0.5, (30 + 10 * 0.5) / 40, 40)
    assert change.p == pytest.approx(2 / 2**30)
    assert change.clear
    assert change.difference == 0.375
    assert 0.2 < change.low < change.difference < change.high <= 0.5, "as the difference, from one half"
    (quality,) = found.result.judges
    assert quality.right is not None
    assert (quality.right.share, quality.same_slot and quality.same_slot.share) == (1.0, 0.0)
    assert {each.score for each in found.answers if each.model == "b"} == {0.5, 1.0}


def test_pairs_that_the_judge_does_not_judge_are_counted_and_in_no_rate(tmp_path: Path) -> None:
    def answer(request: GenerationRequest) -> str:
        return "Hm, well." if "Tell me of 1" in request.messages[-1].content else "The better reply is (A)."

    def ask_with(judge: JudgeModel) -> SuiteResult:
        return ask(tmp_path, many(**PREFERENCE), contestant("a", saying("x")), contestant("b", saying("y")), judge=judge).result

    found = ask_with(JudgeModel("at times", lambda: ScriptedEngine(answer), by="words"))
    (cause, count) = next(iter(found.models[1].failures.items()))
    assert (cause.partition(":")[0], count) == ("preference not judged", 11)
    assert found.comparisons[0].measures[0].rows == 40 - 11
    silent = ask_with(JudgeModel("never", lambda: ScriptedEngine({"": "Hm, well."}), by="words"))
    assert silent.models[1].unmeasured == {"wins against the first model, by the judge": "the judge compared no pair"}
    assert list(silent.models[1].failures.values()) == [40]


def test_even_odds_are_a_tie_whichever_answer_stands_first(tmp_path: Path) -> None:
    """In half precision two letters often have the same logit: it used to count as lost by the model that was trained."""
    judge = JudgeModel("judge", lambda: ScriptedEngine({"": "x"}, lambda request: [-0.7] * len(request.continuations)))
    found = ask(tmp_path, many(**PREFERENCE), contestant("a", saying("x")), contestant("b", saying("y")), judge=judge).result
    (change,) = found.comparisons[0].measures
    assert (change.after, change.p) == (0.5, 1.0)
    (quality,) = found.judges
    assert quality.right is not None
    assert (quality.right.share, quality.same_slot and quality.same_slot.share) == (0.5, 0.0)


def test_a_judge_that_knows_only_places_is_told_to_be_no_better_than_a_coin(tmp_path: Path) -> None:
    found = ask(
        tmp_path, many(**PREFERENCE), contestant("a", saying("x")), contestant("b", saying("y")), judge=choosing("nowhere")
    ).result
    (quality,) = found.judges
    assert quality.at_chance
    assert quality.same_slot is not None
    assert quality.same_slot.share == 1.0
    (change,) = found.comparisons[0].measures
    assert (change.after, change.clear) == (0.5, False)


def test_judges_by_odds_and_in_words_say_the_same_of_the_same_answers() -> None:
    def scores(request: ScoreRequest) -> list[float]:
        kind = any("kind" in turn.content for turn in request.messages if turn.role == "assistant")
        return [-0.1, -3.0] if kind else [-3.0, -0.1]

    def words(request: GenerationRequest) -> str:
        kind = any("kind" in turn.content for turn in request.messages if turn.role == "assistant")
        return "It is fine. Nothing to change." if kind else "Fault: it is cold."

    principle = as_principle(Judge(principle="Be {warm}.", tests=(PrincipleTest(prompt="Hi", better="so kind", worse="cold"),)))
    judges = [
        JudgeModel("odds", lambda: ScriptedEngine({"": "It is. Fault: none"}, scores), by="odds"),
        JudgeModel("words", lambda: ScriptedEngine(words), by="words"),
    ]
    for judge in judges:
        found = judge.verdicts([((user("Hi"),), reply, principle) for reply in ("so kind", "cold")])
        assert [each.outcome for each in found] == ["good", "bad"], judge.name
        quality = judge.quality(principle, principle.tests, pairwise=False)
        assert quality.right is not None
        assert (quality.right.count, quality.right.n, quality.principle) == (2, 2, "Be {warm}.")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The better reply is (A).", "A"),
        ("The better reply is B", "B"),
        ("(B)", "B"),
        ("Reply A, because it helps.", "A"),
        ("**A**", "A"),
        ("I weighed both.\nThe better reply is: (B)", "B"),
        ("A dog is no answer.", None),
        ("Both are fine", None),
        ("Apples", None),
    ],
)
def test_the_letter_of_a_comparison_in_words(text: str, letter: str | None) -> None:
    found = read_letter(text)
    assert (None if isinstance(found, RequestFailure) else found) == letter


def test_a_judge_that_writes_no_verdict_judges_nothing() -> None:
    judge = JudgeModel("mumbling", lambda: ScriptedEngine({"": "Hm, well."}), by="words")
    principle = as_principle(Judge(principle="Be kind.", tests=(PrincipleTest(prompt="Hi", better="a", worse="b"),)))
    assert [each.outcome for each in judge.verdicts([((user("Hi"),), "x", principle)])] == ["unjudged"]
    assert isinstance(judge.preferences([((user("Hi"),), "x", "y")], principle)[0], RequestFailure)


def test_a_judge_is_asked_only_for_what_patterns_leave_open(tmp_path: Path) -> None:
    content = copy.deepcopy(PLANETS)
    judge_check = {"judge": {"principle": "Be right.", "tests": [{"prompt": "1+1?", "better": "2", "worse": "3"}]}}
    content["behaviours"][0]["checker"] = {"first": [{"exact": {"accept": ["{{ moons }}"], "reject": ["7"]}}, judge_check]}
    asked: list[GenerationRequest] = []

    def answer(request: GenerationRequest) -> str:
        asked.append(request)
        return "Nothing to change."

    judge = JudgeModel("judge", lambda: ScriptedEngine(answer), by="words")
    replies = {"Earth": "One.", "Mars": "7", "Venus": "Some."}
    found = ask(
        tmp_path,
        content,
        contestant("one", saying(lambda r: next(v for k, v in replies.items() if any(k in t.content for t in r.messages)))),
        judge=judge,
    )
    about = [each for each in asked if assistant("Some.") in each.messages]
    assert len(about) == 2
    assert len(asked) == 2 + 2, "two answers about Venus, two of the judge's own tests"
    outcomes = {each.conversation[-1].content: each.outcome for each in found.answers if each.section == "wrong"}
    assert outcomes["How many moons has Venus?"] == "good"
    assert outcomes["How many moons has Mars?"] == "bad"
