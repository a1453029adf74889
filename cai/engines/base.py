"""What an engine is: batched generation and scoring of conversations.

Knows requests and results only; knows no model. Importing it costs nothing (no torch). All log-probabilities are natural
logs (nats). An engine answers every request exactly once, with a result or with a `RequestFailure`: one bad row is data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from constitution.messages import Conversation


class SamplingParams(BaseModel):
    """How tokens are drawn. `temperature` 0 is greedy; the order of the warpers is that of transformers' `generate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(ge=0.0, le=5.0, description="0 is greedy; above 1 flattens the distribution.")] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0, description="Draw from the likeliest tokens that hold this much of it.")] = (
        1.0
    )
    top_k: Annotated[int, Field(ge=0, description="Draw from so many likeliest tokens; 0: from all.")] = 0
    max_tokens: Annotated[int, Field(ge=1, description="Longest answer, in tokens.")] = 256
    stop: Annotated[
        tuple[str, ...],
        Field(description="Generation ends before the first of these; the text itself is no part of the result."),
    ] = ()


class FinishReason(StrEnum):
    STOP = "stop"
    """The model ended its turn, or a stop string came."""
    LENGTH = "length"
    """Cut at `max_tokens` or at the context length: not a whole answer."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One turn to be written by the model.

    Args:
        messages: The conversation so far; ends with a user turn.
        params: Sampling parameters.
        noise_key: What the sampling noise is drawn from, together with the token position: same key, model and prompt,
            same text, whatever else is in the batch. By convention `seed/uid/replica/stage/round`.
        response_prefix: Text the assistant's turn already starts with (not repeated in the result).
    """

    messages: Conversation
    params: SamplingParams
    noise_key: str
    response_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    thoughts: str = ""
    """What a thinking model wrote inside `<think>`, taken out of `text`; it counts as completion tokens."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Log-probabilities of several continuations of one assistant turn.

    Args:
        messages: The conversation so far; ends with a user turn.
        response_prefix: Text the assistant's turn already starts with ("" for none).
        continuations: Texts to score after it, each on its own. A leading space counts.
    """

    messages: Conversation
    continuations: tuple[str, ...]
    response_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    """`logps[i]` in nats: the sum over the tokens of continuation i, given messages and response prefix."""

    logps: tuple[float, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why one request could not be answered. `cause` is a short slug (`prompt_too_long`, `empty_answer`, `out_of_memory` …)."""

    cause: str
    detail: str


GenerationResult: TypeAlias = Generation | RequestFailure
ScoreResult: TypeAlias = Scores | RequestFailure


class Engine(Protocol):
    """A model that can generate and score. Results come in any order, as they are ready, each with its request's index."""

    @property
    def fingerprint(self) -> str:
        """Identifies weights, adapter, dtype, tokenizer and chat template: equal fingerprints, equal answers."""
        ...

    @property
    def context_tokens(self) -> int:
        """The longest prompt plus answer the model can take, in tokens."""
        ...

    def count_tokens(self, messages: Conversation, response_prefix: str = "") -> int:
        """Exact length of the rendered prompt, in tokens, by the model's own chat template."""
        ...

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        """Hash of exactly what determines the answer: fingerprint, prompt token ids, parameters, noise key, continuations."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]: ...

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]: ...
