"""Rows for the paged scheduler, and the plain loop that says what they should become."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from naive import conversations
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cai.engines.base import FinishReason, SamplingParams
from cai.engines.paged import PagedScheduler
from cai.engines.rows import Row
from cai.engines.sampling import gumbel_noise, noise_seed, position_seed, vocabulary_hash
from cai.models.loading import LoadedModel

GREEDY = SamplingParams(temperature=0.0)
DRAWN = (
    SamplingParams(temperature=0.9),
    SamplingParams(temperature=1.2, top_k=20),
    SamplingParams(temperature=0.8, top_p=0.9, repetition_penalty=1.3),
    SamplingParams(temperature=1.0, top_k=50, top_p=0.7, min_p=0.02),
    GREEDY.model_copy(update={"repetition_penalty": 1.5}),
    GREEDY,
)


def token_of(logits_1V: torch.Tensor, tokens: list[int], row: Row, position: int) -> int:
    """transformers' own processors, then the noise of the row's key at its position."""
    params = row.params
    steps = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        steps.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature > 0:
        steps.append(TemperatureLogitsWarper(params.temperature))
        if params.top_k:
            steps.append(TopKLogitsWarper(params.top_k))
        if params.top_p < 1:
            steps.append(TopPLogitsWarper(params.top_p))
        if params.min_p:
            steps.append(MinPLogitsWarper(params.min_p))
    scores_1V = cast("torch.Tensor", steps(cast("Any", torch.tensor([tokens])), cast("Any", logits_1V)))
    if params.temperature > 0:
        vocabulary_V = vocabulary_hash(scores_1V.shape[-1], scores_1V.device)
        scores_1V = scores_1V + gumbel_noise([position_seed(row.seed, position)], vocabulary_V)
    return int(scores_1V.argmax(-1))


_WRITTEN: dict[object, list[int]] = {}
"""What the oracle has written before; a row's text does not depend on how long it may become."""


def one_by_one(loaded: LoadedModel, row: Row, ended: Callable[[Row], bool] = lambda _: False) -> Row:
    """The oracle: a forward pass of all tokens for every token, no cache, one row."""
    model = cast("Any", loaded.model)
    known = _WRITTEN.setdefault((id(loaded), tuple(row.prompt), row.params, row.seed), [])
    written = Row(row.prompt, row.params, row.seed, row.max_tokens, row.most_tokens)
    while written.finish is None:
        place = len(written.generated)
        if place == len(known):
            tokens = [*row.prompt, *known]
            with torch.inference_mode():
                logits_1V = model(torch.tensor([tokens]), use_cache=False).logits[:, -1]
            known.append(token_of(logits_1V, tokens, row, place))
        written.generated.append(known[place])
        if ended(written):
            written.finish = FinishReason.STOP
        elif len(written.generated) >= row.max_tokens or written.length >= row.most_tokens:
            written.finish = FinishReason.LENGTH
    return written


def rows_of(loaded: LoadedModel, count: int, tokens: int = 12, params: Sequence[SamplingParams] = DRAWN) -> list[Row]:
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(count)]
    return [
        Row(prompt, params[number % len(params)], noise_seed(f"1/{number}"), tokens - number % 3, len(prompt) + tokens)
        for number, prompt in enumerate(prompts)
    ]


@contextmanager
def scheduler(loaded: LoadedModel, ended: Callable[[Row], bool] = lambda _: False, **settings: Any) -> Iterator[PagedScheduler]:
    small: dict[str, Any] = {"rows": 4, "batch_tokens": 64, "cache_tokens": 4096}
    made = PagedScheduler(loaded.model, ended, **(small | settings))
    try:
        yield made
    finally:
        made.close()


def run(scheduled: PagedScheduler, rows: Sequence[Row]) -> list[Row]:
    for row in rows:
        scheduled.add(row)
    ended = list(scheduled.run())
    assert sorted(map(id, ended)) == sorted(map(id, rows))
    return ended


def texts(rows: Sequence[Row]) -> list[tuple[list[int], FinishReason | None]]:
    return [(row.generated, row.finish) for row in rows]


def paged_threads() -> list[str]:
    """Names of the threads in which transformers generates."""
    return [thread.name for thread in threading.enumerate() if "_run_generation_loop" in thread.name]
