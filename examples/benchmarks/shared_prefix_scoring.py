"""Scoring a pair under K principles in both orders: our packed trees beside transformers on separate prompts, in one run.

    python examples/benchmarks/shared_prefix_scoring.py [--model small|medium|sliding|FOLDER] [--principles 1 2 4 8 16 32]
    python examples/benchmarks/shared_prefix_scoring.py --pairs-file PAIRS.jsonl [--model smollm2-135m] [--json FILE]

Without a file: token ids at random, a prefix of 600 tokens in each order (the orders share nothing) and about 60 for each
principle, with models of random weights: a Llama of 5.8M (`small`) or 27M (`medium`), and the layers of a Gemma 3 of 6M that
see 256 tokens back (`sliding`). With a file: comparisons of real pairs (`chosen` and `rejected`, each a whole dialogue of
"Human:" and "Assistant:" turns) under the shipped principles, through the engine, tokenizer and all. The ways:

    separate B   transformers on whole prompts, B at a time, sorted by length, the output head at the last token only: padded on
                 the left with a mask, or on the right with none; the fastest of both and of all B is what ours is compared with
    cache B      transformers: the prefix once into a `DynamicCache`, then B ends at a time on copies of it
    ours         `score_sequences`, or `LocalEngine.score`

The figure is processor time (on a GPU: time) beside the fastest separate way of the same round. Ways are interleaved, and the
median is told with its range. `tokens` is how many more tokens separate prompts have: no way of sharing can gain more but by
leaving work out elsewhere, as ours does in the last layer.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, Gemma3TextConfig, LlamaConfig

from cai.engines.base import ScoreRequest, Scores
from cai.engines.forward import Forward
from cai.engines.limits import BatchLimits
from cai.engines.local import LocalEngine
from cai.engines.requests import encode_scored
from cai.engines.scoring import ScoredSequences, ScoredTokens, score_sequences
from cai.labels.letters import ORDERS, Compared, comparison_request
from cai.models.loading import LoadedModel, load_model
from cai.models.spec import ModelSpec
from constitution.loading import load_constitution
from constitution.messages import Conversation, Message
from constitution.schema import Principle

PREFIX_TOKENS = 600
SUFFIX_TOKENS = (50, 70)
WINDOW = 256
BATCHES = (2, 4, 8, 16)
LETTERS = (35, 36)
PRINCIPLES = Path(__file__).resolve().parents[2] / "principles"
Logps: TypeAlias = list[list[float]]
Way: TypeAlias = Callable[[], Logps]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The ids of one prompt, and the tokens whose log-probabilities after it are wanted."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    wanted: tuple[int, ...] = LETTERS

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prefix + self.suffix

    def scored(self, index: int) -> ScoredSequences:
        ids = self.ids
        return ScoredSequences(index, tuple((*ids, token) for token in self.wanted), (len(ids),) * len(self.wanted))


def drawn_prompts(pairs: int, principles: int, vocabulary: int, seed: int = 0) -> list[Prompt]:
    """Of each pair, both orders under every principle."""
    chance = random.Random(seed)  # noqa: S311 - no secret

    def ids(count: int) -> tuple[int, ...]:
        return tuple(chance.randrange(40, vocabulary) for _ in range(count))

    ends = [ids(chance.randint(*SUFFIX_TOKENS)) for _ in range(principles)]
    return [Prompt(prefix, end) for prefix in (ids(PREFIX_TOKENS) for _ in range(2 * pairs)) for end in ends]


# ---- transformers


def _logps(model: Any, hidden_BH: Tensor, prompts: Sequence[Prompt]) -> Logps:
    logps_BV = model.get_output_embeddings()(hidden_BH).float().log_softmax(-1)
    return [logps_BV[row, list(prompt.wanted)].tolist() for row, prompt in enumerate(prompts)]


def _in_batches(prompts: Sequence[Prompt], batch: int, scored: Callable[[Sequence[Prompt]], Logps]) -> Logps:
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number].ids))
    found: dict[int, list[float]] = {}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        found |= dict(zip(some, scored([prompts[number] for number in some]), strict=True))
    return [found[number] for number in range(len(prompts))]


def separate_masked(model: Any, prompts: Sequence[Prompt], batch: int) -> Logps:
    def scored(some: Sequence[Prompt]) -> Logps:
        width = max(len(each.ids) for each in some)
        ids = torch.tensor([[0] * (width - len(each.ids)) + list(each.ids) for each in some], device=model.device)
        mask = torch.tensor([[0] * (width - len(each.ids)) + [1] * len(each.ids) for each in some], device=model.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        hidden_BQH = model.base_model(ids, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
        return _logps(model, hidden_BQH[:, -1], some)

    return _in_batches(prompts, batch, scored)


def separate_unmasked(model: Any, prompts: Sequence[Prompt], batch: int) -> Logps:
    """Padding behind a prompt's last token is seen by none of its tokens."""

    def scored(some: Sequence[Prompt]) -> Logps:
        width = max(len(each.ids) for each in some)
        ids = torch.tensor([[*each.ids, *[0] * (width - len(each.ids))] for each in some], device=model.device)
        hidden_BQH = model.base_model(ids, use_cache=False).last_hidden_state
        return _logps(model, hidden_BQH[range(len(some)), [len(each.ids) - 1 for each in some]], some)

    return _in_batches(prompts, batch, scored)


def cached(model: Any, prompts: Sequence[Prompt], batch: int) -> Logps:
    found: dict[Prompt, list[float]] = {}
    for prefix in dict.fromkeys(prompt.prefix for prompt in prompts):
        first = DynamicCache(config=model.config)
        model.base_model(torch.tensor([prefix], device=model.device), past_key_values=first, use_cache=True)
        ends = [prompt for prompt in prompts if prompt.prefix == prefix]
        for start in range(0, len(ends), batch):
            some = ends[start : start + batch]
            copies = copy.deepcopy(first)
            copies.batch_repeat_interleave(len(some))
            width = max(len(each.suffix) for each in some)
            ids = torch.tensor([[*each.suffix, *[0] * (width - len(each.suffix))] for each in some], device=model.device)
            hidden_BQH = model.base_model(ids, past_key_values=copies, use_cache=True).last_hidden_state
            logps = _logps(model, hidden_BQH[range(len(some)), [len(each.suffix) - 1 for each in some]], some)
            found |= dict(zip(some, logps, strict=True))
    return [found[prompt] for prompt in prompts]


# ---- ours


def packed(forward: Forward, limits: BatchLimits, prompts: Sequence[Prompt], counts: ScoredTokens) -> Logps:
    found = dict(score_sequences(forward, limits, [prompt.scored(n) for n, prompt in enumerate(prompts)], counts))
    return [found[n] or [] for n in range(len(prompts))]


def by_engine(engine: LocalEngine, requests: Sequence[ScoreRequest]) -> Logps:
    found = dict(engine.score(requests))
    return [list(result.logps) if isinstance(result := found[n], Scores) else [] for n in range(len(requests))]


# ---- measuring


@dataclass
class Clock:
    """Seconds of the processor; with a GPU, seconds until it is done."""

    device: torch.device
    took_s: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        began = self._now()
        yield
        self.took_s = self._now() - began

    def _now(self) -> float:
        if self.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def rounds_of(ways: dict[str, Way], rounds: int, device: torch.device) -> tuple[dict[str, list[float]], dict[str, Logps]]:
    """Seconds of each way in each round after a first one that does not count, and what it answered."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Logps] = {}
    clock = Clock(device)
    for turn in range(rounds + 1):
        for name, way in ways.items():
            with clock.running():
                answers[name] = way()
            if turn:
                seconds[name].append(clock.took_s)
    return seconds, answers


def separate_ways(model: Any, prompts: Sequence[Prompt], batches: Sequence[int]) -> dict[str, Way]:
    found: dict[str, Way] = {}
    for batch in batches:
        found[f"separate {batch}, masked"] = lambda batch=batch: separate_masked(model, prompts, batch)
        found[f"separate {batch}"] = lambda batch=batch: separate_unmasked(model, prompts, batch)
    return found


def fastest(ways: dict[str, Way], rounds: int, device: torch.device) -> str:
    seconds, _ = rounds_of(ways, rounds, device)
    return min(seconds, key=lambda name: statistics.median(seconds[name]))


def compared(seconds: dict[str, list[float]], answers: dict[str, Logps], base: str) -> dict[str, Any]:
    """Each way beside the base, with its median time and the largest difference in nats."""
    table: dict[str, Any] = {}
    for name, each in seconds.items():
        gains = [of_base / own for of_base, own in zip(seconds[base], each, strict=True)]
        apart = max(
            abs(one - other)
            for ours, theirs in zip(answers[name], answers[base], strict=True)
            for one, other in zip(ours, theirs, strict=True)
        )
        table[name] = {
            "gain": round(statistics.median(gains), 2),
            "range": [round(min(gains), 2), round(max(gains), 2)],
            "seconds": round(statistics.median(each), 4),
            "largest_nats": apart,
        }
    return table


def measure(
    model: Any,
    principles: Sequence[int],
    *,
    prompts_at_once: int,
    rounds: int,
    batches: Sequence[int],
    pairs: int | None = None,
) -> list[dict[str, Any]]:
    """One entry for each number of principles: `prompts_at_once` prompts (or those of one pair, if more) in each."""
    forward, device, vocabulary = Forward(model), model.device, model.config.vocab_size
    tuned = separate_ways(model, drawn_prompts(1, max(batches), vocabulary), batches)
    base = fastest(tuned, max(1, rounds // 2), device)
    limits = BatchLimits.for_device(forward, 64, None)
    found: list[dict[str, Any]] = []
    for count in principles:
        many = pairs or max(1, prompts_at_once // (2 * count))
        prompts = drawn_prompts(many, count, vocabulary)
        counts = ScoredTokens()
        ways = {
            base: separate_ways(model, prompts, batches)[base],
            f"cache {min(count, 16)}": lambda prompts=prompts, count=count: cached(model, prompts, min(count, 16)),
            "ours": lambda prompts=prompts, counts=counts: packed(forward, limits, prompts, counts),
        }
        seconds, answers = rounds_of(ways, rounds, device)
        tokens = (counts.computed + counts.reused) / counts.computed
        found.append({"principles": count, "pairs": many, "tokens": round(tokens, 2), "ways": compared(seconds, answers, base)})
        tell(found[-1])
    return found


_TURN = re.compile(r"\n\nHuman: |\n\nAssistant: ")


def comparisons(file: Path, pairs: int, principles: Sequence[Principle], longest: int) -> list[ScoreRequest]:
    """The first pairs of a file whose dialogues are alike up to their last reply, and of at most so many characters."""
    requests: list[ScoreRequest] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        (chosen, first), (rejected, second) = (_dialogue(str(row[name])) for name in ("chosen", "rejected"))
        if chosen != rejected or not chosen or len(row["chosen"]) + len(second) > longest:
            continue
        asked = [Compared(chosen, first, second, principle) for principle in principles]
        requests += [comparison_request(each, order) for each in asked for order in ORDERS]
        if len(requests) >= 2 * pairs * len(principles):
            break
    return requests


def _dialogue(text: str) -> tuple[Conversation, str]:
    """The turns before the last reply, and the last reply."""
    *turns, reply = [turn.strip() for turn in _TURN.split(text)[1:]]
    roles = ("user", "assistant")
    return tuple(Message(role=roles[place % 2], content=turn) for place, turn in enumerate(turns)), reply


def measure_real(
    loaded: LoadedModel, requests: Sequence[ScoreRequest], *, rounds: int, batches: Sequence[int]
) -> dict[str, Any]:
    """Comparisons by the engine, and the same prompts by transformers. Both encode their text, transformers each once."""
    model: Any = loaded.model
    if any(len(ids) - start != 1 for each in (_scored(loaded, request) for request in requests) for ids, start in each):
        raise ValueError("each letter must be one token for this comparison")

    def prompts() -> list[Prompt]:
        encoded = [loaded.tokenizer.encode_chat(each.messages, each.response_prefix) for each in requests]
        return [Prompt(tuple(ids), (), tokens) for ids, tokens in zip(encoded, wanted, strict=True)]

    wanted = [tuple(ids[-1] for ids, _ in _scored(loaded, request)) for request in requests]
    tuned = separate_ways(model, prompts()[:: max(1, len(requests) // 16)], batches)
    base = fastest(tuned, 1, model.device)
    batch, scored = int(base.split()[1].rstrip(",")), separate_masked if "masked" in base else separate_unmasked
    engine = LocalEngine(loaded)
    ways = {base: lambda: scored(model, prompts(), batch), "ours": lambda: by_engine(engine, requests)}
    seconds, answers = rounds_of(ways, rounds, model.device)
    done = engine.statistics()
    tokens = (done.scored_tokens + done.reused_scored_tokens) / done.scored_tokens
    longest = [len(prompt.ids) for prompt in prompts()]
    return {
        "prompts": len(requests),
        "prompt_tokens": {"median": statistics.median(longest), "most": max(longest)},
        "tokens": round(tokens, 2),
        "ways": compared(seconds, answers, base),
    }


def _scored(loaded: LoadedModel, request: ScoreRequest) -> list[tuple[tuple[int, ...], int]]:
    encoded = encode_scored(loaded.tokenizer, 0, request)
    return list(zip(encoded.sequences, encoded.starts, strict=True))


def tell(entry: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in entry.items() if name != "ways"), flush=True)
    for name, row in entry["ways"].items():
        low, high = row["range"]
        print(
            f"  {name:22} {row['gain']:5.2f} ({low:.2f}–{high:.2f})  {row['seconds']:8.3f} s  {row['largest_nats']:.0e} nats",
            flush=True,
        )


def made(name: str, **smaller: int) -> Any:
    """A model of random weights."""
    torch.manual_seed(0)
    width, layers = (512, 8) if name == "medium" else (256, 6)
    settings: dict[str, Any] = {
        "vocab_size": 4096,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": 3 * width,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "initializer_range": 0.06,
    } | smaller
    if name != "sliding":
        return cast("Any", AutoModelForCausalLM).from_config(LlamaConfig(**settings)).eval()
    kinds = ["full_attention" if place % 6 == 5 else "sliding_attention" for place in range(settings["num_hidden_layers"])]
    sliding = {"layer_types": kinds, "sliding_window": WINDOW, "head_dim": settings["hidden_size"] // 8}
    return cast("Any", AutoModelForCausalLM).from_config(Gemma3TextConfig(**settings, **sliding)).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Scoring a pair under K principles in both orders.")
    parser.add_argument("--model", default="small", help="small, medium, sliding, or a model as `cai` names it")
    parser.add_argument("--principles", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument(
        "--prompts", type=int, default=32, help="scored together, at least; the rest of a pair's come with them"
    )
    parser.add_argument("--pairs", type=int, help="scored together (default: by --prompts; with a file: 2)")
    parser.add_argument("--pairs-file", type=Path, help="JSON lines with `chosen` and `rejected` dialogues")
    parser.add_argument("--longest", type=int, default=3000, help="characters of a dialogue and its other reply")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.model in ("small", "medium", "sliding"):
        loaded, model = None, made(asked.model).to(device=asked.device, dtype=getattr(torch, asked.dtype))
    else:
        loaded = load_model(ModelSpec(name=asked.model, device=asked.device, dtype=asked.dtype))
        model = cast("Any", loaded.model)
    about: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {asked.threads} threads, {asked.device}",
        "torch": torch.__version__,
        "model": f"{asked.model}, {sum(each.numel() for each in model.parameters()) / 1e6:.1f}M, {asked.dtype}",
    }
    with torch.inference_mode():
        if asked.pairs_file:
            if loaded is None:
                parser.error("--pairs-file needs a model with a tokenizer")
            principles = load_constitution([PRINCIPLES]).principles[: max(asked.principles)]
            requests = comparisons(asked.pairs_file, asked.pairs or 2, principles, asked.longest)
            about["comparisons"] = measure_real(loaded, requests, rounds=asked.rounds, batches=asked.batches)
            tell(about["comparisons"])
        else:
            about["scores"] = measure(
                model,
                asked.principles,
                prompts_at_once=asked.prompts,
                rounds=asked.rounds,
                batches=asked.batches,
                pairs=asked.pairs,
            )
    if asked.json:
        results = json.loads(asked.json.read_text()) if asked.json.exists() else []
        asked.json.write_text(json.dumps([*results, about], indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
