"""Log-probabilities of replies under a causal language model, and losses of them, without ever making logits of every position.

Works with any transformers causal model, bare, LoRA-wrapped, or under DDP or FSDP. Shape suffixes as in `packing`, and
V vocabulary, D hidden size, N tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from cai.training.attention import Path
from cai.training.divergence import head_divergences, logit_divergences
from cai.training.head import Head, LossOf, fused_loss, head_logps, sum_dtype, wide_dtype
from cai.training.packing import PackedBatch
from cai.training.scorer import Scorer, at_slots, inner_model


class _TokenLogps(torch.autograd.Function):
    """log softmax(logits)[target] in float32 (float64 for float64 logits), tile by tile in one reused buffer.

    The backward pass makes the gradient in the logits' own dtype; no second [N, V] tensor of float32 exists at any time.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        wide = wide_dtype(logits_NV.dtype)
        N = logits_NV.shape[0]
        normalizer_N = torch.empty(N, dtype=wide, device=logits_NV.device)
        logps_N = torch.empty_like(normalizer_N)
        for rows, tile_nV in _tiles(logits_NV, wide):
            largest_n1 = tile_nV.amax(-1, keepdim=True)
            chosen_n1 = tile_nV.gather(1, targets_N[rows, None])
            total_n1 = tile_nV.sub_(largest_n1).exp_().sum(-1, keepdim=True)
            lse_n1 = largest_n1 + total_n1.log()
            normalizer_N[rows] = lse_n1[:, 0]
            logps_N[rows] = (chosen_n1 - lse_n1)[:, 0]
        ctx.save_for_backward(logits_NV, targets_N, normalizer_N)
        return logps_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits_NV, targets_N, normalizer_N = ctx.saved_tensors
        grad_n1 = grads[0][:, None]
        grad_NV = torch.empty_like(logits_NV)
        for rows, tile_nV in _tiles(logits_NV, normalizer_N.dtype):
            tile_nV.sub_(normalizer_N[rows, None]).exp_().mul_(-grad_n1[rows])
            tile_nV.scatter_add_(1, targets_N[rows, None], grad_n1[rows])
            grad_NV[rows] = tile_nV
        return grad_NV, None


def _tiles(logits_NV: Tensor, wide: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Copies of some rows at a time, all in the same buffer: fresh pages for each would cost more than the arithmetic."""
    N, V = logits_NV.shape
    rows = min(N, 128 if logits_NV.device.type == "cpu" else 1024)
    buffer = torch.empty(rows, V, dtype=wide, device=logits_NV.device)
    for start in range(0, N, rows):
        stop = min(start + rows, N)
        yield slice(start, stop), buffer[: stop - start].copy_(logits_NV[start:stop])


def token_logps(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """One log p(target) for each row of logits, in nats, as float32: in bfloat16 it would be off by up to 0.1 nat a token."""
    return cast("Any", _TokenLogps).apply(logits_NV, targets_N)


def sequence_logps(token_logps_M: Tensor, sequence_M: Tensor, sequences: int) -> Tensor:
    """Sum log-probabilities of tokens by the sequence they belong to.

    Each token's sequence is in [0, sequences). The result is logps_R, in nats. Values of more dimensions [M, …] give [R, …].

    Raises:
        ValueError: If a sequence has no token; its log-probability would silently be 0.
    """
    if torch.bincount(sequence_M, minlength=sequences).min() == 0:
        raise ValueError("a sequence has no scored token")
    sums_R = torch.zeros(
        sequences, *token_logps_M.shape[1:], dtype=sum_dtype(token_logps_M.device), device=token_logps_M.device
    )
    return sums_R.index_add(0, sequence_M, token_logps_M.to(sums_R.dtype))


class ReplyScorer(Scorer):
    """Log-probabilities and losses of replies under one model.

    While it works, the model's output head is given only the positions that predict reply tokens. Where the head is one plain
    matrix, it does not make their logits either (`head`); else they are [S, V], after whatever the architecture does to them.

    Args:
        model: The causal model, bare or wrapped by peft.
        compute_dtype: Autocast to this dtype; None: compute in the dtype of the weights.
        path: How sequences are kept apart; see `probing.choose_path` for which one is right.
        plain_head: Whether a plain matrix is used as such.
        temperature: Logits are divided by it: the distribution is the one that is drawn from at this temperature.

    Raises:
        TrainingError: If the model has no output head.
    """

    def __init__(
        self,
        model: nn.Module,
        compute_dtype: torch.dtype | None = None,
        *,
        path: Path = "padded",
        plain_head: bool = True,
        temperature: float = 1.0,
    ) -> None:
        self.temperature = temperature
        head = inner_model(model).get_output_embeddings()
        super().__init__(model, head, compute_dtype, path=path, plain_head=plain_head)

    def logps(self, model: nn.Module, batch: PackedBatch, *, on_hidden: Callable[[Tensor], None] | None = None) -> Tensor:
        """logps_R (nats, float64) of every sequence of the batch, with gradients if they are enabled.

        `model`: as for `values`. `on_hidden` is given the slots' hidden states hidden_SD, those that the output head reads.
        """
        if torch.is_grad_enabled() or not self._has_plain_head():
            logps_S = token_logps(self._logits(model, batch, on_hidden), batch.targets)
        else:
            logps_S = batch.slots.new_empty(0)

            def score(hidden_SD: Tensor) -> Tensor:
                nonlocal logps_S
                logps_S = head_logps(self._head(), hidden_SD, batch.targets)
                if on_hidden is not None:
                    on_hidden(hidden_SD)
                return hidden_SD

            self._in_place_of_the_head(model, batch, score)
        return sequence_logps(logps_S[batch.slot_of], batch.sequence_of, len(batch.sequence_lengths))

    def values(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        return self.logps(model, batch)

    @torch.no_grad()
    def logits(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """logits_SV of the batch's slots, as the model gives them (over the temperature), in its own precision: for few slots.

        `model` is as for `logps`.
        """
        return self._logits(model, batch)

    @torch.no_grad()
    def logps_and_divergences(
        self, model: nn.Module, batch: PackedBatch, as_reference: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> tuple[Tensor, Tensor]:
        """logps_R as `logps`, and for each sequence KL(policy ‖ reference) summed over its scored tokens: nats, float64.

        Exact at the tokens as they stand: each token's two distributions over the whole vocabulary are compared.

        Args:
            model: As for `logps`.
            batch: The batch.
            as_reference: In this context the model is the reference: its adapter switched off.
        """
        if not self._has_plain_head():
            with as_reference():
                reference_SV = self._logits(model, batch)
            logits_SV = self._logits(model, batch)
            found_S = token_logps(logits_SV, batch.targets), logit_divergences(logits_SV, reference_SV)
        else:
            reference_SD = batch.slots.new_empty(0)
            found_S = (reference_SD, reference_SD)

            def keep(hidden_SD: Tensor) -> Tensor:
                nonlocal reference_SD
                reference_SD = hidden_SD
                return hidden_SD

            def compare(hidden_SD: Tensor) -> Tensor:
                nonlocal found_S
                head = self._head()
                found_S = head_logps(head, hidden_SD, batch.targets), head_divergences(head, hidden_SD, reference_SD)
                return hidden_SD

            with as_reference():
                self._in_place_of_the_head(model, batch, keep)
            self._in_place_of_the_head(model, batch, compare)
        count = len(batch.sequence_lengths)
        logps_S, divergences_S = found_S
        return (
            sequence_logps(logps_S[batch.slot_of], batch.sequence_of, count),
            sequence_logps(divergences_S[batch.slot_of], batch.sequence_of, count),
        )

    def loss(
        self, model: nn.Module, batch: PackedBatch, loss_of: LossOf, *, of_hidden: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """As `Scorer.loss`; `of_hidden`, a loss of the slots' hidden states hidden_SD (of a value head on them), is added."""
        if not self._has_plain_head():
            kept: list[Tensor] = []
            loss = loss_of(slice(0, len(batch.parts)), self.logps(model, batch, on_hidden=kept.append))
            return loss if of_hidden is None else loss + of_hidden(kept[0])
        loss = torch.zeros(())

        def measure(hidden_SD: Tensor) -> Tensor:
            nonlocal loss
            loss, _ = fused_loss(self._head(), hidden_SD, batch, loss_of)
            if of_hidden is not None:
                loss = loss + of_hidden(hidden_SD)
            return loss

        # Exactly the loss: but its gradient now passes through what the wrapped model returned, on which DDP and FSDP wait.
        nothing = self._in_place_of_the_head(model, batch, measure)
        return loss + nothing

    def _has_plain_head(self) -> bool:
        return self.plain_head and self._found_head() is not None

    def _head(self) -> Head:
        """During the head's forward pass: sharded weights are whole only then."""
        head = self._found_head()
        assert head is not None
        return head

    def _found_head(self) -> Head | None:
        return Head.of(self._inner, self.temperature)

    def _logits(self, model: nn.Module, batch: PackedBatch, on_hidden: Callable[[Tensor], None] | None = None) -> Tensor:
        original = self._module.forward

        def head(hidden_BTD: Tensor) -> Tensor:
            hidden_SD = at_slots(hidden_BTD, batch)
            if on_hidden is not None:
                on_hidden(hidden_SD)
            return original(hidden_SD[None])

        logits_SV = self._forward(model, batch, head).flatten(0, -2)
        return logits_SV if self.temperature == 1.0 else logits_SV / self.temperature

    def _in_place_of_the_head(self, model: nn.Module, batch: PackedBatch, use: Callable[[Tensor], Tensor]) -> Tensor:
        """Give the slots' hidden states to `use`. Returns a zero that hangs on what it returned."""

        def nothing(hidden_BTD: Tensor) -> Tensor:
            found = use(at_slots(hidden_BTD, batch))
            return hidden_BTD.new_zeros(1, 1, 1) + found.sum() * 0.0  # no view: FSDP hangs its work on it

        return self._forward(model, batch, nothing).sum()
