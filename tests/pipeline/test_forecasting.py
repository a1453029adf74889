"""An engine that computes nothing answers from the store, counts the rest, and guesses from what it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cai.engines.base import Generation, GenerationRequest, RequestFailure, SamplingParams, ScoreRequest, Scores
from cai.engines.scripted import ScriptedEngine
from cai.pipeline.forecasting import NOT_MADE, ForecastingEngine, Tally
from cai.store import MemoisedEngine, RunFolder
from constitution.messages import user

PARAMS = SamplingParams(max_tokens=5)
ENGINE = ScriptedEngine({"known": "a stored answer", "": "never asked"}, {" A": -1.0, " B": -2.0}, context_tokens=40)


def asked(text: str, stage: str = "draft") -> GenerationRequest:
    return GenerationRequest((user(text),), PARAMS, f"0/{text}/0/{stage}/0")


def scored(text: str, *continuations: str) -> ScoreRequest:
    return ScoreRequest((user(text),), continuations or (" A", " B"))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.open(tmp_path / "run") as opened:
        memo = MemoisedEngine(ENGINE, opened)
        list(memo.generate([asked("known")]))
        list(memo.score([scored("known")]))
        yield opened


def forecast(run: RunFolder | None, tally: Tally, *, guess: bool) -> ForecastingEngine:
    return ForecastingEngine(ENGINE, run.calls if run else None, tally, guess=guess)


def test_a_stored_call_is_answered_and_another_fails_and_is_counted_once(run: RunFolder) -> None:
    tally = Tally()
    answers = dict(forecast(run, tally, guess=False).generate([asked("new"), asked("known"), asked("new")]))
    assert answers[1] == Generation("a stored answer", answers[1].finish_reason, 3, 3)  # type: ignore[union-attr]
    assert all(isinstance(answers[n], RequestFailure) and answers[n].cause == NOT_MADE for n in (0, 2))  # type: ignore[union-attr]
    draft = tally.stages["draft"]
    assert (draft.calls, draft.reused, draft.prompt_tokens, draft.most_new_tokens, draft.new_tokens) == (1, 2, 3, 5, 0)


def test_a_guess_is_a_stored_answer_of_the_same_stage_and_always_the_same(run: RunFolder) -> None:
    tallies = Tally(), Tally()
    first, again = (dict(forecast(run, tally, guess=True).generate([asked("new")])) for tally in tallies)
    assert first == again
    assert isinstance(first[0], Generation)
    assert (first[0].text, first[0].completion_tokens) == ("a stored answer", 3)
    assert tallies[0].stages["draft"].new_tokens == 3
    ((_, scores),) = forecast(run, Tally(), guess=True).score([scored("new")])
    assert scores == Scores((-1.0, -2.0), 3)


def test_without_stored_answers_of_the_stage_the_longest_answer_is_thought_of(run: RunFolder) -> None:
    tally = Tally()
    engine = forecast(run, tally, guess=True)
    ((_, answer),) = engine.generate([asked("new", "critique")])
    assert isinstance(answer, Generation)
    assert answer.completion_tokens == len(answer.text.split()) == tally.stages["critique"].new_tokens == PARAMS.max_tokens
    ((_, scores),) = engine.score([scored("new", " one", " two", " three")])
    assert isinstance(scores, Scores)
    assert len(scores.logps) == 3


def test_a_prompt_that_is_too_long_fails_as_it_will_and_costs_no_token() -> None:
    tally = Tally()
    ((_, answer),) = forecast(None, tally, guess=True).generate([asked("word " * 100)])
    assert isinstance(answer, RequestFailure)
    assert answer.cause == "prompt_too_long"
    assert (tally.calls, tally.stages["draft"].prompt_tokens) == (1, 0)


def test_a_model_that_is_yet_to_be_trained_has_no_stored_call(run: RunFolder) -> None:
    tally = Tally()
    engine = ForecastingEngine(ENGINE, run.calls, tally, guess=False, fingerprint="to be trained")
    ((_, answer),) = engine.generate([asked("known")])
    assert isinstance(answer, RequestFailure)
    assert tally.stages["draft"].calls == 1
    assert engine.fingerprint != ENGINE.fingerprint
