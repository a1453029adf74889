"""Both schedulers behind the engine: the same texts, and scores in between."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from checkpoints import Architecture, make_checkpoint
from naive import OpenTiny, conversations

from cai.engines.base import Generation, GenerationRequest, SamplingParams, ScoreRequest
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


def test_where_pages_break_an_automatic_engine_goes_on_with_slots(
    open_tiny: OpenTiny, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = open_tiny("llama")
    requests = [GenerationRequest(m, PARAMS[0], f"{n}") for n, m in enumerate(conversations(10, 12))]
    expected = dict(LocalEngine(loaded).generate(requests))
    broken = replace(loaded)
    model = cast("Any", broken.model)
    forward, calls = model.forward, 0

    def unfit(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if threading.current_thread() is not threading.main_thread():  # that of continuous batching
            calls += 1
            if calls > 5:
                raise RuntimeError("no kernel image is available for execution on the device")
        return forward(*args, **kwargs)

    model.forward = unfit
    try:
        engine = LocalEngine(broken)
        engine._scheduler = engine._paged()
        assert dict(engine.generate(requests)) == expected
        done = engine.statistics()
        assert done.completion_tokens >= sum(
            each.completion_tokens for each in expected.values() if isinstance(each, Generation)
        )
        assert "Going on with slots" in caplog.text
        with pytest.raises(EngineError, match="no kernel image"):
            list(LocalEngine(broken, scheduler="paged").generate(requests))
    finally:
        model.forward = forward


def test_a_model_that_pages_cannot_run_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "gemma3", attn_logit_softcapping=20.0)
    engine = LocalEngine(load_model(ModelSpec(name=str(folder), device="cpu", dtype="float32")), scheduler="paged")
    with pytest.raises(EngineError) as refused:
        list(engine.generate([GenerationRequest((user("Hello"),), PARAMS[0], "k")]))
    assert "engine.scheduler: slots" in refused.value.hint
