"""Scores are the sums a plain float64 loop gives, whatever is packed together."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from checkpoints import ARCHITECTURES, Architecture
from naive import OpenTiny, conversations, logp, text_of_words

from cai.engines.base import Generation, GenerationRequest, SamplingParams, ScoreRequest, Scores
from cai.engines.forward import Forward
from cai.engines.limits import BatchLimits
from cai.engines.local import LocalEngine
from cai.engines.requests import encode_scored
from cai.engines.scoring import ScoredTokens, score_sequences
from cai.labels.letters import ORDERS, Compared, comparison_request
from cai.models.loading import LoadedModel
from constitution.messages import Conversation, user
from constitution.schema import Principle

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


def letter_requests(pairs: int, principles: int) -> list[ScoreRequest]:
    """Every pair under every principle in both orders, as labels ask it."""
    asked = [
        Compared(
            (user(text_of_words(pair, 30)),),
            text_of_words(pair + 3, 45),
            text_of_words(pair + 4, 35),
            Principle(id=f"p{n}", principle=f"{text_of_words(n, 8 + n % 5)} {n}"),
        )
        for pair in range(pairs)
        for n in range(principles)
    ]
    return [comparison_request(each, order) for each in asked for order in ORDERS]


def beginnings_read(loaded: LoadedModel, requests: list[ScoreRequest]) -> set[tuple[int, ...]]:
    """All different beginnings of what the model must read: it reads a sequence's last token only to go on from it."""
    read = [ids[:-1] for request in requests for ids in encode_scored(loaded.tokenizer, 0, request).sequences]
    return {ids[:length] for ids in read for length in range(1, len(ids) + 1)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pairs_under_many_principles_in_both_orders_score_as_alone_and_cost_their_beginning_once(
    open_tiny: OpenTiny, architecture: Architecture
) -> None:
    """Asked in any order. What the model reads is counted by a set of all different beginnings of the prompts."""
    loaded = open_tiny(architecture)
    requests = letter_requests(2, 4)
    random.Random(0).shuffle(requests)
    engine = LocalEngine(loaded)
    found = dict(engine.score(requests))
    for index, request in enumerate(requests):
        result = found[index]
        assert isinstance(result, Scores)
        assert list(result.logps) == pytest.approx(expected(loaded, request), abs=1e-4)
    told = engine.statistics()
    alone = [beginnings_read(loaded, [request]) for request in requests]
    together = len(beginnings_read(loaded, requests))
    assert told.scored_tokens + told.reused_scored_tokens == sum(map(len, alone))
    # Two pairs have the template's first words in common, which are not worth being shared.
    assert together <= told.scored_tokens < 1.25 * together < 0.5 * sum(map(len, alone))
    assert (told.prompt_tokens, told.reused_tokens) == (0, 0)


def test_a_pair_under_sixteen_principles_is_scored_in_half_precision_too(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    requests = letter_requests(1, 16)
    exact = scored(loaded, requests)
    half = replace(loaded, dtype=torch.bfloat16)
    half.__dict__["model"] = cast("Any", copy.deepcopy(loaded.model)).to(torch.bfloat16)
    together = scored(half, requests)
    for ours, theirs in zip(together, exact, strict=True):
        assert ours == pytest.approx(theirs, abs=0.2)


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


def test_no_pass_reads_or_answers_more_than_fits_though_continuations_are_long(open_tiny: OpenTiny) -> None:
    """A tree was measured by its longest continuation alone, and its logits, 600 KB each for 150,000 words, by nothing."""
    loaded = open_tiny("llama")
    shared = text_of_words(1, 40)
    requests = [
        ScoreRequest((user(f"{shared} {n}"),), tuple(f" {text_of_words(n + other, 30)}" for other in range(4)))
        for n in range(8)
    ]
    forward = Forward(loaded.model)
    limits = replace(BatchLimits.for_device(forward, 8, None), prefill_tokens=500, tree_tokens=900, logits_rows=400)
    passes: list[tuple[int, int]] = []
    given: list[int] = []
    hooks = [
        forward.model.model.register_forward_pre_hook(
            lambda _, __, kwargs: given.append(kwargs["input_ids"].numel()), with_kwargs=True
        ),
        forward.model.lm_head.register_forward_hook(lambda _, __, logits: passes.append((given[-1], logits.shape[1]))),
    ]
    encoded = [encode_scored(loaded.tokenizer, index, request) for index, request in enumerate(requests)]
    assert forward.attends_in_trees
    passes.clear()
    try:
        found = dict(score_sequences(forward, limits, encoded, ScoredTokens()))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(passes) > 1
    for tokens, logits in passes:
        assert tokens <= 900 + 3
        assert logits <= 400 + 3
    for index, request in enumerate(requests):
        assert found[index] == pytest.approx(expected(loaded, request), abs=1e-4)


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
