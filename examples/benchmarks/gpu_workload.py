"""What `gpu_chain` computes: a model of random weights, and conversations of drawn tokens and lengths."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from cai.engines.base import SamplingParams
from cai.engines.rows import Row
from cai.engines.sampling import noise_seed

STAGES = 3
HEAD_STD = 0.094
"""Of the output head: logits then spread by about 6, and draws are about as sure as a chat model's."""


@dataclass(frozen=True)
class Size:
    """How much is measured. Lengths are in tokens."""

    config: dict[str, Any]
    conversations: int
    few_shots: int
    prompt: int
    requests: tuple[int, int]
    answer: int
    batches: tuple[int, ...]
    batched: int
    """Conversations of the padded batches, which take longest."""
    twice: int
    """Conversations computed in two schedules, to compare their texts."""
    rows: int | None
    seconds: float
    """No way of computing is measured for longer."""


LLAMA_8B = Size(
    config={
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    },
    conversations=2048,
    few_shots=400,
    prompt=60,
    requests=(60, 40),
    answer=107,
    batches=(64, 128, 256),
    batched=256,
    twice=128,
    rows=None,
    seconds=100.0,
)
TINY = Size(
    config={
        "vocab_size": 1024,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    },
    conversations=16,
    few_shots=64,
    prompt=20,
    requests=(12, 8),
    answer=10,
    batches=(4, 8),
    batched=8,
    twice=8,
    rows=8,
    seconds=60.0,
)


def random_model(size: Size, device: torch.device) -> Any:
    """A Llama with random weights, made on the device in its precision."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = LlamaConfig(**size.config, bos_token_id=None, eos_token_id=None, pad_token_id=0, tie_word_embeddings=False)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(std=HEAD_STD)
    return model.eval()


@dataclass(frozen=True)
class Workload:
    """Conversations, as token ids: few-shots, first prompts, what is asked between, and how long answers become."""

    few_shots: list[int]
    prompts: list[list[int]]
    requests: tuple[list[int], list[int]]
    lengths: list[tuple[int, ...]]

    @classmethod
    def draw(cls, size: Size, count: int, seed: int = 0) -> Workload:
        chance = random.Random(seed)  # noqa: S311 - the same conversations every time is the point

        def tokens(many: int) -> list[int]:
            return [chance.randrange(5, size.config["vocab_size"]) for _ in range(many)]

        def length(mean: int) -> int:
            return max(2, min(3 * mean, round(chance.lognormvariate(0, 0.5) * mean * 0.8825)))  # e^(−0.5²/2)

        few_shots, requests = tokens(size.few_shots), (tokens(size.requests[0]), tokens(size.requests[1]))
        prompts = [tokens(length(size.prompt)) for _ in range(count)]
        lengths = [tuple(length(size.answer) for _ in range(STAGES)) for _ in range(count)]
        return cls(few_shots, prompts, requests, lengths)

    @property
    def tokens_each(self) -> float:
        """Tokens written for one conversation, on average."""
        return sum(map(sum, self.lengths)) / len(self.lengths)

    def row(self, item: int, stage: int, before: Row | None) -> Row:
        prompt = [*self.few_shots, *self.prompts[item]]
        if before is not None:
            prompt = [*before.prompt, *before.generated, *self.requests[stage - 1]]
        most = self.lengths[item][stage]
        return Row(prompt, SamplingParams(), noise_seed(f"0/{item}/0/{stage}/0"), most, len(prompt) + most)
