"""An engine for a small server, and what it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from small_server import Behaviour, SmallServer

from cai.engines.base import (
    GenerationRequest,
    SamplingParams,
)
from cai.engines.server import Retries, ServerEngine
from cai.models.spec import ModelSpec
from constitution.messages import user

QUICK = Retries(first_wait_s=0.01, longest_wait_s=0.05)
WARM = SamplingParams(max_tokens=12)
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
ALL_WAYS = frozenset({"prompt_logprobs", "echo_ids", "echo_text", "top_logprobs"})


@contextmanager
def engine_for(server: SmallServer, behaviour: Behaviour | None = None, **spec: Any) -> Iterator[ServerEngine]:
    server.behaviour = behaviour or Behaviour()
    engine = ServerEngine(ModelSpec.model_validate({"name": "tiny", "server": server.url} | spec), retries=QUICK)
    server.bodies.clear()
    try:
        yield engine
    finally:
        engine.close()


def ask(text: str, params: SamplingParams = WARM, key: str | None = None) -> GenerationRequest:
    return GenerationRequest((user(text),), params, key or f"0/{text}/0/draft/0")
