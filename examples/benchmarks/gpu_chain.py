"""Draft, critique and revision on one GPU, in rows a second: `python examples/benchmarks/gpu_chain.py --output r.json`.

The model has the shape of Llama 3 8B and random weights, made on the device; tokens are drawn from a vocabulary of its size.
What it writes is noise, and as fast as sense. Lengths are those of the one published run of this chain (HF's Constitutional-AI
recipe: three calls of about 107 new tokens, 7.7 conversations per second on 64 GPUs). Measured beside each other, in one run:

- ours: stages without a barrier, beginnings shared and put together (`cai.engines.paged`);
- the same engine stage after stage in the order given, sharing nothing: continuous batching as others call it;
- `generate` of transformers in padded batches, sorted by length, at the best of several batch sizes.

`--tiny` runs all of it on a CPU in seconds, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers
from gpu_workload import LLAMA_8B, STAGES, TINY, Size, Workload, random_model
from transformers import GenerationConfig

from cai.engines.base import EngineStatistics
from cai.engines.paged import PagedScheduler
from cai.engines.rows import Row

ANCHOR_PER_S = 7.7
BANDWIDTHS_BYTES_PER_S = {"H200": 4.8e12, "H100 PCIe": 2.0e12, "H100": 3.35e12, "A100": 2.04e12}


@dataclass
class Outcome:
    """What one way of computing took."""

    way: str
    conversations_per_s: float
    tokens_per_s: float
    seconds: float
    statistics: EngineStatistics = field(default_factory=EngineStatistics)
    peak_bytes: int = 0
    answers: dict[tuple[int, int], list[int]] = field(default_factory=dict[tuple[int, int], list[int]], repr=False)


def never(_: Row) -> bool:
    """Answers end at their length."""
    return False


Computed: TypeAlias = tuple[dict[tuple[int, int], list[int]], EngineStatistics]


def measured(way: str, work: Workload, compute: Callable[[], Computed], before: EngineStatistics | None = None) -> Outcome:
    """Time a computation. Conversations cut off by the time limit count by what was written of them."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    answers, after = compute()
    if gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    if before is not None:
        after = EngineStatistics(**{name: count - getattr(before, name) for name, count in asdict(after).items()})
    tokens = after.completion_tokens
    peak = torch.cuda.max_memory_allocated() if gpu else 0
    return Outcome(way, tokens / work.tokens_each / seconds, tokens / seconds, seconds, after, peak, answers)


def stream(scheduler: PagedScheduler, work: Workload, order: Sequence[int], deadline_s: float) -> Computed:
    """All three stages at once: the next turn of a conversation is added when the one before has ended."""
    places: dict[Row, tuple[int, int]] = {}
    answers: dict[tuple[int, int], list[int]] = {}

    def add(item: int, stage: int, before: Row | None) -> None:
        row = work.row(item, stage, before)
        places[row] = (item, stage)
        scheduler.add(row)

    for item in order:
        add(item, 0, None)
    stop = time.perf_counter() + deadline_s
    for row in scheduler.run():
        item, stage = places.pop(row)
        answers[item, stage] = row.generated
        if stage + 1 < STAGES:
            add(item, stage + 1, row)
        if time.perf_counter() > stop:
            break
    return answers, scheduler.statistics()


def stages(scheduler: PagedScheduler, work: Workload, count: int, deadline_s: float) -> Computed:
    """One stage after the other, each with a barrier at its end."""
    answers: dict[tuple[int, int], list[int]] = {}
    before: list[Row | None] = [None] * count
    stop = time.perf_counter() + deadline_s
    for stage in range(STAGES):
        rows = [work.row(item, stage, before[item]) for item in range(count)]
        for row in rows:
            scheduler.add(row)
        for _ in scheduler.run():
            if time.perf_counter() > stop:
                return answers, scheduler.statistics()
        answers |= {(item, stage): row.generated for item, row in enumerate(rows)}
        before = list(rows)
    return answers, scheduler.statistics()


def padded(model: Any, work: Workload, count: int, batch: int, stages_done: int = STAGES) -> Computed:
    """`generate` stage after stage, prompts of like length together; a batch runs until its longest answer has ended."""
    answers: dict[tuple[int, int], list[int]] = {}
    before: list[Row | None] = [None] * count
    written = 0
    for stage in range(stages_done):
        rows = [work.row(item, stage, before[item]) for item in range(count)]
        by_length = sorted(range(count), key=lambda item: len(rows[item].prompt))
        for start in range(0, count, batch):
            items = by_length[start : start + batch]
            width = max(len(rows[item].prompt) for item in items)
            most = max(rows[item].max_tokens for item in items)
            ids = torch.tensor([[0] * (width - len(rows[item].prompt)) + rows[item].prompt for item in items])
            seen = torch.tensor([[0] * (width - len(rows[item].prompt)) + [1] * len(rows[item].prompt) for item in items])
            how = GenerationConfig(
                do_sample=True, temperature=1.0, top_k=0, max_new_tokens=most, min_new_tokens=most, pad_token_id=0
            )
            made = model.generate(ids.to(model.device), attention_mask=seen.to(model.device), generation_config=how)
            for item, tokens in zip(items, made[:, width:].tolist(), strict=True):
                rows[item].generated = tokens[: rows[item].max_tokens]
                answers[item, stage] = rows[item].generated
                written += len(rows[item].generated)
        before = list(rows)
    return answers, EngineStatistics(completion_tokens=written)


@dataclass(frozen=True)
class Limit:
    """How fast decoding could be if nothing but reading memory took time: weights once a step, keys and values of each row.

    Prompts cost nothing in it, so a share of it is a share of what no schedule can exceed.
    """

    weights_bytes: int
    kv_bytes_per_token: int
    rows_together: float
    context_tokens: float
    bandwidth_bytes_per_s: float

    @property
    def bytes_per_step(self) -> float:
        return self.weights_bytes + self.rows_together * self.context_tokens * self.kv_bytes_per_token

    @property
    def tokens_per_s(self) -> float:
        return self.rows_together * self.bandwidth_bytes_per_s / self.bytes_per_step

    @classmethod
    def of(cls, model: Any, work: Workload, ours: Outcome, rows: int, bandwidth: float) -> Limit:
        config, done = model.config, ours.statistics
        weights = sum(each.nbytes for each in model.parameters()) - model.get_input_embeddings().weight.nbytes  # looked up
        kv = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
        weighted = 0.0
        for prompt, lengths in zip(work.prompts, work.lengths, strict=True):
            context = len(work.few_shots) + len(prompt)
            for stage, length in enumerate(lengths):
                context += len(work.requests[stage - 1]) if stage else 0
                weighted += length * (context + length / 2)
                context += length
        context_tokens = weighted / (work.tokens_each * len(work.lengths))
        return cls(weights, kv, done.row_steps / max(1, done.slot_steps // rows), context_tokens, bandwidth)

    def told(self) -> str:
        step_ms = 1e3 * self.bytes_per_step / self.bandwidth_bytes_per_s
        return (
            f"a step reads {self.weights_bytes / 1e9:.2f} GB of weights + {self.rows_together:.0f} rows x "
            f"{self.context_tokens:.0f} tokens x {self.kv_bytes_per_token / 1e3:.0f} kB = {self.bytes_per_step / 1e9:.2f} GB; "
            f"at {self.bandwidth_bytes_per_s / 1e12:.2f} TB/s that is {step_ms:.2f} ms "
            f"for {self.rows_together:.0f} tokens, so at most {self.tokens_per_s:,.0f} tokens/s"
        )


def same(one: Outcome, other: Outcome) -> dict[str, float]:
    """How much of the texts two schedules have in common. One that differs once differs from there on, in later turns too."""
    keys = one.answers.keys() & other.answers.keys()
    drafts = [key for key in keys if key[1] == 0]
    tokens = agreeing = 0
    for key in drafts:
        pairs = list(zip(one.answers[key], other.answers[key], strict=True))
        tokens += len(pairs)
        agreeing += next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))
    return {
        "answers": len(keys),
        "identical_answers": sum(one.answers[key] == other.answers[key] for key in keys) / max(1, len(keys)),
        "identical_drafts": sum(one.answers[key] == other.answers[key] for key in drafts) / max(1, len(drafts)),
        "draft_tokens_before_the_first_difference": agreeing / max(1, tokens),
    }


def told(outcome: Outcome, ours: Outcome) -> str:
    done = outcome.statistics
    line = f"{outcome.way:<34} {outcome.conversations_per_s:8.2f} rows/s {outcome.tokens_per_s:9,.0f} tokens/s"
    line += (
        f"  ours is {ours.conversations_per_s / outcome.conversations_per_s:5.2f}x  peak {outcome.peak_bytes / 2**30:6.1f} GiB"
    )
    if done.prompt_tokens:
        line += f"  {done.reused_tokens / (done.prompt_tokens + done.reused_tokens):4.0%} of prompt tokens reused"
    return line


def measure(size: Size, device: torch.device, *, graphs: bool = True) -> dict[str, Any]:
    """All ways of computing, one after the other, on one model."""
    model = random_model(size, device)
    work = Workload.draw(size, size.conversations)

    def paged(*, share: bool = True, rows: int | None = size.rows) -> PagedScheduler:
        return PagedScheduler(model, never, rows=rows, share=share, graphs=graphs)

    def with_paged(way: str, some: Workload, run: Callable[[PagedScheduler], Computed], scheduler: PagedScheduler) -> Outcome:
        try:
            warm = Workload.draw(size, 8, seed=1)  # the cache is made, kernels are chosen, the first graphs recorded
            stream(scheduler, warm, range(8), size.seconds)
            return measured(way, some, lambda: run(scheduler), scheduler.statistics())
        finally:
            scheduler.close()

    scheduler = paged()
    everyone = range(size.conversations)
    ours = with_paged("ours", work, lambda it: stream(it, work, everyone, size.seconds), scheduler)
    print(told(ours, ours), file=sys.stderr, flush=True)
    plain = with_paged(
        "continuous batching, nothing shared",
        work,
        lambda it: stages(it, work, size.conversations, size.seconds),
        paged(share=False),
    )
    print(told(plain, ours), file=sys.stderr, flush=True)

    some = Workload.draw(size, size.batched)
    tries: dict[int, float] = {}
    for batch in size.batches:  # the first stage of one batch says which size is best
        tries[batch] = measured(
            "", some, lambda batch=batch: padded(model, some, min(batch, size.batched), batch, 1)
        ).tokens_per_s
    best = max(tries, key=lambda batch: tries[batch])
    static = measured(f"generate, padded batches of {best}", some, lambda: padded(model, some, size.batched, best))
    print(told(static, ours), file=sys.stderr, flush=True)

    few = Workload.draw(size, size.twice)
    one = with_paged("", few, lambda it: stream(it, few, range(size.twice), size.seconds), paged())
    order = list(range(size.twice))[::-1]
    two = with_paged("", few, lambda it: stream(it, few, order, size.seconds), paged(rows=max(1, size.twice // 4)))

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    bandwidth = next((each for part, each in BANDWIDTHS_BYTES_PER_S.items() if part in name), None)
    result: dict[str, Any] = {
        "device": name,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
        "date": time.strftime("%Y-%m-%d"),
        "size": asdict(size),
        "tokens_written_per_conversation": work.tokens_each,
        "anchor_conversations_per_s": ANCHOR_PER_S,
        "times_the_anchor": ours.conversations_per_s / ANCHOR_PER_S,
        "ways": [{key: value for key, value in asdict(each).items() if key != "answers"} for each in (ours, plain, static)],
        "generate_first_stage_tokens_per_s": tries,
        "two_schedules": same(one, two),
    }
    if bandwidth is not None:
        bound = Limit.of(model, work, ours, scheduler.rows, bandwidth)
        print(bound.told(), file=sys.stderr)
        result["limit"] = asdict(bound) | {
            "bytes_per_step": bound.bytes_per_step,
            "tokens_per_s": bound.tokens_per_s,
            "share_reached": ours.tokens_per_s / bound.tokens_per_s,
        }
    return result


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few conversations, on a CPU too")
    parser.add_argument("--no-graphs", action="store_true", help="without CUDA graphs")
    parser.add_argument("--conversations", type=int, help="how many the continuous batches are given")
    parser.add_argument("--rows", type=int, help="computed together; by default as many as memory lets")
    parser.add_argument("--output", type=Path, help="write the result here, as JSON")
    options = parser.parse_args(arguments)
    if not (options.tiny or torch.cuda.is_available()):
        parser.error("there is no GPU; --tiny shows that it works")
    size = TINY if options.tiny else LLAMA_8B
    size = replace(
        size, conversations=options.conversations or size.conversations, rows=options.rows if options.rows else size.rows
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = measure(size, device, graphs=not options.no_graphs)
    text = json.dumps(result, indent=1)
    if options.output is not None:
        options.output.write_text(text + "\n")
    print(text)
    print(f"{result['times_the_anchor']:.2f}x the anchor of {ANCHOR_PER_S} conversations/s on 64 GPUs", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
