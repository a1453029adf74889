"""Attention of packed token trees with gradients, for CPUs: flash blocks merged by the logarithms of their sums.

Forward as `cai.engines.tree_attention`. Backward: the flash kernel's own gradient of each block, given the output and the sum
that were merged over all blocks, is exactly that block's part of the whole gradient (FlashAttention, arXiv 2205.14135,
algorithm 4, holds for any partition of the keys). Nothing of the size of a mask is kept. Shape suffixes as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from cai.engines.prefixes import TokenTree
from cai.engines.tree_attention import Block, TreeAttention, attend_blocks


class TrainableTreeAttention:
    """What a layer of a model in training computes for trees that lie one behind the other in one row.

    Args:
        trees: The trees.
        window: Tokens of its path that a layer with a window sees, the token itself included; None: no layer has one.
        dtype: That attention is computed in.
        bush_tokens: Branches no larger, with all that hangs on them, are one masked block.
    """

    def __init__(self, trees: Sequence[TokenTree], *, window: int | None, dtype: torch.dtype, bush_tokens: int) -> None:
        self._dtype = dtype
        self._trees = TreeAttention(trees, (), window=window, dtype=dtype, bush_tokens=bush_tokens)

    def attend(
        self,
        query_HQD: Tensor,
        key_GQD: Tensor,
        value_GQD: Tensor,
        *,
        scale: float | None,
        windowed: bool,
        last: bool,  # noqa: ARG002 - gradients flow through every token of the last layer too
    ) -> Tensor:
        """output_HQD of one layer, with gradients; H is a multiple of G."""
        blocks = self._trees.blocks(windowed=windowed)
        query_HQD, key_GQD, value_GQD = (each.to(self._dtype) for each in (query_HQD, key_GQD, value_GQD))
        return cast("Any", _MergedFlash).apply(query_HQD, key_GQD, value_GQD, blocks, scale)


class _MergedFlash(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_HQD: Tensor, key_GQD: Tensor, value_GQD: Tensor, blocks: Sequence[Block], scale: float | None
    ) -> Tensor:
        output_HQD, sums_HQ = attend_blocks(blocks, query_HQD, key_GQD, value_GQD, scale)
        ctx.save_for_backward(query_HQD, key_GQD, value_GQD, output_HQD, sums_HQ)
        ctx.blocks, ctx.scale = blocks, scale
        return output_HQD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, output, sums = ctx.saved_tensors
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for block in ctx.blocks:
            grad = grads[0][:, block.queries]
            if block.blind is not None:  # the mask shows them something, as the kernel asks; they took nothing of it
                grad = grad.masked_fill(block.blind[:, None], 0)
            found = cast("Any", torch.ops.aten)._scaled_dot_product_flash_attention_for_cpu_backward(
                grad[None],
                query[None, :, block.queries],
                key[None, :, block.keys],
                value[None, :, block.keys],
                output[None, :, block.queries],
                sums[None, :, block.queries],
                0.0,
                block.causal,
                attn_mask=block.mask,
                scale=ctx.scale,
            )
            for whole, part, places in zip(
                (of_query, of_key, of_value), found, (block.queries, block.keys, block.keys), strict=True
            ):
                if block.queries == block.keys:
                    whole[:, places] = part[0]
                else:
                    whole[:, places] += part[0]
        return of_query, of_key, of_value, None, None
