"""Rewards of replies under a sequence classifier, read at the last token of each, and losses of them.

Shape suffixes as in `packing`, and K heads, D hidden size.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from cai.errors import TrainingError
from cai.training.attention import Path
from cai.training.head import LossOf, sum_dtype
from cai.training.logps import sequence_logps
from cai.training.packing import PackedBatch, TokenGroup
from cai.training.scorer import Scorer, at_slots, inner_model

_END = 0
"""Stands after the last token of each reply, as what that token is asked for. No model ever reads it."""


def read_at_the_end(group: TokenGroup) -> TokenGroup:
    """The group whose only slots are the last tokens of its replies.

    A reward is laid out as if it were the prediction of one more token: so the last token is an input, unlike in
    `packing`, and everything that packs, cuts and probes log-probabilities does the same with rewards.
    """
    return replace(
        group,
        replies=tuple((*reply, _END) for reply in group.replies),
        unscored=tuple(((0, len(reply)),) for reply in group.replies),
    )


def each_reply(group: TokenGroup) -> list[TokenGroup]:
    """The replies of a group that `read_at_the_end` made, each as a group of its own."""
    return [
        replace(group, replies=(reply,), unscored=(spans,)) for reply, spans in zip(group.replies, group.unscored, strict=True)
    ]


def marked_at_the_end(group: TokenGroup) -> TokenGroup:
    """A group that `read_at_the_end` made, as people read it: its last tokens themselves are marked."""
    replies = tuple(reply[:-1] for reply in group.replies)
    return replace(group, replies=replies, unscored=tuple(((0, len(reply) - 1),) for reply in replies))


def reply_tokens(group: TokenGroup) -> tuple[int, ...]:
    """Tokens of each reply of a group that `read_at_the_end` made."""
    return tuple(len(reply) - 1 for reply in group.replies)


class RewardScorer(Scorer):
    """Rewards [R, K] of sequences under one sequence classifier, and losses of them.

    Args:
        model: The classifier, bare or wrapped by peft.
        compute_dtype: Autocast to this dtype; None: compute in the dtype of the weights. The head's product is never
            rounded to less than the head's own precision.
        path: How sequences are kept apart; see `probing.choose_path` for which one is right.

    Raises:
        TrainingError: If the model has no head named `score`, as transformers' decoders with such a head have.
    """

    def __init__(self, model: nn.Module, compute_dtype: torch.dtype | None = None, *, path: Path = "padded") -> None:
        head = getattr(inner_model(model), "score", None)
        if not isinstance(head, nn.Module):
            raise TrainingError(
                f"{type(inner_model(model)).__name__} reads no reward at the last token", "use a decoder's sequence classifier"
            )
        super().__init__(model, head, compute_dtype, path=path, plain_head=True)

    def values(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """rewards_RK."""
        rewards_RK, nothing = self._rewards(model, batch)
        return rewards_RK + nothing

    def loss(self, model: nn.Module, batch: PackedBatch, loss_of: LossOf) -> Tensor:
        """See `Scorer.loss`; `loss_of` gets rewards_RK."""
        rewards_RK, nothing = self._rewards(model, batch)
        return loss_of(slice(0, len(batch.parts)), rewards_RK) + nothing

    def _rewards(self, model: nn.Module, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """rewards_RK, and a zero that hangs on what the wrapped model returned, on which DDP and FSDP wait."""
        score = self._module.forward
        dtype = next(self._module.parameters()).dtype
        rewards_SK = batch.slots.new_empty(0)

        def read(hidden_BTD: Tensor) -> Tensor:
            nonlocal rewards_SK
            with torch.autocast(device_type=hidden_BTD.device.type, enabled=False):
                rewards_SK = score(at_slots(hidden_BTD, batch).to(dtype))
            # The classifier takes one position of each row; no view: FSDP hangs its work on it.
            return hidden_BTD.new_zeros(*hidden_BTD.shape[:2], 1) + rewards_SK.sum() * 0.0

        nothing = self._forward(model, batch, read).sum()
        wide_SK = rewards_SK.to(sum_dtype(rewards_SK.device))
        return sequence_logps(wide_SK[batch.slot_of], batch.sequence_of, len(batch.sequence_lengths)), nothing
