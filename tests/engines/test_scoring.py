"""Scores are the sums a plain float64 loop gives, whatever is packed together."""

from __future__ import annotations

import random
from typing import Any

import pytest
from checkpoints import ARCHITECTURES, Architecture
from naive import OpenTiny, conversations, logp, text_of_words

from cai.engines.base import Generation, GenerationRequest, SamplingParams, ScoreRequest, Scores
from cai.engines.local import LocalEngine
from cai.models.loading import LoadedModel
from constitution.messages import Conversation, user

CONTINUATIONS = (
    " A",
    " B",
    " The better reply is (A).",
    " The better reply is (B).",
    " The",
    "",
    "!",
    " moon is cheese because 2 + 2",
)


def expected(loaded: LoadedModel, request: ScoreRequest) -> list[float]:
    """By the definition: encode the text with and without the continuation; score what comes after their common part."""
    tokenizer = loaded.tokenizer.tokenizer
    if loaded.tokenizer.plain:
        turns = "\n\n".join(f"{'Human' if m.role == 'user' else 'Assistant'}: {m.content}" for m in request.messages)
        prompt = f"{turns}\n\nAssistant:" + (f" {request.response_prefix}" if request.response_prefix else "")
    else:
        turns = [{"role": m.role, "content": m.content} for m in request.messages]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + request.response_prefix
    before = tokenizer.encode(prompt, add_special_tokens=False)
    sums: list[float] = []
    for continuation in request.continuations:
        spaced = " " if loaded.tokenizer.plain and continuation and not request.response_prefix else ""
        whole = tokenizer.encode(prompt + spaced + continuation, add_special_tokens=False)
        start = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole)))
        sums.append(logp(loaded, whole[:start], whole[start:]))
    return sums


def scored(loaded: LoadedModel, requests: list[ScoreRequest], **limits: Any) -> list[list[float]]:
    found = dict(LocalEngine(loaded, **limits).score(requests))
    assert sorted(found) == list(range(len(requests)))
    logps: list[list[float]] = []
    for index, request in enumerate(requests):
        result = found[index]
        assert isinstance(result, Scores)
        assert result.prompt_tokens == loaded.tokenizer.count(request.messages, request.response_prefix)
        logps.append(list(result.logps))
    return logps


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_a_naive_loop(open_tiny: OpenTiny, architecture: Architecture) -> None:
    """Gemma 3 and Mistral see 32 tokens back; prompts are far longer, and share long beginnings."""
    loaded = open_tiny(architecture)
    requests = [ScoreRequest(messages, CONTINUATIONS, "The better reply is") for messages in conversations(4)]
    for ours, theirs in zip(scored(loaded, requests), (expected(loaded, each) for each in requests), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
        assert ours[CONTINUATIONS.index("")] == 0.0


def test_principles_that_judge_one_pair_share_it_and_score_as_alone(open_tiny: OpenTiny) -> None:
    """A long shared beginning and an end that differs: the layout of comparisons."""
    loaded = open_tiny("gemma3")
    shared = text_of_words(1, 60)
    requests = [
        ScoreRequest((user(f"{shared}\nPrinciple: {text_of_words(n, 9)} {n}"),), (" A", " B"), "It is") for n in range(12)
    ]
    alone = [scored(loaded, [request])[0] for request in requests]
    order = list(range(len(requests)))
    random.Random(0).shuffle(order)
    together = scored(loaded, [requests[index] for index in order])
    for place, index in enumerate(order):
        assert together[place] == pytest.approx(alone[index], abs=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 100, 600, 100_000])
def test_padding_and_packing_change_nothing(open_tiny: OpenTiny, batch_tokens: int) -> None:
    loaded = open_tiny("llama")
    requests = [ScoreRequest(messages, (" A", " B, because")) for messages in conversations(6)]
    for request, ours in zip(requests, scored(loaded, requests, batch_tokens=batch_tokens), strict=True):
        assert ours == pytest.approx(expected(loaded, request), abs=1e-4)


@pytest.mark.parametrize("prefix", ["", "The better ", "The be", "(", "The better reply is (", "2 + 2 ="])
def test_a_border_inside_a_token_counts_for_the_continuation(open_tiny: OpenTiny, prefix: str) -> None:
    """The prefix ends where the tokenizer would not cut: "The be" + "tter" is one token longer apart than together."""
    loaded = open_tiny("llama")
    request = ScoreRequest((user("Which?"),), ("tter reply", "reply", "A", " 4, not 5", "A).", ""), prefix)
    (ours,) = scored(loaded, [request])
    assert ours == pytest.approx(expected(loaded, request), abs=1e-4)


def test_no_continuations_and_only_empty_ones_cost_no_forward_pass(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    messages: Conversation = (user("x"),)
    assert scored(loaded, [ScoreRequest(messages, ()), ScoreRequest(messages, ("", ""))]) == [[], [0.0, 0.0]]


def test_equal_requests_are_each_answered(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("qwen2")
    request = ScoreRequest((user("Which reply?"),), (" A", " A", " B"))
    first, second = scored(loaded, [request, request])
    assert first == second
    assert first[0] == first[1] != first[2]


def test_a_generated_answer_scores_what_it_was_drawn_with(open_tiny: OpenTiny) -> None:
    """Generation and scoring are the same model: the greedy token is the likeliest of all one-token continuations."""
    loaded = open_tiny("llama")
    engine = LocalEngine(loaded)
    messages: Conversation = (user("Which reply?"),)
    ((_, first),) = engine.generate([GenerationRequest(messages, SamplingParams(temperature=0.0, max_tokens=1), "k")])
    assert isinstance(first, Generation)
    words = {loaded.tokenizer.decode([token]) for token in range(10, 500)}
    ((_, scores),) = engine.score([ScoreRequest(messages, (first.text, *sorted(words - {first.text, ""})))])
    assert isinstance(scores, Scores)
    assert scores.logps[0] == max(scores.logps)
