"""The output head only where it is needed: log-probabilities of chosen tokens, and the gradient of a loss of their sums,
without ever holding logits of every position.

Logits of a tile of slots are made in one reused buffer. Where the loss of a group depends on no other group, its gradient is
known as soon as the group's own log-probabilities are: it is made from the logits while they are still there, so that the head
costs three matrix products and not four (as chunked losses do for cross-entropy; here with the pair loss in between). Shape
suffixes as in `packing`, and V vocabulary, D hidden size, N slots of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from cai.models.products import add_product, multiplied, multiply_into
from cai.training.packing import PackedBatch, Part

LossOf: TypeAlias = Callable[[slice, Tensor], Tensor]
"""Of groups [start, stop) of a batch and the log-probabilities of their sequences (float64): their part of the loss."""

BUFFER_BYTES = {"cpu": 128 * 2**20}
BUFFER_BYTES_ELSE = 512 * 2**20
LEAST_SLOTS = 256
"""Of a tile, however large the vocabulary: matrix products of fewer rows are slow."""


@dataclass(frozen=True, slots=True)
class Head:
    """An output head that is one plain matrix, and what the model does to its logits.

    Args:
        weight: The matrix, [V, D].
        bias: [V], added to logits; or None.
        scale: Logits are multiplied by it.
        cap: Soft cap: logits become cap · tanh(logits / cap), after the scale; None: none.
        temperature: Logits are divided by it, last of all: log-probabilities are those of tokens that are drawn at it.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    @classmethod
    def of(cls, model: Any, temperature: float = 1.0) -> Head | None:
        """The head of a transformers model; None where it is more than a matrix (adapted, quantised, of a strange kind).

        Where weights are sharded, the whole matrix is there only during the head's own forward pass: ask in there.
        """
        module = model.get_output_embeddings()
        # Its forward and not its class, which FSDP replaces by a subclass.
        if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
            return None
        if not module.weight.is_floating_point():
            return None
        config = model.config.get_text_config()
        divisor, cap = getattr(config, "logits_scaling", None), getattr(config, "final_logit_softcapping", None)
        scale = (getattr(config, "logit_scale", None) or 1.0) / (divisor or 1.0)
        return cls(module.weight, module.bias, float(scale), None if cap is None else float(cap), temperature)

    @property
    def slope(self) -> float:
        """The derivative of each logit by the matrix's own, but for that of the cap."""
        return self.scale / self.temperature

    def with_hidden(self, hidden_SD: Tensor) -> Head:
        """The same head in the precision of these hidden states: autocast leaves weights as they are."""
        dtype = hidden_SD.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return Head(self.weight.to(dtype), bias, self.scale, self.cap, self.temperature)

    def logits(self, hidden_ND: Tensor, out_NV: Tensor) -> Tensor | None:
        """Logits in `out_NV`. With a cap, the derivative of each by its uncapped one is returned."""
        if hidden_ND.dtype == out_NV.dtype:
            multiply_into(out_NV, hidden_ND, self.weight.t())
        else:
            out_NV.copy_(hidden_ND @ self.weight.t())
        if self.bias is not None:
            out_NV.add_(self.bias)
        if self.scale != 1.0:
            out_NV.mul_(self.scale)
        slope_NV: Tensor | None = None
        if self.cap is not None:
            out_NV.div_(self.cap).tanh_()
            slope_NV = 1.0 - out_NV.square()
            out_NV.mul_(self.cap)
        if self.temperature != 1.0:
            out_NV.div_(self.temperature)
        return slope_NV


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """That logits are summed up in: bfloat16 would be off by up to 0.1 nat a token."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sum_dtype(device: torch.device) -> torch.dtype:
    """That log-probabilities are summed in.

    float32 sums over thousands of nats are off by 1e-4, which the difference of two of them would show; but Apple's GPUs have
    nothing wider.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def tile_slots(vocabulary: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many slots' logits the buffer holds."""
    buffer_bytes = BUFFER_BYTES.get(device.type, BUFFER_BYTES_ELSE)
    return max(LEAST_SLOTS, buffer_bytes // (vocabulary * wide_dtype(dtype).itemsize))


@torch.no_grad()
def head_logps(head: Head, hidden_SD: Tensor, targets_S: Tensor, *, slots: int | None = None) -> Tensor:
    """logps_S (nats), without gradients.

    Args:
        head: The head.
        hidden_SD: Hidden states that predict the targets.
        targets_S: Token ids.
        slots: Of a tile; None: what `tile_slots` says.
    """
    tiles = _Tiles(head, hidden_SD, slots)
    logps_S = torch.empty(len(targets_S), dtype=tiles.buffer.dtype, device=hidden_SD.device)
    for at in tiles.over(slice(0, len(targets_S))):
        logps_S[at] = tiles.softmax(at, targets_S).logps
    return logps_S


def fused_loss(
    head: Head, hidden_SD: Tensor, batch: PackedBatch, loss_of: LossOf, *, slots: int | None = None
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, and logps_R (nats, float64, without gradients) of its sequences.

    Args:
        head: The head.
        hidden_SD: Hidden states of the batch's slots.
        batch: Where groups lie.
        loss_of: Called once for each run of whole groups that fills a tile, with gradients enabled, in order.
        slots: Of a tile; None: what `tile_slots` says.
    """
    return cast("Any", _FusedLoss).apply(hidden_SD, head.weight, head.bias, head, batch, loss_of, slots)


@dataclass(frozen=True, slots=True)
class _Softmax:
    """Of a tile, whose buffer holds exp(logit - largest).

    Args:
        logps: [N] of the targets.
        total: [N, 1] sum of the buffer over the vocabulary.
        slope: [N, V]; see `Head.logits`.
    """

    logps: Tensor
    total: Tensor
    slope: Tensor | None


class _Tiles:
    def __init__(self, head: Head, hidden_SD: Tensor, slots: int | None) -> None:
        vocabulary = head.weight.shape[0]
        self.head = head.with_hidden(hidden_SD)
        self._hidden_SD = hidden_SD
        self.slots = slots or tile_slots(vocabulary, hidden_SD.dtype, hidden_SD.device)
        rows = max(1, min(self.slots, len(hidden_SD)))
        self.buffer = torch.empty(rows, vocabulary, dtype=wide_dtype(hidden_SD.dtype), device=hidden_SD.device)

    def over(self, slots: slice) -> list[slice]:
        return [slice(start, min(start + self.slots, slots.stop)) for start in range(slots.start, slots.stop, self.slots)]

    def softmax(self, at: slice, targets_S: Tensor) -> _Softmax:
        tile_NV = self.buffer[: at.stop - at.start]
        slope_NV = self.head.logits(self._hidden_SD[at], tile_NV)
        largest_N1 = tile_NV.amax(-1, keepdim=True)
        chosen_N1 = tile_NV.gather(1, targets_S[at, None])
        # In place, one step at a time: on a CPU, fresh pages for each step would cost more than the arithmetic.
        total_N1 = tile_NV.sub_(largest_N1).exp_().sum(-1, keepdim=True)
        return _Softmax((chosen_N1 - largest_N1 - total_N1.log())[:, 0], total_N1, slope_NV)

    def gradient(self, at: slice, softmax: _Softmax, targets_S: Tensor, weights_N1: Tensor) -> Tensor:
        """Of Σ weight · logp in the head's own outputs: weight · (one-hot of the target − softmax)."""
        tile_NV = self.buffer[: at.stop - at.start]
        tile_NV.mul_(-weights_N1 / softmax.total).scatter_add_(1, targets_S[at, None], weights_N1)
        if softmax.slope is not None:
            tile_NV.mul_(softmax.slope)
        return tile_NV if self.head.slope == 1.0 else tile_NV.mul_(self.head.slope)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_SD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        head: Head,
        batch: PackedBatch,
        loss_of: LossOf,
        slots: int | None,
    ) -> tuple[Tensor, Tensor]:
        of_hidden = torch.empty_like(hidden_SD) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias_V) if bias_V is not None and ctx.needs_input_grad[2] else None
        tiles = _Tiles(head, hidden_SD, slots)
        wide = sum_dtype(hidden_SD.device)
        logps_R = torch.zeros(len(batch.sequence_lengths), dtype=wide, device=hidden_SD.device)
        loss = torch.zeros((), dtype=wide, device=hidden_SD.device)
        for groups in _runs(batch.parts, tiles.slots):
            run = _joined(batch.parts[groups])
            places = tiles.over(run.slots)
            whole = tiles.softmax(places[0], batch.targets) if len(places) == 1 else None
            logps_N = whole.logps if whole else torch.cat([tiles.softmax(at, batch.targets).logps for at in places])
            slot_of_M = batch.slot_of[run.tokens] - run.slots.start
            sequence_of_M = batch.sequence_of[run.tokens] - run.sequences.start
            sums_R = torch.zeros(run.sequences.stop - run.sequences.start, dtype=wide, device=hidden_SD.device)
            sums_R.index_add_(0, sequence_of_M, logps_N[slot_of_M].to(wide))
            with torch.enable_grad():
                sums_R.requires_grad_()
                part = loss_of(groups, sums_R)
                (weights_R,) = torch.autograd.grad(part, sums_R)
            logps_R[run.sequences] = sums_R.detach()
            loss += part.detach()
            weights_N = torch.zeros(len(logps_N), dtype=wide, device=hidden_SD.device)
            weights_N.index_add_(0, slot_of_M, weights_R[sequence_of_M])
            for at in places:
                # A group that is larger than the buffer: its logits are made a second time.
                known = whole or tiles.softmax(at, batch.targets)
                weights_N1 = weights_N[at.start - run.slots.start : at.stop - run.slots.start, None].to(logps_N.dtype)
                grad_NV = tiles.gradient(at, known, batch.targets, weights_N1)
                narrow_NV = grad_NV.to(hidden_SD.dtype)
                if of_hidden is not None:
                    of_hidden[at] = multiplied(narrow_NV, tiles.head.weight)
                if of_weight is not None:
                    if of_weight.dtype == narrow_NV.dtype:
                        add_product(of_weight, narrow_NV.t(), hidden_SD[at])
                    else:
                        of_weight.add_(narrow_NV.t() @ hidden_SD[at])
                if of_bias is not None:
                    of_bias.add_(grad_NV.sum(0))
        ctx.save_for_backward(of_hidden, of_weight, of_bias)
        ctx.mark_non_differentiable(logps_R)
        return loss, logps_R

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        factor = grads[0]
        found: tuple[Tensor | None, ...] = ctx.saved_tensors
        if factor.device.type != "cpu" or float(factor) != 1.0:  # asking a GPU would be dearer than the product
            found = tuple(None if each is None else each * factor.to(each.dtype) for each in found)
        return (*found, None, None, None, None)


def _runs(parts: tuple[Part, ...], slots: int) -> list[slice]:
    """Runs of whole groups of at most so many slots; a larger group is a run of its own."""
    runs: list[slice] = []
    first = 0
    for at in range(1, len(parts) + 1):
        if at == len(parts) or parts[at].slots.stop - parts[first].slots.start > slots:
            runs.append(slice(first, at))
            first = at
    return runs


def _joined(parts: tuple[Part, ...]) -> Part:
    first, last = parts[0], parts[-1]
    return Part(
        slice(first.slots.start, last.slots.stop),
        slice(first.tokens.start, last.tokens.stop),
        slice(first.sequences.start, last.sequences.stop),
    )
