"""What engines are compared with: transformers one prompt at a time, and log-probabilities in float64 by a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import torch
from checkpoints import Architecture

from cai.models.loading import LoadedModel
from constitution.messages import Conversation, assistant, user

OpenTiny: TypeAlias = Callable[[Architecture], LoadedModel]


def greedy(loaded: LoadedModel, prompt: Sequence[int], tokens: int) -> list[int]:
    """The tokens that `model.generate` writes, the one that ended the answer included."""
    model = cast("Any", loaded.model)
    ids = torch.tensor([list(prompt)])
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=sorted(loaded.tokenizer.stop_ids),
        pad_token_id=0,
    )
    return written[0, len(prompt) :].tolist()


def logp(loaded: LoadedModel, prompt: Sequence[int], continuation: Sequence[int]) -> float:
    """Sum of log-probabilities: one forward pass without a cache for every token, log-softmax in float64."""
    model = cast("Any", loaded.model)
    total, ids = 0.0, list(prompt)
    with torch.inference_mode():
        for token in continuation:
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            total += float(logits.double().log_softmax(-1)[token])
            ids.append(token)
    return total


def text_of_words(number: int, words: int) -> str:
    """Different texts of a given length, from words the tiny tokenizers know."""
    known = ["the", "reply", "user", "false", "claim", "moon", "cheese", "Paris", "answer", "principle", "one", "two", "check"]
    return " ".join(known[(number * 7 + word * (number + 3)) % len(known)] for word in range(words))


def conversations(count: int, longest_words: int = 40) -> list[Conversation]:
    """Conversations of many lengths; some share long beginnings, some are equal, some have several turns."""
    made: list[Conversation] = []
    for number in range(count):
        text = text_of_words(number % 5, longest_words)
        match number % 4:
            case 0:
                made.append((user(text_of_words(number, 1 + number * 5 % longest_words)),))
            case 1:
                made.append((user(text),))
            case 2:
                made.append((user(f"{text} {number}"),))
            case _:
                made.append((user(text), assistant(text_of_words(number, 6)), user("Why?")))
    return made
