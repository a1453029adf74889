"""A Llama-shaped model in training with LoRA, made for few slow cores: every frozen weight is used once per pass.

The adapter is merged into the weight before each step (W + scale · B A, in bfloat16), so that the forward pass is one matrix
product instead of three; the backward pass makes the gradients of A and B from x and dy directly and none for W. Tokens of
all rows lie in one flat list, so nothing is padded; layers below the adapter run without a graph. LoRA: Hu et al. 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional

from cai.lab.lesson_rows import Row

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

PROJECTIONS = (
    ("self_attn", ("q_proj", "k_proj", "v_proj")),
    ("self_attn", ("o_proj",)),
    ("mlp", ("gate_proj", "up_proj")),
    ("mlp", ("down_proj",)),
)
"""The linear layers of one block in groups that share their input."""


class MergedLinear(torch.autograd.Function):
    """y = x Wᵀ for a merged W, with gradients for x, A and B only.

    x [N, i], W [o, i], A [r, i], B [o, r] where several projections lie stacked in o and r and B is block-diagonal.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale
        return functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, down, up = ctx.saved_tensors
        grad = grads[0]
        through = x @ down.t()
        back = grad @ up
        return grad @ weight, None, (back.t() @ x) * ctx.scale, (grad.t() @ through) * ctx.scale, None


class StackedLora(nn.Module):
    """LoRA of several projections of one input: fp32 A and B per projection, and the merged bfloat16 weight."""

    def __init__(self, linears: Sequence[nn.Linear], rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = scale
        self.frozen = torch.cat([linear.weight.data for linear in linears])
        self.merged = self.frozen.clone()
        inputs = linears[0].in_features
        bound = inputs**-0.5  # kaiming_uniform with a = √5, as peft initialises A
        self.A = nn.ParameterList(
            [nn.Parameter((torch.rand(rank, inputs, generator=generator) * 2 - 1) * bound) for _ in linears]
        )
        self.B = nn.ParameterList([nn.Parameter(torch.zeros(linear.out_features, rank)) for linear in linears])
        self.down = torch.empty(0)
        self.up = torch.empty(0)

    def merge(self) -> None:
        """Fold the present A and B into the weight, and start this step's graph from them."""
        self.down = torch.cat(list(self.A)).to(self.frozen.dtype)
        self.up = cast("torch.Tensor", cast("Any", torch).block_diag(*self.B)).to(self.frozen.dtype)
        with torch.no_grad():
            torch.addmm(self.frozen, self.up, self.down, alpha=self.scale, out=self.merged)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("Any", MergedLinear).apply(x, self.merged, self.down, self.up, self.scale)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """As transformers' LlamaRMSNorm: the mean square in fp32, the result in x's type."""
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    return weight * y.to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions for x [N, heads, d] with cos and sin [N, 1, d]."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


@dataclass(frozen=True)
class Flat:
    """Several rows as one list of N tokens.

    Attributes:
        ids: [N] token ids.
        positions: [N].
        spans: (start, end) of each row.
        masks: [T, T] of each row, 0 where a token may look and −inf elsewhere.
        predictors: [n] index of the hidden state that predicts learned token k.
        targets: [n] its id.
        parts: [n] its `Part`.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    spans: tuple[tuple[int, int], ...]
    masks: tuple[torch.Tensor, ...]
    predictors: torch.Tensor
    targets: torch.Tensor
    parts: torch.Tensor


def flatten(rows: Sequence[Row], dtype: torch.dtype) -> Flat:
    """Lay rows one after another; nothing is padded."""
    spans: list[tuple[int, int]] = []
    predictors: list[torch.Tensor] = []
    masks: list[torch.Tensor] = []
    at = 0
    for row in rows:
        spans.append((at, at + len(row.ids)))
        predictors.append(row.predictors() + at)
        masks.append(torch.zeros(len(row.ids), len(row.ids), dtype=dtype).masked_fill_(~row.mask(), float("-inf")))
        at += len(row.ids)
    ids = torch.cat([row.ids for row in rows])
    parts = torch.cat([row.parts for row in rows])
    learned = parts > 0
    positions = torch.cat([row.positions for row in rows])
    return Flat(ids, positions, tuple(spans), tuple(masks), torch.cat(predictors), ids[learned], parts[learned])


class LoraLlama(nn.Module):
    """The forward pass of a `LlamaForCausalLM` on flat rows, with LoRA in layers `first_layer` and above.

    Args:
        model: The base; its weights are read, never changed.
        rank: LoRA r.
        alpha: LoRA α; the scale is α / r.
        first_layer: Layers below it stay as they are.
        seed: Of the initial A.
    """

    def __init__(self, model: LlamaForCausalLM, *, rank: int, alpha: int, first_layer: int, seed: int) -> None:
        super().__init__()
        self.base = model.requires_grad_(requires_grad=False)
        self.first_layer = first_layer
        config: Any = model.config
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = config.head_dim
        self.eps: float = config.rms_norm_eps
        generator = torch.Generator().manual_seed(seed)
        self.loras = nn.ModuleDict()
        for number in range(first_layer, config.num_hidden_layers):
            layer: Any = model.model.layers[number]
            for block, names in PROJECTIONS:
                linears = [getattr(getattr(layer, block), name) for name in names]
                self.loras[f"{number}:{block}:{names[0]}"] = StackedLora(linears, rank, alpha / rank, generator)

    def merge(self) -> None:
        """Fold the adapter into the weights; call it once before each forward pass after a change."""
        for lora in self.loras.values():
            assert isinstance(lora, StackedLora)
            lora.merge()

    def named_factors(self) -> list[tuple[str, nn.Parameter]]:
        """Every A and B by peft's name in a saved adapter, in a fixed order."""
        found: list[tuple[str, nn.Parameter]] = []
        for key, lora in self.loras.items():
            assert isinstance(lora, StackedLora)
            number, block, first = key.split(":")
            names = next(n for b, n in PROJECTIONS if (b, n[0]) == (block, first))
            for name, down, up in zip(names, lora.A, lora.B, strict=True):
                stem = f"base_model.model.model.layers.{number}.{block}.{name}"
                found += [(f"{stem}.lora_A.weight", down), (f"{stem}.lora_B.weight", up)]
        return found

    def hidden(self, flat: Flat) -> torch.Tensor:
        """[N, d] final hidden states."""
        model = self.base.model
        x = model.embed_tokens(flat.ids)
        cos, sin = model.rotary_emb(x, flat.positions[None])
        cos, sin = cos[0][:, None], sin[0][:, None]
        for number, layer in enumerate(model.layers):
            with torch.set_grad_enabled(number >= self.first_layer and torch.is_grad_enabled()):
                x = self._layer(number, layer, x, cos, sin, flat)
        return rms_norm(x, model.norm.weight, self.eps)

    def _linear(self, number: int, group: int, layer: Any, x: torch.Tensor) -> torch.Tensor:
        block, names = PROJECTIONS[group]
        key = f"{number}:{block}:{names[0]}"
        if key in self.loras:
            return self.loras[key](x)
        linears = [getattr(getattr(layer, block), name) for name in names]
        return torch.cat([linear(x) for linear in linears], -1)

    def _layer(
        self, number: int, layer: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, flat: Flat
    ) -> torch.Tensor:
        normed = rms_norm(x, layer.input_layernorm.weight, self.eps)
        qkv = self._linear(number, 0, layer, normed).view(len(x), -1, self.head_dim)
        rotated = rotate(qkv[:, : self.heads + self.kv_heads], cos, sin)
        q, k = rotated[:, : self.heads], rotated[:, self.heads :]
        v = qkv[:, self.heads + self.kv_heads :]
        groups = self.heads // self.kv_heads
        q, k, v = (t.transpose(0, 1) for t in (q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)))
        seen = [
            functional.scaled_dot_product_attention(q[None, :, a:b], k[None, :, a:b], v[None, :, a:b], attn_mask=mask)[0]
            for (a, b), mask in zip(flat.spans, flat.masks, strict=True)
        ]
        attended = torch.cat(seen, 1).transpose(0, 1).reshape(len(x), -1)
        x = x + self._linear(number, 1, layer, attended)
        normed = rms_norm(x, layer.post_attention_layernorm.weight, self.eps)
        gate, up = self._linear(number, 2, layer, normed).chunk(2, -1)
        return x + self._linear(number, 3, layer, functional.silu(gate) * up)

    def logits(self, flat: Flat) -> torch.Tensor:
        """[n, vocabulary] fp32, at the learned tokens only."""
        return self.base.lm_head(self.hidden(flat)[flat.predictors]).float()
