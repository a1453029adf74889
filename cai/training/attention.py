"""Ways of attending in tree rows: which masks or blocks a model is given so that each token sees its ancestors alone.

- *blocks*: on CPUs, flash attention block by block (`tree_flash`): no work that a mask would hide.
- *flex*: on GPUs, transformers' FlexAttention under a block mask of the trie: hidden blocks are skipped.
- *mask*: a dense mask [1, 1, T, T], for every model that takes one.

Layers with a sliding window see the window's share of a token's own ancestors. Which way is right for a model, `probing` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from cai.engines.tree_attention import BUSH_TOKENS, FULL, SLIDING, can_attend_in_trees, tree_attention
from cai.training.packing import PackedBatch
from cai.training.tree_flash import TrainableTreeAttention

Path: TypeAlias = Literal["blocks", "flex", "mask", "padded"]
"""How a batch's sequences are kept apart: in trees, by one of the ways above, or in padded rows of their own."""

FLEX_MULTIPLE = 128
"""FlexAttention's blocks: rows of other lengths would be compiled again and again."""


def paths_for(model: Any, device: torch.device | None = None) -> tuple[Path, ...]:
    """The tree paths that may serve a transformers model, the fastest first. `device`: where it will be, if not where it is."""
    place = device or model.device
    implementation = getattr(model.config, "_attn_implementation", None)
    if not set(_kinds(model.config.get_text_config())) <= {FULL, SLIDING}:
        return ()
    if implementation not in {"sdpa", "eager"}:
        return ("flex",) if implementation == "flex_attention" else ()
    if can_attend_in_trees(model, place):
        return ("blocks", "mask")
    if place.type == "cuda" and getattr(model, "_supports_flex_attn", False):
        return ("flex", "mask")
    return ("mask",)


@contextlib.contextmanager
def attending(model: Any, path: Path) -> Generator[None]:
    """Within, the model's layers attend as the path says. To be left after the backward pass: checkpointed layers run again."""
    if path == "blocks":
        with tree_attention(model):
            yield
    elif path == "flex":
        before = model.config._attn_implementation
        model.set_attn_implementation("flex_attention")
        try:
            yield
        finally:
            model.set_attn_implementation(before)
    else:
        yield


def attention_inputs(model: Any, path: Path, batch: PackedBatch, dtype: torch.dtype) -> dict[str, Any]:
    """What a model's forward pass is given beside tokens and positions.

    Args:
        model: The transformers model.
        path: Of this batch: "padded" for padded rows, another for trees.
        batch: The batch, on the model's device.
        dtype: That attention is computed in.
    """
    if path == "padded":
        return {"attention_mask": batch.mask}
    config = model.config.get_text_config()
    window = window_of(config)
    if path == "blocks":
        trees = TrainableTreeAttention(batch.trees, window=window, dtype=dtype, bush_tokens=BUSH_TOKENS)
        return {"attention_mask": None, "cai_tree": trees}
    kinds = _kinds(config)
    masks = {kind: _mask(batch, window if kind == SLIDING else None, path, dtype) for kind in kinds}
    return {"attention_mask": masks if len(masks) > 1 else next(iter(masks.values()))}


def window_of(config: Any) -> int | None:
    """Tokens that layers with a sliding window see, where a model has such layers."""
    window = getattr(config, "sliding_window", None)
    return int(window) if window and SLIDING in _kinds(config) else None


def _kinds(config: Any) -> list[str]:
    named = getattr(config, "layer_types", None)
    return sorted(set(named or [SLIDING if getattr(config, "sliding_window", None) else FULL]))


def _mask(batch: PackedBatch, window: int | None, path: Path, dtype: torch.dtype) -> Any:
    device = batch.input_ids.device
    ends_T, depths_T = _ends(batch).to(device), batch.position_ids[0]
    if path == "flex":
        from torch.nn.attention.flex_attention import create_block_mask

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen = (key <= query) & (query < ends_T[key])
            return seen if window is None else seen & (depths_T[query] - depths_T[key] < window)

        return create_block_mask(sees, B=None, H=None, Q_LEN=len(ends_T), KV_LEN=len(ends_T), device=str(device))
    places_T = torch.arange(len(ends_T), device=device)
    sees_TT = (places_T <= places_T[:, None]) & (places_T[:, None] < ends_T)
    if window is not None:
        sees_TT &= depths_T[:, None] - depths_T < window
    return torch.zeros(sees_TT.shape, dtype=dtype, device=device).masked_fill_(~sees_TT, torch.finfo(dtype).min)[None, None]


def _ends(batch: PackedBatch) -> Tensor:
    """[T] one past the last descendant of each token."""
    ends: list[int] = []
    for tree in batch.trees:
        start = len(ends)
        ends += [start + end for end in tree.ends]
    return torch.tensor(ends)
