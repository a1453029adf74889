"""Both schedulers behind the engine: the same texts, and scores in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import Architecture, make_checkpoint
from naive import OpenTiny, conversations

from cai.engines.base import GenerationRequest, SamplingParams, ScoreRequest
from cai.engines.local import LocalEngine
from cai.errors import EngineError
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from constitution.messages import user

PARAMS = (
    SamplingParams(temperature=0.0, max_tokens=12),
    SamplingParams(temperature=0.9, top_p=0.9, max_tokens=12),
    SamplingParams(temperature=1.2, top_k=20, min_p=0.02, repetition_penalty=1.1, max_tokens=7),
)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_pages_write_what_slots_write_and_scores_in_between_change_nothing(
    open_tiny: OpenTiny, architecture: Architecture
) -> None:
    loaded = open_tiny(architecture)
    requests = [
        GenerationRequest(messages, PARAMS[number % 3], f"1/{number}/0/draft/0")
        for number, messages in enumerate(conversations(10, 12))
    ]
    questions = [ScoreRequest(messages, (" A", " B")) for messages in conversations(5, 12)]
    slots, paged = LocalEngine(loaded, scheduler="slots"), LocalEngine(loaded, scheduler="paged", max_batch=4)
    expected, scores = dict(slots.generate(requests)), dict(slots.score(questions))
    assert dict(paged.generate(requests)) == expected
    assert dict(paged.score(questions)) == scores
    stream = paged.stream()
    for request in requests:
        stream.submit(request)
    answers = stream.results()
    first = dict([next(answers)])
    assert dict(paged.score(questions)) == scores, "while rows are in work"
    assert first | dict(answers) == expected
    stream.close()


def test_a_model_that_pages_cannot_run_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "gemma3", attn_logit_softcapping=20.0)
    engine = LocalEngine(load_model(ModelSpec(name=str(folder), device="cpu", dtype="float32")), scheduler="paged")
    with pytest.raises(EngineError) as refused:
        list(engine.generate([GenerationRequest((user("Hello"),), PARAMS[0], "k")]))
    assert "engine.scheduler: slots" in refused.value.hint
