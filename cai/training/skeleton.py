"""A model without its weights: what training it keeps in memory and computes, counted on tensors that hold nothing.

The architecture itself is run on torch's meta device: nothing is read but `config.json`, and nothing is guessed of its layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cai.engines.forward import STRANGE_TO_MODELS
from cai.models.loading import LoadedModel
from cai.training.policy import adapt
from cai.training.settings import RewardSettings, TrainingSettings

_COUNTED = "cai_counted"
_TOKENS = 128
"""Of the pass that is counted: all that is kept or computed outside attention grows in proportion to tokens."""
_VECTORS, _INNER_VECTORS = 8, 4
"""Of the hidden and of the inner width, that a layer of such a model is taken to keep of a token."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """Of a forward pass that keeps what its way back needs, for each token, without the output head.

    Args:
        kept_bytes: Of activations.
        layer_bytes: Of one layer's activations.
        border_bytes: Of what goes from one layer to the next.
        flops: Floating-point operations forwards, without those of attention between tokens.
        counted: Whether the model itself was run; else this is a rough formula.
    """

    kept_bytes: float
    layer_bytes: float
    border_bytes: float
    flops: float
    counted: bool


class Skeleton:
    """A model as its configuration describes it, made trainable as the settings say.

    Args:
        opened: The model; its weights are not read.
        settings: Of the training.

    Raises:
        TrainingError: If its modules cannot be adapted as asked.
    """

    def __init__(self, opened: LoadedModel, settings: TrainingSettings) -> None:
        config: Any = cast("Any", AutoConfig).from_pretrained(str(opened.place.folder), local_files_only=True)
        self.full = settings.lora is None
        heads = settings.heads if isinstance(settings, RewardSettings) else None
        auto: Any = AutoModelForCausalLM if heads is None else AutoModelForSequenceClassification
        if heads is not None:
            config.num_labels = heads
        self.dtype = opened.dtype
        self.weight_dtype = torch.float32 if self.full else opened.dtype
        with torch.device("meta"):
            self.inner: Any = auto.from_config(config, dtype=self.weight_dtype)
            self.attention: str = self.inner.config._attn_implementation
            self.inner.config.use_cache = False
            self.inner.requires_grad_(self.full)
            self.parameters = sum(weight.numel() for weight in self.inner.parameters())
            if settings.lora is not None:
                adapt(self.inner, settings.lora, "CAUSAL_LM" if heads is None else "SEQ_CLS")
        self.trainable = sum(weight.numel() for weight in self.inner.parameters() if weight.requires_grad)
        text: Any = config.get_text_config()
        self.layers = int(text.num_hidden_layers)
        self.width = int(text.hidden_size)
        self.vocabulary = int(text.vocab_size) if heads is None else heads
        queries = int(text.num_attention_heads)
        self.query_width = queries * int(getattr(text, "head_dim", None) or self.width // queries)
        self.inner_width = int(getattr(text, "intermediate_size", None) or 4 * self.width)

    @cached_property
    def cost(self) -> PassCost:
        """See `PassCost`."""
        try:
            found = _count(self.inner, self.layers)
        except STRANGE_TO_MODELS:  # of those that need numbers to go on (experts chosen by scores, some state-space layers)
            return self._rough()
        if self.weight_dtype == self.dtype:
            return found
        # Under autocast, which the meta device knows nothing of, matrices take and give the narrow type.
        share = self.dtype.itemsize / self.weight_dtype.itemsize
        return PassCost(found.kept_bytes * share, found.layer_bytes * share, found.border_bytes, found.flops, counted=True)

    def _rough(self) -> PassCost:
        item = self.dtype.itemsize
        layer = item * (_VECTORS * self.width + _INNER_VECTORS * self.inner_width)
        embedded = self.vocabulary * self.width
        return PassCost(layer * self.layers, layer, self.width * item, 2.0 * max(0, self.parameters - embedded), counted=False)


def _count(inner: Any, layers: int) -> PassCost:
    """Run the decoder below the head on `_TOKENS` tokens that hold nothing."""
    cast("Any", ALL_ATTENTION_FUNCTIONS).register(_COUNTED, _attend)
    before = inner.config._attn_implementation
    weights = {_storage(each) for each in _tensors(inner)}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        key = _storage(tensor)
        if key not in weights:
            kept[key] = tensor.untyped_storage().nbytes()
            alive.append(tensor)  # a storage that died would lend its key to another
        return tensor

    places = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
    decoder = getattr(inner, inner.base_model_prefix)
    flops = FlopCounterMode(display=False)
    inner.train()
    try:
        inner.set_attn_implementation(_COUNTED)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), flops:
            output = decoder(input_ids=places, position_ids=places, attention_mask=None, use_cache=False)
    finally:
        inner.set_attn_implementation(before)
    border = output[0]
    total = sum(kept.values()) / _TOKENS
    return PassCost(
        total, total / layers, border.shape[-1] * border.dtype.itemsize, flops.get_total_flops() / _TOKENS, counted=True
    )


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _storage(tensor: Tensor) -> int:
    return cast("Any", tensor.untyped_storage())._cdata


class _Kept(torch.autograd.Function):
    """Keeps what every flash attention keeps: queries, keys, values, outputs, and one number for each query of each head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output


def _attend(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Tensor | None, **_options: Any
) -> tuple[Tensor, None]:
    return cast("Any", _Kept).apply(query, key, value).transpose(1, 2).contiguous(), None
