"""What a caller of the local engine may rely on: a text depends on its request alone, and one bad request harms no other."""

from __future__ import annotations

import random
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from checkpoints import ARCHITECTURES, Architecture, make_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import OpenTiny, conversations, greedy, text_of_words

from cai.engines.base import (
    Engine,
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationResult,
    RequestFailure,
    SamplingParams,
    ScoreRequest,
    Scores,
)
from cai.engines.local import LocalEngine
from cai.engines.opening import SchedulerName, open_engine
from cai.models.loading import LoadedModel, load_model, open_model
from cai.models.memory import return_free_memory
from cai.models.spec import ModelSpec
from constitution.messages import assistant, user

GREEDY = SamplingParams(temperature=0.0, max_tokens=24)


def answers(engine: Engine, requests: list[GenerationRequest]) -> list[GenerationResult]:
    found = dict(engine.generate(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[index] for index in range(len(requests))]


def answer(engine: Engine, request: GenerationRequest) -> Generation:
    (result,) = answers(engine, [request])
    assert isinstance(result, Generation)
    return result


def sampled_requests(count: int, **params: Any) -> list[GenerationRequest]:
    settings = SamplingParams.model_validate({"max_tokens": 20} | params)
    return [
        GenerationRequest(messages, settings, f"7/item-{number}/0/draft/0", "" if number % 3 else "The reply")
        for number, messages in enumerate(conversations(count))
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_text_is_the_text_transformers_generates(open_tiny: OpenTiny, architecture: Architecture) -> None:
    loaded = open_tiny(architecture)
    requests = [GenerationRequest(messages, GREEDY, "k") for messages in conversations(6)]
    for request, result in zip(requests, answers(LocalEngine(loaded), requests), strict=True):
        prompt = loaded.tokenizer.encode_chat(request.messages)
        tokens = greedy(loaded, prompt, GREEDY.max_tokens)
        assert isinstance(result, Generation)
        stops = [place for stop in loaded.tokenizer.stop_texts if (place := loaded.tokenizer.decode(tokens).find(stop)) >= 0]
        ids = tokens[:-1] if tokens[-1] in loaded.tokenizer.stop_ids else tokens
        expected = loaded.tokenizer.decode(ids)[: min(stops, default=None)]
        assert result.text == (expected.removeprefix(" ") if loaded.tokenizer.plain else expected)
        assert result.prompt_tokens == len(prompt) == LocalEngine(loaded).count_tokens(request.messages)
        assert result.completion_tokens == len(tokens)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_sampled_texts_are_byte_identical_at_any_batch_size_and_order(open_tiny: OpenTiny, architecture: Architecture) -> None:
    loaded = open_tiny(architecture)
    requests = sampled_requests(16, max_tokens=16)
    alone = [answer(LocalEngine(loaded, max_batch=1), request) for request in requests]
    assert len({each.text for each in alone}) > 13
    for max_batch, batch_tokens in ((3, 128), (64, None), (64, 10_000)):
        order = list(range(len(requests)))
        random.Random(max_batch).shuffle(order)
        engine = LocalEngine(loaded, max_batch=max_batch, batch_tokens=batch_tokens)
        shuffled = answers(engine, [requests[index] for index in order])
        assert shuffled == [alone[index] for index in order]


def test_requests_of_different_temperatures_share_a_batch(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("qwen2")
    kinds: list[dict[str, Any]] = [{"temperature": 0.0}, {"top_p": 0.8}, {"top_k": 5}, {"temperature": 2.0, "max_tokens": 3}]
    requests = [sampled_requests(8, **kinds[number % 4])[number] for number in range(8)]
    together = answers(LocalEngine(loaded), requests)
    assert together == [answer(LocalEngine(loaded, max_batch=1), request) for request in requests]


def test_the_noise_key_decides_a_sampled_text_and_not_a_greedy_one(open_tiny: OpenTiny) -> None:
    engine = LocalEngine(open_tiny("llama"))
    drawn = [GenerationRequest((user("Why?"),), SamplingParams(max_tokens=20), f"{key}") for key in range(8)]
    texts = [result.text for result in answers(engine, [*drawn, drawn[0]]) if isinstance(result, Generation)]
    assert len(set(texts)) == 8
    assert texts[0] == texts[8]
    plain = [replace(request, params=GREEDY) for request in drawn]
    assert len({result.text for result in answers(engine, plain) if isinstance(result, Generation)}) == 1


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_an_answer_ends_before_the_first_stop_text(open_tiny: OpenTiny, data: st.DataObject) -> None:
    engine = LocalEngine(open_tiny("llama"))
    request = GenerationRequest((user("Check"),), SamplingParams(max_tokens=30, temperature=0.7), "stop")
    whole = answer(engine, request).text
    # Of one length, so that the one that begins first is also complete first.
    size = data.draw(st.integers(1, 6))
    starts = data.draw(st.lists(st.integers(0, len(whole) - size), min_size=1, max_size=3))
    stops = [whole[start : start + size] for start in starts]
    stopped = answer(engine, replace(request, params=request.params.model_copy(update={"stop": tuple(stops)})))
    assert stopped.text == whole[: min(whole.index(stop) for stop in stops)]
    assert stopped.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_with_stop_texts_as_many_tokens_are_written_as_transformers_writes(
    open_tiny: OpenTiny, architecture: Architecture
) -> None:
    """Its own criterion ends the answer at the token that completes a stop text; ours too, and leaves the text out."""
    loaded = open_tiny(architecture)
    engine, tokenizer = LocalEngine(loaded), loaded.tokenizer
    compared = 0
    for number, messages in enumerate(conversations(12)):
        request = GenerationRequest(messages, GREEDY, "k")
        whole = answer(engine, request).text
        stops = [whole[place : place + 3] for place in (2 + number, 5 + number)]
        if not all(stop.isascii() and len(stop) == 3 for stop in stops):
            continue  # a random model writes bytes that are no text, which theirs cannot look for
        compared += 1
        prompt = torch.tensor([tokenizer.encode_chat(messages)])
        written = (
            cast("Any", loaded.model)
            .generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=24,
                stop_strings=stops,
                tokenizer=cast("Any", tokenizer).tokenizer,
                eos_token_id=sorted(tokenizer.stop_ids),
                pad_token_id=0,
            )[0, prompt.shape[1] :]
            .tolist()
        )
        stopped = answer(engine, replace(request, params=GREEDY.model_copy(update={"stop": tuple(stops)})))
        assert stopped.completion_tokens == len(written) < 24
        theirs = tokenizer.decode(written)
        assert stopped.text == theirs[: min(theirs.index(stop) for stop in stops if stop in theirs)]
    assert compared >= 3


def test_a_stop_text_saves_the_tokens_after_it(open_tiny: OpenTiny) -> None:
    engine = LocalEngine(open_tiny("llama"))
    request = GenerationRequest((user("Check"),), SamplingParams(max_tokens=30), "stop")
    whole = answer(engine, request)
    stop = whole.text[5:7]
    stopped = answer(engine, replace(request, params=SamplingParams(max_tokens=30, stop=(stop,))))
    assert stopped.completion_tokens < whole.completion_tokens == 30


def test_max_tokens_cuts_an_answer_and_says_so(open_tiny: OpenTiny) -> None:
    engine = LocalEngine(open_tiny("llama"))
    long, short = (
        answer(engine, GenerationRequest((user("Why?"),), SamplingParams(temperature=0.0, max_tokens=most), "k"))
        for most in (30, 7)
    )
    assert (short.finish_reason, short.completion_tokens) == (FinishReason.LENGTH, 7)
    assert long.text.startswith(short.text.rstrip("�"))


@pytest.fixture(scope="module")
def small_context(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = make_checkpoint(tmp_path_factory.mktemp("small") / "model", "llama", max_position_embeddings=64)
    return load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu"))


def test_the_context_ends_an_answer_and_too_long_a_prompt_fails_alone(small_context: LoadedModel) -> None:
    engine = LocalEngine(small_context)
    assert engine.context_tokens == 64
    params = SamplingParams(max_tokens=500)
    requests = [GenerationRequest((user("a" * letters),), params, "k") for letters in range(1, 80)]
    seen: set[str] = set()
    for request, result in zip(requests, answers(engine, requests), strict=True):
        tokens = engine.count_tokens(request.messages)
        if tokens >= 64:
            assert isinstance(result, RequestFailure)
            assert result.cause == "prompt_too_long"
            assert f"{tokens}" in result.detail
        else:
            assert isinstance(result, Generation)
            assert result.finish_reason is FinishReason.STOP or result.completion_tokens == 64 - tokens
        seen.add(type(result).__name__)
    assert seen == {"Generation", "RequestFailure"}


def test_a_hundred_thousand_tokens_are_one_counted_failure(small_context: LoadedModel) -> None:
    requests = [GenerationRequest((user(text),), GREEDY, "k") for text in ("short", "x " * 100_000)]
    fine, too_long = answers(LocalEngine(small_context), requests)
    assert isinstance(fine, Generation)
    assert isinstance(too_long, RequestFailure)
    assert too_long.cause == "prompt_too_long"
    ((_, scored),) = LocalEngine(small_context).score([ScoreRequest(requests[1].messages, (" A",))])
    assert isinstance(scored, RequestFailure)


def test_a_conversation_that_the_template_refuses_fails_alone(open_tiny: OpenTiny) -> None:
    engine = LocalEngine(open_tiny("mistral"))
    twice = (user("one"), user("two"))
    fine, refused = answers(engine, [GenerationRequest(messages, GREEDY, "k") for messages in ((user("one"),), twice)])
    assert isinstance(fine, Generation)
    assert isinstance(refused, RequestFailure)
    assert refused.cause == "refused_by_template"
    scores = dict(engine.score([ScoreRequest(twice, (" A",)), ScoreRequest((user("one"),), (" A",))]))
    assert isinstance(scores[0], RequestFailure)
    assert isinstance(scores[1], Scores)
    assert engine.request_key(GenerationRequest(twice, GREEDY, "k")) != engine.request_key(
        GenerationRequest((user("one"), user("three")), GREEDY, "k")
    )


def test_an_answer_that_ends_at_once_is_empty_and_no_failure(tmp_path: Path) -> None:
    """All logits are equal, and the first token, which wins, is the family's end of text."""
    loaded = load_model(ModelSpec(name=str(make_checkpoint(tmp_path / "m", "phi3")), dtype="float32", device="cpu"))
    with torch.no_grad():
        cast("Any", loaded.model).lm_head.weight.zero_()
    result = answer(LocalEngine(loaded), GenerationRequest((user("Why?"),), GREEDY, "k"))
    assert (result.text, result.finish_reason, result.completion_tokens) == ("", FinishReason.STOP, 1)


def test_bfloat16_answers_every_request(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("gemma3")
    spec = loaded.spec.model_copy(update={"dtype": "bfloat16"})
    requests = sampled_requests(16)
    for result in answers(LocalEngine(load_model(spec), max_batch=5), requests):
        assert isinstance(result, Generation)
        assert result.completion_tokens > 0


def test_the_key_says_what_determines_the_answer_and_needs_no_weights(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    unread = open_model(loaded.spec)
    engine = LocalEngine(unread)
    request = GenerationRequest((user("one"),), SamplingParams(), "k")
    changed: list[GenerationRequest | ScoreRequest] = [
        replace(request, messages=(user("two"),)),
        replace(request, messages=(user("one"), assistant("x"), user("y"))),
        replace(request, noise_key="other"),
        replace(request, response_prefix="Yes"),
        replace(request, params=SamplingParams(top_p=0.5)),
        replace(request, params=SamplingParams(max_tokens=3)),
        replace(request, params=SamplingParams(stop=("x",))),
        replace(request, params=GREEDY),
        ScoreRequest((user("one"),), (" A",)),
        ScoreRequest((user("one"),), (" A", " B")),
        ScoreRequest((user("one"),), (" A", " B"), "Yes"),
    ]
    keys = [engine.request_key(each) for each in (request, *changed)]
    assert len(set(keys)) == len(keys)
    assert engine.request_key(replace(request)) == keys[0] == LocalEngine(loaded).request_key(request)
    greedy_key = engine.request_key(replace(request, params=GREEDY))
    assert greedy_key == engine.request_key(replace(request, params=GREEDY, noise_key="other"))
    assert greedy_key == engine.request_key(replace(request, params=GREEDY.model_copy(update={"top_k": 3})))
    assert "model" not in vars(unread)  # the weights have not been read


def test_an_engine_is_opened_by_the_name_of_a_model(open_tiny: OpenTiny) -> None:
    class Limits:
        max_batch = 2
        batch_tokens = 64
        exact = None
        scheduler: SchedulerName = "auto"

    loaded = open_tiny("llama")
    engine = open_engine(loaded.spec, Limits())
    assert engine.fingerprint == loaded.fingerprint
    request = GenerationRequest((user(text_of_words(1, 5)),), GREEDY, "k")
    assert answer(engine, request) == answer(LocalEngine(loaded), request)


@pytest.mark.parametrize("limits", [{"max_batch": 0}, {"batch_tokens": 0}])
def test_limits_below_one_are_refused(open_tiny: OpenTiny, limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LocalEngine(open_tiny("llama"), **limits)


@pytest.mark.parametrize("answered", [True, False], ids=["all answered", "left in the middle"])
@pytest.mark.parametrize("scheduler", ["slots", "paged"])
def test_an_engine_that_nobody_holds_any_more_gives_its_model_back(
    scheduler: SchedulerName, answered: bool, tmp_path: Path
) -> None:
    """Story: requests of the last batch kept the pages' owner alive, and so the thread that it ends, model and cache."""
    spec = ModelSpec(name=str(make_checkpoint(tmp_path / "llama")), device="cpu", dtype="float32")
    engine = LocalEngine(open_model(spec), max_batch=2, scheduler=scheduler)
    results = engine.generate(sampled_requests(4))
    next(results)
    if answered:
        list(results)
    model = weakref.ref(engine._loaded.model)
    assert model() is not None
    del engine, results
    return_free_memory()
    assert model() is None
