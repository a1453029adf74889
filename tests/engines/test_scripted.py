"""The scripted engine keeps the contract of engines: what works with it works with a model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cai.engines.base import (
    Engine,
    FinishReason,
    Generation,
    GenerationRequest,
    RequestFailure,
    SamplingParams,
    ScoreRequest,
    Scores,
)
from cai.engines.scripted import ScriptedEngine
from constitution.messages import Conversation, assistant, user


def ask(text: str, *, key: str = "k", prefix: str = "", **params: object) -> GenerationRequest:
    return GenerationRequest((user(text),), SamplingParams.model_validate(params), key, prefix)


def answer(engine: Engine, request: GenerationRequest) -> Generation:
    ((_, result),) = engine.generate([request])
    assert isinstance(result, Generation)
    return result


def test_the_first_key_that_stands_in_the_last_message_answers() -> None:
    engine = ScriptedEngine({"moon": "It is rock.", "made": "By hand.", "": "I do not know."})
    earlier: Conversation = (user("the moon"), assistant("yes"), user("who?"))
    requests = [ask("The moon is made of cheese."), ask("How is it made?"), GenerationRequest(earlier, SamplingParams(), "k")]
    answers = [result.text for _, result in engine.generate(requests) if isinstance(result, Generation)]
    assert answers == ["It is rock.", "By hand.", "I do not know."]
    assert engine.asked == requests


def test_what_the_script_does_not_foresee_is_a_failure_and_the_others_are_answered() -> None:
    engine = ScriptedEngine({"a": "A"}, {" yes": -0.5})
    failed, fine = (result for _, result in engine.generate([ask("x"), ask("a")]))
    assert isinstance(failed, RequestFailure)
    assert failed.cause == "not_scripted"
    assert isinstance(fine, Generation)
    scored = [ScoreRequest((user("x"),), (" yes",)), ScoreRequest((user("x"),), (" yes", " no"))]
    good, bad = (result for _, result in engine.score(scored))
    assert good == Scores((-0.5,), prompt_tokens=3)
    assert isinstance(bad, RequestFailure)


def test_a_function_may_answer_by_any_part_of_the_request_and_may_fail() -> None:
    def by_key(request: GenerationRequest) -> str | RequestFailure:
        return RequestFailure("out_of_memory", "x") if request.noise_key == "bad" else request.noise_key

    good, bad = (result for _, result in ScriptedEngine(by_key).generate([ask("x", key="7"), ask("x", key="bad")]))
    assert isinstance(good, Generation)
    assert good.text == "7"
    assert bad == RequestFailure("out_of_memory", "x")


def test_answers_are_cut_at_stop_strings_and_at_the_word_limit() -> None:
    engine = ScriptedEngine({"": "one two\n\nHuman: three"})
    stopped = answer(engine, ask("x", stop=("\n\nHuman:",)))
    assert (stopped.text, stopped.finish_reason, stopped.completion_tokens) == ("one two", FinishReason.STOP, 2)
    cut = answer(engine, ask("x", max_tokens=3))
    assert (cut.text, cut.finish_reason, cut.completion_tokens) == ("one two\n\nHuman:", FinishReason.LENGTH, 3)


def test_the_context_limits_prompt_and_answer_together() -> None:
    engine = ScriptedEngine({"": "1 2 3 4 5 6 7 8"}, {" a b c": 0.0}, context_tokens=10)
    assert engine.count_tokens((user("a b c d"),)) == 6
    assert answer(engine, ask("a b c d")).text == "1 2 3 4"
    ((_, too_long),) = engine.generate([ask("a b c d e f g h")])
    assert isinstance(too_long, RequestFailure)
    assert too_long.cause == "prompt_too_long"
    fits, does_not = (
        result
        for _, result in engine.score([ScoreRequest((user(text),), (" a b c",)) for text in ("a b c d e", "a b c d e f")])
    )
    assert isinstance(fits, Scores)
    assert does_not == RequestFailure("prompt_too_long", "the prompt has 11 words; the script takes 10")


def test_the_key_changes_with_every_part_of_a_request_and_with_the_script() -> None:
    engine = ScriptedEngine({"": "a"})
    requests = [
        ask("x"),
        ask("y"),
        ask("x", key="other"),
        ask("x", prefix="p"),
        ask("x", temperature=0.0),
        ScoreRequest((user("x"),), (" a",)),
        ScoreRequest((user("x"),), (" a", " b")),
    ]
    keys = {engine.request_key(request) for request in requests}
    others = [ScriptedEngine({"": "b"}), ScriptedEngine({"": "a"}, {"": 0.0}), ScriptedEngine({"": "a"}, name="n")]
    keys |= {other.request_key(requests[0]) for other in others}
    assert len(keys) == len(requests) + len(others)
    assert engine.request_key(ask("x")) == ScriptedEngine({"": "a"}).request_key(ask("x"))


def test_a_script_with_another_order_of_keys_is_another_script() -> None:
    one, other = ScriptedEngine({"a": "1", "b": "2"}), ScriptedEngine({"b": "2", "a": "1"})
    assert answer(one, ask("ab")) != answer(other, ask("ab"))
    assert one.fingerprint != other.fingerprint


def test_a_function_that_scores_too_few_continuations_is_found_out() -> None:
    engine = ScriptedEngine({}, lambda request: [0.0])
    with pytest.raises(ValueError, match="1 log-probabilities for 2"):
        list(engine.score([ScoreRequest((user("x"),), ("a", "b"))]))


def test_it_needs_no_torch() -> None:
    code = "import sys, cai.engines.scripted; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
