"""Confidence on suites: calibration worked out by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from suite_contestants import Answer, ask, contestant, many, saying

from cai.engines.base import GenerationRequest, ScoreRequest

CALIBRATION: dict[str, Any] = {
    "calibration": {
        "for_each": ["rows"],
        "prompt": "What is {{ n }}?",
        "beginning": "It is",
        "options": ["right {{ n }}", "wrong {{ n }}"],
        "stated": {
            "prompt": "And {{ n }}, in percent?",
            "checker": {"first": [{"exact": {"accept": ["yes"]}}, {"otherwise": "bad"}]},
        },
    }
}


def test_token_confidence_is_the_softmax_over_the_options(tmp_path: Path) -> None:
    """Half of the questions right at 0.8, half wrong at 0.8: accuracy 0.5, Brier (0.04 + 0.64) / 2, error 0.3."""

    def scores(request: ScoreRequest) -> list[float]:
        assert request.response_prefix == "It is"
        number = int(request.continuations[0].split()[-1])
        assert request.continuations == (f" right {number}", f" wrong {number}")
        odds = math.log(4.0) if number % 2 else -math.log(4.0)
        return [-7.0 + odds, -7.0]

    found = ask(tmp_path, many(**CALIBRATION), contestant("one", saying("yes, 90 %", scores)))
    token, stated = found.result.models[0].confidence
    assert (token.way, token.accuracy, token.calibration.labels) == ("token", 0.5, 40)
    assert token.mean_confidence == pytest.approx(0.8)
    assert token.calibration.brier == pytest.approx(0.34)
    assert token.calibration.ece == pytest.approx(0.3)
    assert (stated.accuracy, stated.mean_confidence) == (1.0, pytest.approx(0.9))
    assert (stated.unparsed, stated.by_word) == (0, 0)


def test_an_option_that_only_ties_with_another_is_not_right_and_one_without_odds_is_counted(tmp_path: Path) -> None:
    def scores(request: ScoreRequest) -> list[float]:
        return [-1.0, math.nan] if request.continuations[0].endswith(" 7") else [-1.0, -1.0]

    (model,) = ask(tmp_path, many(**CALIBRATION), contestant("one", saying("no, 50 %", scores))).result.models
    token = model.confidence[0]
    assert (token.accuracy, token.mean_confidence, token.calibration.labels) == (0.0, 0.5, 39)
    assert model.failures == {"token confidence: not_a_number": 1}


def test_answers_that_the_checker_cannot_judge_are_counted_and_in_no_calibration(tmp_path: Path) -> None:
    content = copy.deepcopy(CALIBRATION)
    content["calibration"]["stated"]["checker"] = {"exact": {"accept": ["yes"], "reject": ["no"]}}
    answer: Answer = lambda r: "perhaps, 80 %" if " 1" in r.messages[-1].content else "yes, 80 %"  # noqa: E731
    (model,) = ask(tmp_path, many(**content), contestant("one", saying(answer, lambda _: [0.0, -1.0]))).result.models
    assert model.failures == {"stated: not judged": 11}
    assert model.confidence[1].calibration.labels == 40 - 11


def test_better_calibration_is_shown_and_answers_without_a_number_are_counted(tmp_path: Path) -> None:
    def scores(shift: float) -> Callable[[ScoreRequest], list[float]]:
        return lambda request: [shift, 0.0]

    def before(request: GenerationRequest) -> str:
        return "yes" if " 1" in request.messages[-1].content else "no, 95 %"

    found = ask(
        tmp_path,
        many(**CALIBRATION),
        contestant("a", saying(before, scores(0.1))),
        contestant("b", saying("no, I am not sure", scores(3.0))),
    ).result
    changes = {each.measure: each for each in found.comparisons[0].measures}
    assert changes["brier_token"].difference < -0.2
    assert changes["brier_token"].clear
    assert found.models[0].confidence[1].unparsed == 11
    assert found.models[1].confidence[1].by_word == 40
    assert changes["brier_stated"].before == pytest.approx(0.95**2)
    assert changes["brier_stated"].after == pytest.approx(0.04)
    assert changes["brier_stated"].rows == 40 - 11
    assert changes["ece_stated"].difference == pytest.approx(0.2 - 0.95)
    assert (changes["gap_stated"].before, changes["gap_stated"].after) == (pytest.approx(0.95), pytest.approx(0.2))


def test_a_model_without_log_probabilities_says_why_it_is_not_measured(tmp_path: Path) -> None:
    engine = saying("yes", lambda request: pytest.fail("it was asked to score"))
    found = ask(tmp_path, many(**CALIBRATION), contestant("served", engine, "the server gives none")).result
    assert found.models[0].unmeasured == {
        "stated confidence": "none of 40 answers says how sure it is",
        "token confidence": "the server gives none",
    }
    assert found.models[0].confidence == ()
