"""Log-probabilities of replies under a causal language model, without ever making logits of every position.

Works with any transformers causal model, bare, LoRA-wrapped or under DDP. Shape suffixes as in `packing`, and V vocabulary,
N tokens, R sequences.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from cai.errors import TrainingError
from cai.training.packing import Layout, PackedBatch, TokenGroup, pack

# Largest difference in a reply's log-probability (nats a token) between the two layouts that rounding explains.
SAME_LOGP_NATS = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.15, torch.float16: 0.05}


class _TokenLogps(torch.autograd.Function):
    """log softmax(logits)[target] in float32 (float64 for float64 logits), tile by tile in one reused buffer.

    The backward pass makes the gradient in the logits' own dtype; no second [N, V] tensor of float32 exists at any time.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        wide = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
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

    Sums are float64: float32 sums over thousands of nats are off by 1e-4, which the difference of two of them would show.

    Each token's sequence is in [0, sequences). The result is logps_R, in nats.

    Raises:
        ValueError: If a sequence has no token; its log-probability would silently be 0.
    """
    if torch.bincount(sequence_M, minlength=sequences).min() == 0:
        raise ValueError("a sequence has no scored token")
    sums_R = torch.zeros(sequences, dtype=torch.float64, device=token_logps_M.device)
    return sums_R.index_add(0, sequence_M, token_logps_M.double())


class ReplyScorer:
    """Log-probabilities of replies under one model.

    While it scores, the model's output head is given only the positions that predict reply tokens (through a forward
    pre-hook), so the logits it returns are [S, V], after whatever scaling or capping the architecture does to them.

    Args:
        model: The causal model, bare or wrapped by peft.
        compute_dtype: Autocast to this dtype; None: compute in the dtype of the weights.

    Raises:
        TrainingError: If the model has no output head.
    """

    def __init__(self, model: nn.Module, compute_dtype: torch.dtype | None = None) -> None:
        self.compute_dtype = compute_dtype
        self._slots: Tensor | None = None  # [S]
        inner = causal_model(model)
        head = inner.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise TrainingError(f"{type(inner).__name__} has no output head", "use a causal language model")
        self._hook = head.register_forward_pre_hook(self._keep_scored_positions)
        self._mask_dtype = next(iter(inner.parameters())).dtype

    def _keep_scored_positions(self, _head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._slots is None:
            return None
        hidden_BTD: Tensor = args[0]
        return (hidden_BTD.flatten(0, 1).index_select(0, self._slots), *args[1:])

    def logps(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """logps_R (nats, float64) of every sequence of the batch, with gradients if they are enabled.

        `model` is the one given to `__init__`, or a wrapper around it (DDP).
        """
        mask = batch.mask
        if mask.dim() == 4:
            seen = self.compute_dtype or self._mask_dtype
            mask = torch.zeros(mask.shape, dtype=seen, device=mask.device).masked_fill_(~mask, torch.finfo(seen).min)
        dtype, device = self.compute_dtype, batch.input_ids.device.type
        autocast = contextlib.nullcontext() if dtype is None else torch.autocast(device_type=device, dtype=dtype)
        self._slots = batch.slots
        try:
            with autocast:
                logits_SV: Tensor = model(
                    input_ids=batch.input_ids, attention_mask=mask, position_ids=batch.position_ids, use_cache=False
                ).logits
        finally:
            self._slots = None
        logps_S = token_logps(logits_SV.flatten(0, -2), batch.targets)
        return sequence_logps(logps_S[batch.slot_of], batch.sequence_of, len(batch.sequence_lengths))

    def close(self) -> None:
        """Give the model's head its usual input back."""
        self._hook.remove()


def causal_model(model: nn.Module) -> Any:
    """The transformers model inside a peft wrapper, or the model itself."""
    unwrap: Callable[[], Any] | None = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def choose_layout(
    model: nn.Module, scorer: ReplyScorer, groups: Sequence[TokenGroup], device: torch.device
) -> tuple[Layout, str]:
    """The shared layout where the model computes with it exactly what it computes without, else the padded one.

    State-space layers carry one reply's state into the next, sliding windows count the wrong neighbours, and some kernels
    ignore a four-dimensional mask: all run without an error. So it is tried on a pair of the data: with the chosen reply
    replaced, the other's log-probability must not move; and both must be what the padded layout gives.

    Returns:
        The layout, and why it is not the shared one ("" if it is).
    """
    inner = causal_model(model)
    pairs = [group for group in groups if len(group.replies) > 1]
    if not pairs:
        return "padded", "rows have one reply each"
    implementation = getattr(inner.config, "_attn_implementation", None)
    if implementation not in {"sdpa", "eager"}:
        return "padded", f"attention implementation {implementation!r} takes no block mask"
    longest = max(pairs, key=lambda group: group.longest)
    for name in ("sliding_window", "attention_chunk_size"):
        window = getattr(inner.config.get_text_config(), name, None)
        if isinstance(window, int) and window < longest.longest:
            return "padded", f"attention sees only {window} tokens back and the longest pair has {longest.longest}"
    # Not the longest: a probe need not be dear, and the two tests above see to what depends on length.
    probe = min(pairs, key=lambda group: (abs(group.longest - 64), group.longest))
    return _probe(model, scorer, probe, device)


@torch.no_grad()
def _probe(model: nn.Module, scorer: ReplyScorer, group: TokenGroup, device: torch.device) -> tuple[Layout, str]:
    first, *others = group.replies
    # Reversed and doubled: other tokens and another length, all of them legal ids.
    disturbed = TokenGroup(group.prompt_ids, (first[:1] + first[:0:-1] + first, *others))
    plain = TokenGroup(group.prompt_ids, (first, *others))

    def score(probe: TokenGroup, layout: Layout) -> Tensor:
        batch = pack([probe], layout).to(device)
        lengths_R = torch.tensor(batch.sequence_lengths, device=device)
        return scorer.logps(model, batch) / lengths_R

    try:
        shared_R, moved_R, padded_R = score(plain, "shared"), score(disturbed, "shared"), score(plain, "padded")
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return "padded", f"the model cannot run with a block mask ({str(error).splitlines()[0][:120]})"
    tolerance = SAME_LOGP_NATS[scorer.compute_dtype or next(iter(model.parameters())).dtype]
    if float((shared_R[1:] - moved_R[1:]).abs().max()) > tolerance:
        return "padded", "one reply's tokens reach the other's log-probability (state-space or convolution layers)"
    if float((shared_R - padded_R).abs().max()) > tolerance:
        return "padded", "the block mask gives other log-probabilities than rows of their own"
    return "shared", ""
