"""When memory runs out the engine goes on with less; no request is lost and no text changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from naive import OpenTiny, conversations

from cai.engines.base import Generation, GenerationRequest, RequestFailure, SamplingParams, ScoreRequest, Scores
from cai.engines.forward import is_out_of_memory
from cai.engines.local import LocalEngine
from cai.models.loading import LoadedModel
from constitution.messages import user

REQUESTS = [
    GenerationRequest(messages, SamplingParams(max_tokens=16), f"1/{number}/0/draft/0")
    for number, messages in enumerate(conversations(20, 20))
]


def with_memory_for(loaded: LoadedModel, fits: Callable[[int, int], bool], allocate: Callable[[], object]) -> LoadedModel:
    """The same model read anew; its forward pass asks for more memory than there is when (rows, tokens) do not fit."""
    limited = replace(loaded)
    forward = cast("Any", limited.model).forward

    def guarded(*args: Any, **kwargs: Any) -> Any:
        rows, columns = kwargs["input_ids"].shape
        past = kwargs.get("past_key_values")
        tokens = columns if past is None or columns > 1 else past.get_seq_length() + 1
        if not fits(rows, tokens):
            allocate()
        return forward(*args, **kwargs)

    cast("Any", limited.model).forward = guarded
    return limited


def too_much_for_torch() -> object:
    return torch.empty(2**60, dtype=torch.uint8)


def too_much_for_python() -> object:
    raise MemoryError


@pytest.mark.parametrize("allocate", [too_much_for_torch, too_much_for_python])
@pytest.mark.parametrize("most", [6, 2])
def test_batches_shrink_and_every_text_is_the_same(open_tiny: OpenTiny, allocate: Callable[[], object], most: int) -> None:
    loaded = open_tiny("llama")
    expected = dict(LocalEngine(loaded).generate(REQUESTS))
    limited = LocalEngine(with_memory_for(loaded, lambda rows, _: rows <= most, allocate), batch_tokens=4096)
    answers = list(limited.generate(REQUESTS))
    assert len(answers) == len(REQUESTS)
    assert dict(answers) == expected
    assert limited._limits.rows <= most


def test_memory_that_runs_out_in_mid_answer_keeps_what_is_written(open_tiny: OpenTiny) -> None:
    """Rows grow while they are written: at some length the batch no longer fits."""
    loaded = open_tiny("gemma3")
    expected = dict(LocalEngine(loaded).generate(REQUESTS))
    limited = with_memory_for(loaded, lambda rows, tokens: rows * tokens <= 300, too_much_for_torch)
    assert dict(LocalEngine(limited, batch_tokens=300).generate(REQUESTS)) == expected


def test_a_request_that_does_not_fit_alone_fails_alone_and_the_batch_stays_large(open_tiny: OpenTiny) -> None:
    """Story: a row too large for the machine once left the engine with batches of one, for good."""
    loaded = open_tiny("llama")
    huge = [GenerationRequest((user("word " * 400),), SamplingParams(max_tokens=4), f"{n}") for n in range(5)]
    limited = LocalEngine(with_memory_for(loaded, lambda _, tokens: tokens <= 400, too_much_for_torch))
    answers = dict(limited.generate([*huge, *REQUESTS]))
    for index in range(5):
        failed = answers[index]
        assert isinstance(failed, RequestFailure)
        assert failed.cause == "out_of_memory"
    assert [answers[5 + index] for index in range(len(REQUESTS))] == [
        result for _, result in sorted(LocalEngine(loaded).generate(REQUESTS))
    ]
    assert limited._limits.rows == 64


def test_an_answer_that_outgrows_memory_is_a_failure(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    limited = with_memory_for(loaded, lambda _, tokens: tokens <= 60, too_much_for_torch)
    ((_, result),) = LocalEngine(limited).generate([GenerationRequest((user("x"),), SamplingParams(max_tokens=500), "k3")])
    assert isinstance(result, RequestFailure)
    assert result.cause == "out_of_memory"


@pytest.mark.parametrize("most", [900, 200])
def test_scores_survive_too_large_batches(open_tiny: OpenTiny, most: int) -> None:
    loaded = open_tiny("mistral")
    requests = [ScoreRequest(messages, (" A", " B, because")) for messages in conversations(20, 20)]
    expected = dict(LocalEngine(loaded).score(requests))
    limited = with_memory_for(loaded, lambda rows, tokens: rows * tokens <= most, too_much_for_torch)
    answers = dict(LocalEngine(limited, batch_tokens=4096).score(requests))
    assert sorted(answers) == list(range(20))
    for index, result in answers.items():
        wanted = expected[index]
        assert isinstance(result, Scores)
        assert isinstance(wanted, Scores)
        assert result.logps == pytest.approx(wanted.logps, abs=1e-4)


def test_a_request_too_large_to_score_fails_alone(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    requests = [ScoreRequest((user(text),), (" A",)) for text in ("one", "word " * 400, "two")]
    limited = LocalEngine(with_memory_for(loaded, lambda _, tokens: tokens <= 400, too_much_for_torch))
    answers = dict(limited.score(requests))
    failed = answers[1]
    assert isinstance(failed, RequestFailure)
    assert failed.cause == "out_of_memory"
    assert isinstance(answers[0], Scores)
    assert isinstance(answers[2], Scores)
    assert limited._limits.rows == 64


def test_other_errors_of_a_model_are_not_taken_for_memory(open_tiny: OpenTiny) -> None:
    def broken() -> object:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    limited = with_memory_for(open_tiny("llama"), lambda *_: False, broken)
    with pytest.raises(RuntimeError, match="mat1"):
        list(LocalEngine(limited).generate([GenerationRequest((user("x"),), SamplingParams(), "k")]))
    with pytest.raises(RuntimeError, match="mat1"):
        list(LocalEngine(limited).score([ScoreRequest((user("x"),), (" A",))]))


def test_what_torch_itself_raises_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        too_much_for_torch()
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_generation_after_a_shrink_goes_on_with_the_smaller_batch(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    passes: list[int] = []

    def fits(rows: int, _: int) -> bool:
        passes.append(rows)
        return rows <= 4

    engine = LocalEngine(with_memory_for(loaded, fits, too_much_for_torch), batch_tokens=4096)
    list(engine.generate(REQUESTS))
    del passes[:]
    again = dict(engine.generate(REQUESTS))
    assert max(passes) <= 4
    assert all(isinstance(result, Generation) for result in again.values())
