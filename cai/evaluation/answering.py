"""Prompts put to one model, over one turn or several.

The same trial, temperature and number get the same noise from every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cai.engines.base import Engine, FinishReason, Generation, GenerationRequest, RequestFailure, SamplingParams
from cai.evaluation.suites import Trial
from constitution.messages import Conversation


class Sampling(Protocol):
    """How often each prompt is answered."""

    @property
    def temperatures(self) -> tuple[float, ...]: ...
    @property
    def seeds(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Try:
    """One answer that is wanted: number `number` of those to the trial at this temperature."""

    trial: Trial
    temperature: float
    number: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer that is judged, and the conversation it answers: earlier answers of the model are turns of it."""

    conversation: Conversation
    text: str
    cut: bool = False


def tries(trials: Sequence[Trial], sampling: Sampling) -> list[Try]:
    """Every trial at every temperature; above 0 as many times as there are seeds."""
    return [
        Try(trial, temperature, number)
        for temperature in sampling.temperatures
        for number in range(sampling.seeds if temperature > 0 else 1)
        for trial in trials
    ]


def answer(
    engine: Engine,
    asked: Sequence[Try],
    max_tokens: Sequence[int],
    *,
    seed: int,
    on_done: Callable[[int, int], None] | None = None,
) -> list[Reply | RequestFailure]:
    """The last answer of each conversation, in the order given. A turn that fails ends its own conversation alone.

    Args:
        engine: Answers. A conversation goes on as soon as its own turn is answered.
        asked: What is wanted.
        max_tokens: The longest answer of each.
        seed: Of the noise.
        on_done: Called with (conversations finished, in all).
    """
    replies: list[Reply | RequestFailure] = [RequestFailure("no_answer", "the engine gave no result")] * len(asked)
    stream = engine.stream()
    waiting: dict[int, tuple[int, int, Conversation]] = {}  # ticket → place, turn, conversation

    def submit(place: int, turn: int, conversation: Conversation) -> None:
        each = asked[place]
        request = GenerationRequest(
            messages=conversation,
            params=SamplingParams(temperature=each.temperature, max_tokens=max_tokens[place]),
            noise_key=f"{seed}/{each.trial.item.uid}/{each.number}/evaluate/{turn}",
        )
        waiting[stream.submit(request)] = place, turn, conversation

    try:
        for place, each in enumerate(asked):
            submit(place, 0, each.trial.item.messages)
        done = 0
        for ticket, result in stream.results():
            place, turn, conversation = waiting.pop(ticket)
            if isinstance(result, Generation):
                more = asked[place].trial.after(conversation, result.text.strip(), turn)
                if more is not None:
                    submit(place, turn + 1, more)
                    continue
            replies[place] = (
                Reply(conversation, result.text.strip(), result.finish_reason is FinishReason.LENGTH)
                if isinstance(result, Generation)
                else result
            )
            done += 1
            if on_done:
                on_done(done, len(asked))
    finally:
        stream.close()
    return replies
