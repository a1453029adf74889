"""What `preference_training` trains: models of random weights, drawn token rows, and the arithmetic of a step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cai.training.packing import PackedBatch, TokenGroup

Ids = tuple[int, ...]
FIRST_ID = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama, and the lengths of what it is trained on.

    Args:
        prompt: Fewest and most tokens, drawn uniformly.
        reply: The same.
        pairs: Of one step.
    """

    hidden: int
    layers: int
    heads: int
    key_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    prompt: tuple[int, int] = (200, 600)
    reply: tuple[int, int] = (50, 200)
    pairs: int = 4

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            tie_word_embeddings=self.tied,
            max_position_embeddings=16384,
            initializer_range=0.05 if self.hidden < 1024 else 0.02,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )

    def model(self, device: torch.device, dtype: torch.dtype) -> Any:
        torch.manual_seed(0)
        with torch.device(device):
            return LlamaForCausalLM._from_config(self.config(), dtype=dtype).train()

    @property
    def layer_weights(self) -> int:
        """Of all matrices between embedding and head."""
        keys = self.hidden * self.key_heads // self.heads
        return self.layers * (2 * self.hidden * (self.hidden + keys) + 3 * self.hidden * self.intermediate)


SHAPES = {
    "small": Shape(384, 8, 6, 6, 1024, 32_000, tied=True),
    "tiny": Shape(32, 2, 2, 2, 64, 384, tied=True, prompt=(20, 40), reply=(5, 12), pairs=2),
    "8b": Shape(4096, 32, 32, 8, 14_336, 128_256, tied=False),
}


class Drawn:
    """Token rows at random, the same ones for the same seed."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self._shape, self._chance = shape, random.Random(seed)  # noqa: S311 - no secret

    def ids(self, span: tuple[int, int] | int) -> Ids:
        count = span if isinstance(span, int) else self._chance.randint(*span)
        return tuple(self._chance.randrange(FIRST_ID, self._shape.vocabulary) for _ in range(count))

    def pairs(self, count: int) -> list[TokenGroup]:
        """One prompt with two replies each."""
        shape = self._shape
        return [TokenGroup(self.ids(shape.prompt), (self.ids(shape.reply), self.ids(shape.reply))) for _ in range(count)]

    def chain(self, replies: int, kept_share: float) -> TokenGroup:
        """One prompt, and replies of which each keeps such a share of the one before, at its beginning."""
        chain = [self.ids(self._shape.reply)]
        while len(chain) < replies:
            fresh = self.ids(self._shape.reply)
            kept = round(kept_share * min(len(fresh), len(chain[-1])))
            chain.append(chain[-1][:kept] + fresh[kept:])
        return TokenGroup(self.ids(self._shape.prompt), tuple(chain))

    def mixed(self, count: int) -> list[TokenGroup]:
        """Supervised rows of lognormal lengths, whose medians are those of the shape's uniform ones (σ 0.7)."""
        rows: list[TokenGroup] = []
        for _ in range(count):
            prompt, reply = (
                max(4, round(self._chance.lognormvariate(0, 0.7) * sum(span) / 2))
                for span in (self._shape.prompt, self._shape.reply)
            )
            rows.append(TokenGroup(self.ids(min(prompt, 1536)), (self.ids(min(reply, 512)),)))
        return rows


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What a forward and backward pass cannot do without, in multiplications and additions.

    2 · weights · tokens forwards through the layers, 2 · vocabulary · hidden · slots through the head, and 4 · hidden for each
    token that a token sees in each layer; backwards twice as much, or as much as forwards where weights are frozen (adapters
    are not counted). Attention has no weights: twice in either case.
    """

    shape: Shape
    tokens: int
    slots: int
    seen: int
    frozen: bool = False

    @classmethod
    def of_tries(cls, shape: Shape, batches: Sequence[PackedBatch], *, frozen: bool = False) -> Arithmetic:
        seen = sum(int((batch.position_ids + 1).sum()) for batch in batches)
        return cls(shape, sum(b.tokens for b in batches), sum(len(b.slots) for b in batches), seen, frozen)

    @classmethod
    def of_rows(cls, shape: Shape, lengths: Sequence[int], slots: int, *, frozen: bool = False) -> Arithmetic:
        """Of whole rows of such lengths, each by itself and without padding."""
        return cls(shape, sum(lengths), slots, sum(n * (n + 1) // 2 for n in lengths), frozen)

    @property
    def forward(self) -> int:
        return self._linear + self._attention

    @property
    def both(self) -> int:
        return (2 if self.frozen else 3) * self._linear + 3 * self._attention

    @property
    def _linear(self) -> int:
        return 2 * (self.shape.layer_weights * self.tokens + self.shape.vocabulary * self.shape.hidden * self.slots)

    @property
    def _attention(self) -> int:
        return 4 * self.shape.hidden * self.shape.layers * self.seen
