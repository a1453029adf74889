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
    min_p: Annotated[
        float, Field(ge=0.0, le=1.0, description="Leave out tokens less likely than this share of the likeliest; 0: none.")
    ] = 0.0
    repetition_penalty: Annotated[
        float,
        Field(
            gt=0.0, le=10.0, description="Above 1, tokens that stand in the prompt or the answer already become less likely."
        ),
    ] = 1.0
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


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What an engine has done since it was opened. Counters only grow; their ratios are what a display shows.

    Args:
        prompt_tokens: Prompt tokens that went through the model to be answered.
        reused_tokens: Prompt tokens whose keys and values were there already (an earlier turn, a shared beginning).
        scored_tokens: Tokens that went through the model to be scored: prompts and continuations. Servers, which do not tell
            what they share, count them as prompt tokens.
        reused_scored_tokens: What more there would have been, had each request been scored alone.
        completion_tokens: Tokens drawn.
        row_steps: Rows decoded, summed over all decoding steps.
        slot_steps: Rows there was room for, summed over all decoding steps: `row_steps / slot_steps` is the occupancy.
        waiting: Requests accepted and not begun.
        running: Requests in work.
        retries: Requests sent again (servers).
        smaller_batches: How often memory ran out and the batch was made smaller.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    row_steps: int = 0
    slot_steps: int = 0
    waiting: int = 0
    running: int = 0
    retries: int = 0
    smaller_batches: int = 0
    scored_tokens: int = 0
    reused_scored_tokens: int = 0

    @property
    def read_tokens(self) -> int:
        """All tokens that went through the model without having been drawn."""
        return self.prompt_tokens + self.scored_tokens

    @property
    def spared_tokens(self) -> int:
        """All tokens that would have, had nothing been shared."""
        return self.reused_tokens + self.reused_scored_tokens

    def __add__(self, later: EngineStatistics) -> EngineStatistics:
        """Both together; what waits and runs is that of the later one."""
        return EngineStatistics(
            prompt_tokens=self.prompt_tokens + later.prompt_tokens,
            reused_tokens=self.reused_tokens + later.reused_tokens,
            completion_tokens=self.completion_tokens + later.completion_tokens,
            row_steps=self.row_steps + later.row_steps,
            slot_steps=self.slot_steps + later.slot_steps,
            waiting=later.waiting,
            running=later.running,
            retries=self.retries + later.retries,
            smaller_batches=self.smaller_batches + later.smaller_batches,
            scored_tokens=self.scored_tokens + later.scored_tokens,
            reused_scored_tokens=self.reused_scored_tokens + later.reused_scored_tokens,
        )


class GenerationStream(Protocol):
    """Requests go in at any time, answers come out as they are ready: a critique can start when its own draft has ended."""

    @property
    def works_unread(self) -> bool:
        """Whether answers come while `results` is not read, as a server's do; a model in this process works only then."""
        ...

    def submit(self, request: GenerationRequest) -> int:
        """Hand in a request; never blocks on the model. Returns its ticket: 0, 1, 2 … in the order of submission."""
        ...

    def results(self, patience_s: float | None = None) -> Iterator[tuple[int, GenerationResult]]:
        """(ticket, answer) as they are ready, each ticket once, until nothing submitted is unanswered.

        Requests submitted while it is read are answered too; after it has ended, it may be called again.

        Args:
            patience_s: End also when nothing has become ready for so long. A stream that does not work unread takes no notice:
                waiting would not bring its answers.
        """
        ...

    def close(self) -> None:
        """Give up what is unanswered and free what the stream holds. Safe to call twice."""
        ...


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
        """Length of the rendered prompt, in tokens: exact, by the model's own chat template.

        The one exception is a model on a server that counts nothing and whose tokenizer is not at hand: an estimate.
        """
        ...

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        """Hash of exactly what determines the answer: fingerprint, prompt token ids, parameters, noise key, continuations."""
        ...

    def statistics(self) -> EngineStatistics:
        """What it has done so far; may be asked from another thread."""
        ...

    def stream(self) -> GenerationStream:
        """A new stream of requests. What belongs together (the turns of one conversation) should go through one stream."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        """Answer requests that are all known beforehand (`generate_all` does it with a stream)."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]: ...


def generate_all(engine: Engine, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
    """`Engine.generate` by way of `Engine.stream`."""
    stream = engine.stream()
    try:
        for request in requests:
            stream.submit(request)
        yield from stream.results()
    finally:
        stream.close()
