"""The decoding loop writes what `model.generate` writes, whatever shares a batch with a row."""

from __future__ import annotations

import random

import pytest
from checkpoints import ARCHITECTURES, Architecture
from naive import OpenTiny, conversations, greedy

from cai.engines.base import FinishReason, SamplingParams
from cai.engines.decoding import DecodingLoop, Row
from cai.engines.forward import Forward
from cai.engines.limits import BatchLimits
from cai.models.loading import LoadedModel

GREEDY = SamplingParams(temperature=0.0)


def decode(loaded: LoadedModel, prompts: list[list[int]], tokens: int, limits: BatchLimits) -> list[list[int]]:
    stops = loaded.tokenizer.stop_ids
    loop = DecodingLoop(Forward(loaded.model), limits, lambda row: row.generated[-1] in stops)
    rows = [Row(index, prompt, GREEDY, index, tokens, len(prompt) + tokens) for index, prompt in enumerate(prompts)]
    written = {row.index: row for row in loop.run(rows)}
    assert sorted(written) == list(range(len(prompts)))
    for row in written.values():
        stopped = row.generated[-1] in stops
        assert row.finish is (FinishReason.STOP if stopped else FinishReason.LENGTH)
    return [written[index].generated for index in range(len(prompts))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_tokens_equal_transformers_token_by_token(open_tiny: OpenTiny, architecture: Architecture) -> None:
    """Gemma 3 and Mistral attend through a window of 32 tokens here; prompts and answers go far beyond it."""
    loaded = open_tiny(architecture)
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(8)]
    prompts.append(prompts[4])
    lengths = sorted(map(len, prompts))
    assert lengths[0] < 32 < 2 * 32 < lengths[-1]
    expected = [greedy(loaded, prompt, 40) for prompt in prompts]
    # Three rows at a time and short prefills: rows leave and enter while others are in the middle of their answer.
    assert decode(loaded, prompts, 40, BatchLimits(3, 256, 100_000)) == expected
    # All at once, in trees with shared beginnings.
    assert decode(loaded, prompts, 40, BatchLimits(64, 100_000, 100_000)) == expected


def test_rows_enter_as_others_leave_and_each_keeps_its_own_limit(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(40, 12)]
    randomly = random.Random(1)
    limits = [randomly.randint(1, 30) for _ in prompts]
    forward = Forward(loaded.model)
    loop = DecodingLoop(forward, BatchLimits(8, 200, 100_000), lambda _: False)
    rows = [
        Row(i, prompt, GREEDY, i, most, len(prompt) + most)
        for i, (prompt, most) in enumerate(zip(prompts, limits, strict=True))
    ]
    assert {row.index: len(row.generated) for row in loop.run(rows)} == dict(enumerate(limits))


def test_a_prompt_longer_than_every_limit_is_still_decoded(open_tiny: OpenTiny) -> None:
    """Limits say how much goes together; one row alone may exceed them."""
    loaded = open_tiny("qwen2")
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(4)]
    expected = [greedy(loaded, prompt, 5) for prompt in prompts]
    assert decode(loaded, prompts, 5, BatchLimits(64, 1, 1)) == expected


def test_the_cache_limit_bounds_how_many_rows_run_together(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(12, 20)]
    longest = max(map(len, prompts)) + 10
    together: list[int] = []
    room: list[int] = []

    class Watched(DecodingLoop):
        def _step(self) -> None:
            together.append(len(self._running))
            room.append(len(self._running) * max(row.most_tokens for row in self._running))
            super()._step()

    loop = Watched(Forward(loaded.model), BatchLimits(64, 100_000, 3 * longest), lambda _: False)
    written = list(loop.run([Row(i, prompt, GREEDY, i, 10, len(prompt) + 10) for i, prompt in enumerate(prompts)]))
    assert len(written) == len(prompts)
    assert max(together) >= 3
    assert max(room) <= 3 * longest
