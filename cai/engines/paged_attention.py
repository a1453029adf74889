"""Attention over a paged cache with the kernels that torch brings along, for transformers' continuous batching.

Of its own it has paged attention by the flash-attn package, by kernels fetched from a hub, and by `sdpa`, whose mask has a cell
for every token of the batch times every token of the cache. The flash kernels inside torch need no package, fetch nothing and
take lengths instead of a mask. Shape suffixes: Q query tokens of all rows together, K key tokens, H heads, G heads of keys and
values, D width of a head.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_VARLEN = "varlen_flash"  # "flash" tells transformers that no mask is needed; a 2 or 3 would ask for the flash-attn package
_WIDEST_HEAD = 256


def paged_attention(model: PreTrainedModel) -> str:
    """The name of the attention that suits a model and its device; what the model was loaded with decides the rest.

    A model loaded with flash attention keeps it. Otherwise torch's flash kernels run half-precision models on a GPU, after a
    small trial there against `scaled_dot_product_attention`; all else gets transformers' own paged `sdpa` or `eager`.
    """
    config: Any = cast("Any", model).config
    loaded_with = str(config._attn_implementation)
    if "flash" in loaded_with:
        return loaded_with
    if _can_run_varlen(model) and loaded_with != "eager":
        _register()
        return _named(_VARLEN)
    return "paged|eager" if loaded_with == "eager" else _named("sdpa")


def varlen_attention(
    query_QHD: Tensor,
    key_KGD: Tensor,
    value_KGD: Tensor,
    ends_Q: Tensor,
    ends_K: Tensor,
    longest: tuple[int, int],
    *,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Causal attention of rows laid one behind the other; a row's queries are the last of its keys.

    Args:
        query_QHD: Queries.
        key_KGD: Keys; H is a multiple of G.
        value_KGD: Values.
        ends_Q: int32, one more than there are rows: where each row's queries begin, and the end of the last.
        ends_K: The same for keys.
        longest: Queries and keys of the longest row, or more.
        scale: None: 1/√D.
        window: Keys that a query sees, itself included; None: all.

    Returns:
        output_QHD.
    """
    # The operator under `torch.nn.attention.varlen.varlen_attn`, whose arguments differ from one version of torch to the next.
    return cast("Any", torch.ops.aten)._flash_attention_forward(
        query_QHD,
        key_KGD,
        value_KGD,
        ends_Q,
        ends_K,
        longest[0],
        longest[1],
        0.0,  # dropout
        True,  # noqa: FBT003 - causal
        False,  # noqa: FBT003 - no debugging mask
        scale=scale,
        window_size_left=-1 if window is None else window - 1,
        window_size_right=-1 if window is None else 0,
    )[0]


def _can_run_varlen(model: PreTrainedModel) -> bool:
    typed: Any = model
    device: torch.device = typed.device
    if device.type != "cuda" or typed.dtype not in (torch.float16, torch.bfloat16):
        return False
    config = typed.config.get_text_config()
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    if width > _WIDEST_HEAD or width % 8 or typed._compatible_flash_implementations or not typed._supports_flash_attn:
        return False
    try:
        return _agrees(device, typed.dtype, (heads, groups, width))
    except (RuntimeError, TypeError, AttributeError):
        return False  # no kernel for this device, or another signature: sdpa is slower and always there


def _agrees(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> bool:
    """Whether the kernel computes on this device what `scaled_dot_product_attention` does."""
    heads, groups, width = shape
    chance = torch.Generator(device).manual_seed(0)

    def drawn(tokens: int, many: int) -> Tensor:
        return torch.randn(tokens, many, width, generator=chance, device=device).to(dtype)

    queries, keys = (1, 5), (7, 5)
    query, key, value = drawn(sum(queries), heads), drawn(sum(keys), groups), drawn(sum(keys), groups)
    ends_Q = torch.tensor([0, 1, 6], dtype=torch.int32, device=device)
    ends_K = torch.tensor([0, 7, 12], dtype=torch.int32, device=device)
    found = varlen_attention(query, key, value, ends_Q, ends_K, (6, 8))
    for row in range(len(queries)):
        q, k, v = (
            each[int(ends[row]) : int(ends[row + 1])].transpose(0, 1)[None].float()
            for each, ends in ((query, ends_Q), (key, ends_K), (value, ends_K))
        )
        mask = torch.ones(queries[row], keys[row], dtype=torch.bool, device=device).tril(keys[row] - queries[row])
        expected = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)
        if not torch.allclose(found[int(ends_Q[row]) : int(ends_Q[row + 1])].float(), expected, atol=0.05, rtol=0.05):
            return False
    return True


def _named(name: str) -> str:
    """A paged attention was called "paged|NAME" in transformers 5.17, and is called NAME later."""
    return f"paged|{name}" if "paged|sdpa" in ALL_ATTENTION_FUNCTIONS.valid_keys() else name


def _register() -> None:
    cast("Any", ALL_ATTENTION_FUNCTIONS).register(_named(_VARLEN), _varlen_forward)


def _varlen_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - none is made for this attention
    scaling: float | None = None,
    sliding_window: int | None = None,
    *,
    cache: Any,
    cu_seq_lens_q: Tensor,
    **others: Any,
) -> tuple[Tensor, None]:
    """What a layer of a model calls in a continuous batch: query [1, H, Q, D], new keys and values [1, G, Q, D]."""
    layer: Any = module
    window = sliding_window or getattr(layer, "sliding_window", None) or None  # by the one or the other, as models please
    if "kwargs" in inspect.signature(cache.update).parameters:  # since 5.18: lengths of this layer's kind are put into `others`
        key, value = cache.update(key_states=key, value_states=value, layer_idx=layer.layer_idx, kwargs=others)
        key, value = key[0].transpose(0, 1), value[0].transpose(0, 1)
        ends_K, longest = others["cu_seq_lens_k"], (others["max_length_q"], others["max_length_k"])
    else:
        indices = {"read_index": others["read_index"], "write_index": others["write_index"]}
        key, value = cache.update(key_states=key, value_states=value, layer_idx=layer.layer_idx, **indices)
        ends_K, longest_k = others["cu_seq_lens_k"], others["max_seqlen_k"]
        if not isinstance(ends_K, Tensor):  # of each kind of layer
            kind = "sliding_attention" if window else "full_attention"
            ends_K, longest_k = ends_K[kind], longest_k[kind]
        longest = (others["max_seqlen_q"], longest_k)
    output = varlen_attention(
        query[0].transpose(0, 1).contiguous(),
        key.contiguous(),
        value.contiguous(),
        cu_seq_lens_q,
        ends_K,
        longest,
        scale=scaling,
        window=window,
    )
    return output[None], None
