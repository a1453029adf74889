"""Draft → critique → revise on a CPU: our slot scheduler beside transformers' own ways, in one run, with the same texts.

    python examples/benchmarks/cpu_chain.py [--threads N] [--conversations N] [--rounds N] [--model FOLDER] [--json FILE]

Each conversation is three calls; a call's prompt is the last one with its answer and a request behind it. All prompts share a
system text of 200 tokens. Answers have set lengths (lognormal, mean 48 tokens), so every way does the same work; all are greedy
in float32, and the texts are compared. The ways:

    one at a time    `generate`, a conversation after the other
    static B         `generate` on left-padded batches of B, stage after stage, sorted by length
    static B, grown  the same with a cache that grows by 64 columns instead of being copied for each token
    continuous B     transformers' continuous batching, B requests at a time, block sharing on, stages streaming
    slots B          ours: B slots, stages streaming, each conversation's keys and values kept between its turns

The figure is processor time for one answer token, as a ratio to "one at a time" of the same round; with more than one thread,
wall time. A busy machine changes both, so ways are interleaved and the median ratio is told with its range.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import Cache, DynamicLayer

from cai.engines.base import SamplingParams
from cai.engines.decoding import SlotScheduler
from cai.engines.forward import Forward
from cai.engines.limits import BatchLimits
from cai.engines.rows import Row

STAGES = 3
GREEDY = SamplingParams(temperature=0.0)
Texts: TypeAlias = dict[tuple[int, int], list[int]]


@dataclass(frozen=True)
class Workload:
    """Conversations by token ids: the first prompt of each, what follows an answer, and how long the answers are."""

    first: list[list[int]]
    requests: list[list[int]]
    lengths: list[list[int]]

    @classmethod
    def drawn(cls, conversations: int, vocabulary: int, seed: int = 0) -> Workload:
        chance = random.Random(seed)  # noqa: S311 - no secret

        def ids(count: int) -> list[int]:
            return [chance.randrange(10, vocabulary) for _ in range(count)]

        system = ids(200)
        first = [system + ids(chance.randint(20, 100)) for _ in range(conversations)]
        lengths = [[max(8, min(128, int(chance.lognormvariate(3.62, 0.7)))) for _ in range(STAGES)] for _ in first]
        return cls(first, [ids(40), ids(30)], lengths)

    def part(self, conversations: int) -> Workload:
        return Workload(self.first[:conversations], self.requests, self.lengths[:conversations])

    @property
    def answer_tokens(self) -> int:
        return sum(map(sum, self.lengths))

    def next_prompt(self, prompt: list[int], answer: list[int], stage: int) -> list[int]:
        return [*prompt, *answer, *self.requests[stage]]


class _StopAt(StoppingCriteria):
    """Ends each row at its own length, as an end-of-turn token would."""

    def __init__(self, start: int, lengths: Sequence[int]) -> None:
        self._ends = start + torch.tensor(lengths)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002 - its interface
        return input_ids.shape[1] >= self._ends


class _GrownLayer(DynamicLayer):
    """A cache layer that allocates 64 columns ahead, so that a step writes one column and copies nothing."""

    store: tuple[torch.Tensor, torch.Tensor] | None = None
    columns = 0

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Any:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.columns + key_states.shape[2]
        if self.store is None or end > self.store[0].shape[2]:
            grown: list[torch.Tensor] = []
            for number, states in enumerate((key_states, value_states)):
                new = states.new_empty(states.shape[0], states.shape[1], end + 64, states.shape[3])
                if self.store is not None:
                    new[:, :, : self.columns] = self.store[number][:, :, : self.columns]
                grown.append(new)
            self.store = grown[0], grown[1]
        for store, states in zip(self.store, (key_states, value_states), strict=True):
            store[:, :, self.columns : end] = states
        self.columns = end
        self.keys, self.values = (store[:, :, :end] for store in self.store)
        return self.keys, self.values


def _generated(model: Any, prompts: Sequence[list[int]], lengths: Sequence[int], *, grown: bool = False) -> list[list[int]]:
    """One call of `generate` on left-padded prompts."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = GenerationConfig(max_new_tokens=max(lengths), do_sample=False, eos_token_id=None, pad_token_id=0)
    cache = {"past_key_values": Cache(layer_class_to_replicate=_GrownLayer)} if grown else {}
    written = model.generate(
        ids,
        attention_mask=mask,
        generation_config=settings,
        stopping_criteria=StoppingCriteriaList([_StopAt(width, lengths)]),
        **cache,
    )
    return [row[width : width + length].tolist() for row, length in zip(written, lengths, strict=True)]


def one_at_a_time(model: Any, work: Workload) -> Texts:
    texts: Texts = {}
    for number, prompt in enumerate(work.first):
        for stage in range(STAGES):
            (texts[number, stage],) = _generated(model, [prompt], [work.lengths[number][stage]])
            if stage + 1 < STAGES:
                prompt = work.next_prompt(prompt, texts[number, stage], stage)  # noqa: PLW2901
    return texts


def static(model: Any, work: Workload, batch: int, *, grown: bool) -> Texts:
    texts: Texts = {}
    prompts = list(work.first)
    for stage in range(STAGES):
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            written = _generated(
                model, [prompts[number] for number in some], [work.lengths[number][stage] for number in some], grown=grown
            )
            texts |= {(number, stage): text for number, text in zip(some, written, strict=True)}
        if stage + 1 < STAGES:
            prompts = [work.next_prompt(prompt, texts[n, stage], stage) for n, prompt in enumerate(prompts)]
    return texts


def continuous(model: Any, work: Workload, batch: int) -> Texts:
    config = ContinuousBatchingConfig(
        page_size=16, num_blocks=2048, max_batch_tokens=1024, max_requests_per_batch=batch, allow_block_sharing=True
    )
    settings = GenerationConfig(max_new_tokens=128, do_sample=False, eos_token_id=-1, pad_token_id=0)
    manager = model.init_continuous_batching(generation_config=settings, continuous_batching_config=config)
    manager.start()
    texts: Texts = {}
    waiting: dict[str, tuple[int, int, list[int]]] = {}

    def ask(number: int, stage: int, prompt: list[int]) -> None:
        waiting[f"{number}/{stage}"] = number, stage, prompt
        manager.add_request(prompt, request_id=f"{number}/{stage}", max_new_tokens=work.lengths[number][stage])

    try:
        for number, prompt in enumerate(work.first):
            ask(number, 0, prompt)
        while waiting:
            output = manager.get_result(timeout=1)
            if output is None or not output.is_finished():
                if not manager.is_running():
                    raise RuntimeError("continuous batching has stopped")
                continue
            number, stage, prompt = waiting.pop(output.request_id)
            texts[number, stage] = list(output.generated_tokens)
            if stage + 1 < STAGES:
                ask(number, stage + 1, work.next_prompt(prompt, texts[number, stage], stage))
    finally:
        manager.stop(block=True, timeout=30)
        if hasattr(manager, "destroy"):
            manager.destroy()
    return texts


def slots(model: Any, work: Workload, batch: int) -> Texts:
    scheduler = SlotScheduler(Forward(model), BatchLimits(batch, 2048, 1 << 30, exact=True), lambda _: False)
    texts: Texts = {}
    waiting: dict[Row, tuple[int, int]] = {}

    def ask(number: int, stage: int, prompt: list[int]) -> None:
        length = work.lengths[number][stage]
        row = Row(prompt, GREEDY, number, length, len(prompt) + length)
        waiting[row] = number, stage
        scheduler.add(row)

    for number, prompt in enumerate(work.first):
        ask(number, 0, prompt)
    for row in scheduler.run():
        number, stage = waiting.pop(row)
        texts[number, stage] = row.generated
        if stage + 1 < STAGES:
            ask(number, stage + 1, work.next_prompt(row.prompt, row.generated, stage))
    return texts


def ways(batches: Iterable[int], alone: int) -> dict[str, tuple[Callable[[Any, Workload], Texts], int | None]]:
    """Name → what to run, and on how many conversations (None: all)."""
    found: dict[str, tuple[Callable[[Any, Workload], Texts], int | None]] = {"one at a time": (one_at_a_time, alone)}
    for batch in batches:
        found[f"static {batch}"] = (lambda model, work, batch=batch: static(model, work, batch, grown=False)), None
        found[f"static {batch}, grown"] = (lambda model, work, batch=batch: static(model, work, batch, grown=True)), None
        found[f"continuous {batch}"] = (lambda model, work, batch=batch: continuous(model, work, batch)), None
        found[f"slots {batch}"] = (lambda model, work, batch=batch: slots(model, work, batch)), None
    return found


def small_llama(*, layers: int = 6, width: int = 256) -> Any:
    """Random weights: what it writes is noise, and costs what text costs."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=3 * width,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.06,
    )
    return cast("Any", AutoModelForCausalLM).from_config(config).eval().float()


def measure(model: Any, work: Workload, rounds: int, batches: Sequence[int], *, alone: int, wall: bool) -> dict[str, Any]:
    """Ratios to "one at a time", and the share of texts that are the same as its or as static batching's."""
    model.generation_config.eos_token_id = None
    seconds: dict[str, list[float]] = {}
    reference: Texts = {}
    same: dict[str, float] = {}
    for turn in range(rounds):
        for name, (way, conversations) in ways(batches, alone).items():
            part = work.part(conversations) if conversations else work
            began = time.perf_counter() if wall else time.process_time()
            texts = way(model, part)
            took = (time.perf_counter() if wall else time.process_time()) - began
            seconds.setdefault(name, []).append(took / part.answer_tokens)
            for key, text in texts.items():
                reference.setdefault(key, text)
            same[name] = sum(reference[key] == text for key, text in texts.items()) / len(texts)
            print(f"round {turn + 1}  {name:24} {1 / seconds[name][-1]:9.0f} tokens/s", flush=True)
    base = seconds["one at a time"]
    ratios = {name: [b / s for b, s in zip(base, each, strict=True)] for name, each in seconds.items()}
    return {
        name: {
            "ratio": round(statistics.median(each), 2),
            "range": [round(min(each), 2), round(max(each), 2)],
            "tokens_per_s": round(1 / statistics.median(seconds[name])),
            "same_texts": same[name],
        }
        for name, each in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Draft → critique → revise on a CPU, beside transformers' own ways.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--alone", type=int, default=6, help="conversations run one at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--model", type=Path, help="a model folder instead of a 5.8M Llama with random weights")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.model:
        model = cast("Any", AutoModelForCausalLM).from_pretrained(asked.model, dtype=torch.float32).eval()
    else:
        model = small_llama()
    work = Workload.drawn(asked.conversations, model.config.vocab_size)
    with torch.inference_mode():
        found = measure(model, work, asked.rounds, asked.batches, alone=asked.alone, wall=asked.threads > 1)
    best = {
        kind: max((n for n in found if n.startswith(kind)), key=lambda n: found[n]["ratio"]) for kind in ("static", "slots")
    }
    gain = found[best["slots"]]["ratio"] / found[best["static"]]["ratio"]
    print(f"\n{'':24} ratio  range         tokens/s  same texts")
    for name, row in found.items():
        low, high = row["range"]
        print(f"{name:24} {row['ratio']:5.2f}  {low:5.2f}–{high:5.2f}  {row['tokens_per_s']:9,}  {row['same_texts']:.1%}")
    ours = found[best["slots"]]["ratio"]
    print(f"\nours ({best['slots']}): {ours:.2f} × one at a time, {gain:.2f} × the best static ({best['static']})")
    if asked.json:
        about = {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {asked.threads} threads",
            "torch": torch.__version__,
            "conversations": asked.conversations,
            "answer_tokens": work.answer_tokens,
            "ways": found,
        }
        asked.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
