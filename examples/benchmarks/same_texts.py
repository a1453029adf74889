"""Do texts depend on the batch? `python examples/benchmarks/same_texts.py [--model M] [--dtype D] [--batches A B]`.

The same requests are answered in batches of two sizes, in two orders; half of them greedily, half at temperature 1 with noise
of their own. Printed: how many answers are the same, byte for byte; and, for what this machine and precision do to logits, the
largest difference between a row's log-probabilities in a batch and those computed for it alone.
"""

from __future__ import annotations

import argparse
import platform
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import torch
from torch import Tensor

from cai.engines.base import GenerationRequest, GenerationResult, SamplingParams
from cai.engines.decoding import SlotScheduler
from cai.engines.drawing import Drawing
from cai.engines.forward import Forward
from cai.engines.limits import BatchLimits
from cai.engines.local import LocalEngine
from cai.engines.opening import SchedulerName
from cai.engines.rows import Row
from cai.models.loading import LoadedModel, load_model
from cai.models.spec import DtypeName, ModelSpec
from constitution.messages import user

QUESTIONS = (
    "Why is the sky blue?",
    "I think 2 + 2 = 5. Am I right?",
    "Write a short poem about snow.",
    "What is the capital of Ghana?",
    "How do I mend a dripping tap?",
    "Is it safe to mix bleach and vinegar?",
    "Tell me a joke.",
    "What will the weather be in ten years?",
)
COMPARED_EVERY = 8
"""In every eighth forward pass, one row is computed alone too: each in its turn."""


@dataclass(frozen=True, slots=True)
class Found:
    """Answers that were the same, of how many; and the largest difference in nats of a log-probability."""

    same: int
    answers: int
    largest_nats: float


class Compared(Drawing):
    """Draws as `Drawing`, and looks at how far logits lie from those computed alone."""

    largest_nats = 0.0
    passes = 0

    def next_tokens(self, logits_BV: Tensor, rows: Sequence[Row]) -> list[int]:
        self.passes += 1
        if self.passes % COMPARED_EVERY == 0:
            place = self.passes // COMPARED_EVERY % len(rows)
            alone_V = self.logits_alone(rows[place])[0].float().log_softmax(-1)
            apart = (logits_BV[place].float().log_softmax(-1) - alone_V).abs().max()
            self.largest_nats = max(self.largest_nats, float(apart))
        return super().next_tokens(logits_BV, rows)


def requests_of(count: int, max_tokens: int, longest_words: int) -> list[GenerationRequest]:
    """Prompts of many lengths."""
    chance = random.Random(1)  # noqa: S311 - no secret
    made: list[GenerationRequest] = []
    for number in range(count):
        question = f"{QUESTIONS[number // 2 % len(QUESTIONS)]} {'please ' * chance.randint(0, longest_words)}"
        params = SamplingParams(temperature=float(number % 2), max_tokens=max_tokens)
        made.append(GenerationRequest((user(question),), params, f"0/{number}/0/draft/0"))
    return made


def answers_of(
    loaded: LoadedModel, requests: Sequence[GenerationRequest], batch: int, scheduler: SchedulerName
) -> list[GenerationResult]:
    engine = LocalEngine(loaded, max_batch=batch, scheduler=scheduler)
    found = dict(engine.generate(requests))
    return [found[place] for place in range(len(requests))]


def largest_difference(loaded: LoadedModel, requests: Sequence[GenerationRequest], batch: int) -> float:
    """In nats, over some of the steps of one batch."""
    forward = Forward(loaded.model)
    scheduler = SlotScheduler(forward, BatchLimits(batch, 4096, 1 << 20), lambda _: False)
    compared = scheduler.drawing = Compared(forward, exact=False)
    for number, request in enumerate(requests):
        prompt = loaded.tokenizer.encode_chat(request.messages)
        most = request.params.max_tokens
        scheduler.add(Row(prompt, request.params, number, most, len(prompt) + most))
    for _ in scheduler.run():
        pass
    return compared.largest_nats


def measure(
    loaded: LoadedModel,
    batches: tuple[int, int],
    *,
    answers: int = 32,
    max_tokens: int = 40,
    longest_words: int = 20,
    scheduler: SchedulerName = "auto",
) -> Found:
    """Answer twice, and compare."""
    requests = requests_of(answers, max_tokens, longest_words)
    one = answers_of(loaded, requests, batches[0], scheduler)
    other = answers_of(loaded, requests[::-1], batches[1], scheduler)[::-1]
    same = sum(a == b for a, b in zip(one, other, strict=True))
    return Found(same, answers, largest_difference(loaded, requests, max(batches)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether texts depend on the batch.")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--batches", type=int, nargs=2, default=[5, 32])
    parser.add_argument("--answers", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=40)
    parser.add_argument("--longest-words", type=int, default=20, help="added to the questions")
    parser.add_argument("--scheduler", default="auto", choices=["auto", "slots", "paged"])
    asked = parser.parse_args()
    dtype: DtypeName = asked.dtype
    loaded = load_model(ModelSpec(name=asked.model, dtype=dtype))
    found = measure(
        loaded,
        (asked.batches[0], asked.batches[1]),
        answers=asked.answers,
        max_tokens=asked.max_tokens,
        longest_words=asked.longest_words,
        scheduler=asked.scheduler,
    )
    precision = str(loaded.dtype).removeprefix("torch.")
    print(f"{date.today().isoformat()}, {platform.machine()}, {loaded.device}, {precision}, torch {torch.__version__}")
    print(f"{found.same} of {found.answers} answers are the same in batches of {asked.batches[0]} and {asked.batches[1]}")
    print(f"largest difference of a log-probability to that computed alone: {found.largest_nats:.1e} nats")


if __name__ == "__main__":
    main()
