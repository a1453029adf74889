"""Attention of packed token trees without the work that a mask only hides: for CPUs, whose flash kernel tells its normaliser.

A dense mask makes every token look at every other one of its row and throws most of it away. Here each run of tokens without a
branch attends to itself, and everything behind it attends to it as a block; what a token got from several blocks is put
together by the logarithms of their sums (as in FlashAttention, arXiv 2205.14135, and cascade inference). Exact up to rounding.
The last layer looks only from the tokens whose successors are asked about. Shape suffixes: H heads, G heads of keys and
values, Q tokens of all trees, N asked-for tokens, D width of a head.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cai.engines.prefixes import TokenTree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "cai_tree"
FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, as configurations call them."""

BUSH_TOKENS = 96
"""A branch with all that hangs on it is one masked block when it is no larger: many small calls would cost more."""

CAUSAL_TOKENS = 128
"""Longer runs are halved until they are not: of a causal block of up to 512 keys, the kernel computes the hidden half too."""

_CHANGES_THE_SUM = ("softcap", "s_aux", "position_bias", "head_mask")
"""What some models give their attention that this one does not know."""


@dataclass(frozen=True, slots=True)
class Block:
    """Queries that look at keys. `mask` None: at all of them, or, where `causal`, at those up to themselves."""

    queries: slice
    keys: slice
    causal: bool = False
    mask: Tensor | None = None
    blind: Tensor | None = None
    """Queries that the mask lets see none of the keys."""


_Run: TypeAlias = tuple[int, int, int]
"""First token, one past the last, one past the last descendant."""


class TreeAttention:
    """What a forward pass computes for these trees, laid one behind the other in one row.

    Args:
        trees: The trees.
        asked: Places in the row whose last hidden states are wanted.
        window: Tokens of its path that a layer with a window sees, the token itself included; None: no layer has one.
        dtype: Of the model.
        bush_tokens: Branches no larger, with all that hangs on them, are one masked block.
    """

    def __init__(
        self,
        trees: Sequence[TokenTree],
        asked: Sequence[int],
        *,
        window: int | None,
        dtype: torch.dtype,
        bush_tokens: int = BUSH_TOKENS,
    ) -> None:
        self._dtype = dtype
        self._bush_tokens = bush_tokens
        self.tokens = [token for tree in trees for token in tree.tokens]
        self.depths = [depth for tree in trees for depth in tree.depths]
        starts = [0, *accumulate(map(len, trees))]
        ends = [end + start for tree, start in zip(trees, starts, strict=False) for end in tree.ends]
        self._ends_Q, self._depths_Q = torch.tensor(ends), torch.tensor(self.depths)
        self.window = window if window is not None and self.depths and window <= max(self.depths) else None
        runs = [run for start, stop in pairwise(starts) for run in self._runs(ends, start, stop)]
        self._blocks = {limit: self._planned(runs, limit) for limit in (None, self.window)}
        self._asked = [
            (slice(start, stop), torch.tensor(some))
            for start, stop in pairwise(starts)
            if (some := sorted({place for place in asked if start <= place < stop}))
        ]
        self._asked_masks = {
            limit: [_additive(self._sees(some, keys, limit), dtype) for keys, some in self._asked]
            for limit in (None, self.window)
        }

    def attend(
        self, query_HQD: Tensor, key_GQD: Tensor, value_GQD: Tensor, *, scale: float | None, windowed: bool, last: bool
    ) -> Tensor:
        """output_HQD of one layer.

        Args:
            query_HQD: Queries; H is a multiple of G.
            key_GQD: Keys.
            value_GQD: Values.
            scale: None: 1/√D.
            windowed: Whether the layer sees the window only.
            last: Whether it is the last layer: tokens that nobody asked about get zeros.
        """
        window = self.window if windowed else None
        if last:
            output_HQD = torch.zeros_like(query_HQD)
            for (keys, asked), mask in zip(self._asked, self._asked_masks[window], strict=True):
                output_HQD[:, asked] = _flash(query_HQD[:, asked], key_GQD[:, keys], value_GQD[:, keys], scale, mask)[0]
            return output_HQD
        return attend_blocks(self.blocks(windowed=windowed), query_HQD, key_GQD, value_GQD, scale)[0]

    def blocks(self, *, windowed: bool) -> Sequence[Block]:
        """Which queries look at which keys in a layer. Each token's first block is the one whose queries are its keys."""
        return self._blocks[self.window if windowed else None]

    def _runs(self, ends: Sequence[int], start: int, stop: int) -> Iterator[_Run]:
        """Of one tree: its runs without a branch, and its bushes."""
        while start < stop:
            last, end = ends[start], start + 1
            if last - start <= self._bush_tokens:
                end = last
            while end < last and ends[end] == last:
                end += 1
            yield start, end, last
            start = end

    def _planned(self, runs: Sequence[_Run], window: int | None) -> list[Block]:
        """Each run's own block, then what hangs on it looking at it: a token's own block comes before its others."""
        if window is not None:  # a token sees two pieces of this length, and none of the others
            runs = [piece for run in runs for piece in _pieces(run, max(window, self._bush_tokens, 1))]
        own = [self._block(*each, window) for start, end, _ in runs for each in self._halved(start, end)]
        others = [self._block(slice(end, last), slice(start, end), window) for start, end, last in runs if end < last]
        return [block for block in (*own, *others) if block is not None]

    def _halved(self, start: int, end: int) -> Iterator[tuple[slice, slice]]:
        """Queries and keys that a run's look at itself is made of."""
        if end - start <= CAUSAL_TOKENS or int(self._depths_Q[end - 1] - self._depths_Q[start]) < end - start - 1:
            yield slice(start, end), slice(start, end)  # short, or a bush
            return
        middle = (start + end) // 2
        yield from self._halved(start, middle)
        yield from self._halved(middle, end)
        yield slice(middle, end), slice(start, middle)

    def _block(self, queries: slice, keys: slice, window: int | None) -> Block | None:
        """None where no query sees a key."""
        span = int(self._depths_Q[queries].max()) - int(self._depths_Q[keys.start])
        if window is None or span < window:
            if queries != keys:
                return Block(queries, keys)
            if span == queries.stop - queries.start - 1:  # as deep as it has tokens: no branches
                return Block(queries, keys, causal=True)
        sees_QK = self._sees(torch.arange(queries.start, queries.stop), keys, window)
        seeing = cast("list[int]", cast("Any", sees_QK).any(1).nonzero().flatten().tolist())
        if not seeing:
            return None
        sees_QK = sees_QK[seeing[0] : seeing[-1] + 1]
        blind_Q = ~sees_QK.any(1)
        return Block(
            slice(queries.start + seeing[0], queries.start + seeing[-1] + 1),
            keys,
            mask=_additive(sees_QK | blind_Q[:, None], self._dtype),  # the kernel has no number for a query that sees nothing
            blind=blind_Q if bool(blind_Q.any()) else None,
        )

    def _sees(self, queries_N: Tensor, keys: slice, window: int | None) -> Tensor:
        keys_K = torch.arange(keys.start, keys.stop)
        sees_NK = (keys_K <= queries_N[:, None]) & (queries_N[:, None] < self._ends_Q[keys])
        if window is not None:
            sees_NK &= self._depths_Q[queries_N][:, None] - self._depths_Q[keys] < window
        return sees_NK


def _pieces(run: _Run, most: int) -> Iterator[_Run]:
    start, end, last = run
    return ((first, min(first + most, end), last) for first in range(start, end, most))


def can_attend_in_trees(model: PreTrainedModel, device: torch.device | None = None) -> bool:
    """Whether a model can be asked: on a CPU, with the attention that this one stands in for. A trial must say the rest.

    `device`: where it will be, if not where it is.
    """
    typed: Any = model
    return (
        (device or typed.device).type == "cpu"
        and typed.config._attn_implementation == "sdpa"
        and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")
    )


@contextmanager
def tree_attention(model: PreTrainedModel) -> Generator[None]:
    """The model's layers attend by the `TreeAttention` that its forward pass is given as `cai_tree`."""
    typed: Any = model
    cast("Any", ALL_ATTENTION_FUNCTIONS).register(_NAME, _tree_forward)
    before = typed.config._attn_implementation
    try:
        typed.set_attn_implementation(_NAME)
        yield
    finally:
        typed.set_attn_implementation(before)


def _tree_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - none is made for this attention
    scaling: float | None = None,
    *,
    cai_tree: TreeAttention,
    **others: Any,
) -> tuple[Tensor, None]:
    """What a layer of a model calls: query [1, H, Q, D], key and value [1, G, Q, D] → [1, Q, H, D]."""
    if unknown := [name for name in _CHANGES_THE_SUM if others.get(name) is not None]:
        raise NotImplementedError(f"attention in trees knows no {', '.join(unknown)}")
    layer: Any = module
    kinds = getattr(layer.config, "layer_types", None)
    output_HQD = cai_tree.attend(
        query[0],
        key[0],
        value[0],
        scale=scaling,
        windowed=kinds is None or kinds[layer.layer_idx] == SLIDING,
        last=layer.layer_idx == layer.config.num_hidden_layers - 1,
    )
    return output_HQD.transpose(0, 1)[None], None


def _additive(sees_QK: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(sees_QK.shape, dtype=dtype).masked_fill_(~sees_QK, -torch.inf)[None, None]


def attend_blocks(
    blocks: Sequence[Block], query_HQD: Tensor, key_GQD: Tensor, value_GQD: Tensor, scale: float | None
) -> tuple[Tensor, Tensor]:
    """output_HQD, and sums_HQ: the logarithm of each query's sum over all its blocks."""
    H, Q, D = query_HQD.shape
    output_HQD = query_HQD.new_empty(Q, H, D).transpose(0, 1)  # lies as the layer that called wants it
    sums_HQ = query_HQD.new_empty(H, Q, dtype=torch.float64 if query_HQD.dtype == torch.float64 else torch.float32)
    for block in blocks:
        found, sums = _flash(
            query_HQD[:, block.queries],
            key_GQD[:, block.keys],
            value_GQD[:, block.keys],
            scale,
            block.mask,
            causal=block.causal,
        )
        before, sums_before = output_HQD[:, block.queries], sums_HQ[:, block.queries]
        if block.queries == block.keys:
            before.copy_(found)
            sums_before.copy_(sums)
            continue
        if block.blind is not None:
            sums.masked_fill_(block.blind, -torch.inf)
        before.lerp_(found, torch.sigmoid(sums - sums_before)[..., None].to(found.dtype))
        sums_before.copy_(torch.logaddexp(sums_before, sums))
    return output_HQD, sums_HQ


def _flash(
    query_HQD: Tensor, key_GKD: Tensor, value_GKD: Tensor, scale: float | None, mask: Tensor | None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """output_HQD, and the logarithm of each query's sum."""
    # The operator under `scaled_dot_product_attention`, which does not tell the sums.
    output, sums = cast("Any", torch.ops.aten)._scaled_dot_product_flash_attention_for_cpu(
        query_HQD[None], key_GKD[None], value_GKD[None], 0.0, causal, attn_mask=mask, scale=scale
    )
    return output[0], sums[0]
