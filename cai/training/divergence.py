"""How far a policy's next-token distributions are from the reference's: exact, over the whole vocabulary, tile by tile.

Shape suffixes as in `head`: S slots, N slots of a tile, V vocabulary, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cai.training.head import Head, tile_slots, wide_dtype


@torch.no_grad()
def head_divergences(head: Head, hidden_SD: Tensor, reference_SD: Tensor, *, slots: int | None = None) -> Tensor:
    """KL(policy ‖ reference) at each slot, in nats, where both have the same head.

    Args:
        head: Of both.
        hidden_SD: The policy's hidden states.
        reference_SD: The reference's.
        slots: Of a tile; None: half of what `tile_slots` says, for two tiles are held at once.
    """
    count, vocabulary = len(hidden_SD), head.weight.shape[0]
    wide = wide_dtype(hidden_SD.dtype)
    head = head.with_hidden(hidden_SD)
    rows = slots or max(1, tile_slots(vocabulary, hidden_SD.dtype, hidden_SD.device) // 2)
    policy_NV, reference_NV = (torch.empty(min(rows, count), vocabulary, dtype=wide, device=hidden_SD.device) for _ in range(2))
    found_S = torch.empty(count, dtype=wide, device=hidden_SD.device)
    for start in range(0, count, rows):
        at = slice(start, min(start + rows, count))
        tiles = policy_NV[: at.stop - at.start], reference_NV[: at.stop - at.start]
        head.logits(hidden_SD[at], tiles[0])
        head.logits(reference_SD[at], tiles[1])
        found_S[at] = _divergences(*tiles)
    return found_S


@torch.no_grad()
def logit_divergences(logits_SV: Tensor, reference_SV: Tensor, *, slots: int = 128) -> Tensor:
    """KL(policy ‖ reference) at each slot, in nats, of logits that are there already. The logits are left as they are."""
    wide = wide_dtype(logits_SV.dtype)
    tiles = [slice(start, start + slots) for start in range(0, len(logits_SV), slots)]
    return torch.cat([_divergences(*(each[at].to(wide, copy=True) for each in (logits_SV, reference_SV))) for at in tiles])


def _divergences(policy_NV: Tensor, reference_NV: Tensor) -> Tensor:
    """Σ p · (log p − log q) of each row. Both tiles are used up."""
    policy_NV -= policy_NV.logsumexp(-1, keepdim=True)
    reference_NV -= reference_NV.logsumexp(-1, keepdim=True)
    reference_NV.neg_().add_(policy_NV)
    return policy_NV.exp_().mul_(reference_NV).sum(-1)
