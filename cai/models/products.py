"""Products of float32 matrices on CPUs of which torch's own library uses half.

torch multiplies float32 by MKL, which on processors that are not Intel's leaves AVX-512 alone. oneDNN, which torch brings along
for other precisions, uses it: 2.3 times as fast on an AMD EPYC with 512-bit units (Zen 5), and as exact (both are float32
throughout and differ by the order of their sums). Shape suffixes: M rows, K summed over, N columns.
"""

from __future__ import annotations

import platform
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

_LEAST_OPERATIONS = 2**21
"""Multiplications and additions of a product, below which handing it over costs more than it saves."""
_PIECE_NUMBERS = 2**20
"""Of a large product, what is made at once: fresh memory for all of it would cost as much as the arithmetic."""
_torchs_linear = functional.linear
_STRANGE_TO_TORCH = (AttributeError, NotImplementedError, RuntimeError, TypeError)
"""What torch raises where it has no such operator, or another one of the name."""


def multiplied(left_MK: Tensor, right_KN: Tensor) -> Tensor:
    """The product, without gradients; by oneDNN where `suits_onednn`."""
    return _by_onednn(left_MK, right_KN.t()) if suits_onednn(left_MK, right_KN) else left_MK @ right_KN


def multiply_into(out_MN: Tensor, left_MK: Tensor, right_KN: Tensor) -> None:
    """The same in `out_MN`; for many columns."""
    if not suits_onednn(left_MK, right_KN):
        torch.mm(left_MK, right_KN, out=out_MN)
        return
    for columns in _pieces(out_MN.shape[1], len(out_MN)):
        out_MN[:, columns] = _by_onednn(left_MK, right_KN[:, columns].t())


def add_product(out_MN: Tensor, left_MK: Tensor, right_KN: Tensor) -> None:
    """The same added to `out_MN`; for many rows."""
    if not suits_onednn(left_MK, right_KN):
        out_MN.addmm_(left_MK, right_KN)
        return
    for rows in _pieces(len(out_MN), max(right_KN.shape)):
        out_MN[rows] += _by_onednn(left_MK[rows], right_KN.t())


def suits_onednn(left: Tensor, weight: Tensor) -> bool:
    """Whether a product of these two, each of any layout, should be oneDNN's."""
    return (
        left.dtype is weight.dtype is torch.float32
        and left.device.type == weight.device.type == "cpu"
        and type(left) is Tensor
        and type(weight) in {Tensor, torch.nn.Parameter}
        and weight.dim() == 2
        and 2 * left.numel() * (weight.numel() // max(1, left.shape[-1])) >= _LEAST_OPERATIONS
        and onednn_is_faster()
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def onednn_is_faster() -> bool:
    """Whether MKL uses half of this machine and oneDNN all of it. By the kind of machine and not by a stopwatch: a run that is
    resumed must multiply as it did before.
    """
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not (wide and torch.backends.mkl.is_available() and not _is_intels()):
        return False
    draw = torch.Generator().manual_seed(0)
    left_MK, right_NK = torch.randn(8, 16, generator=draw), torch.randn(4, 16, generator=draw)
    try:
        apart = (_by_onednn(left_MK, right_NK).double() - left_MK.double() @ right_NK.double().t()).abs().max()
    except _STRANGE_TO_TORCH:
        return False
    return float(apart) < 1e-5


def _is_intels() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "Intel" in platform.processor()


def _by_onednn(left_MK: Tensor, right_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """The product with the right one's transpose, and the bias added."""
    if not (right_NK.is_contiguous() or right_NK.t().is_contiguous()):
        right_NK = right_NK.contiguous()  # other layouts end in a loop a thousand times as slow
    # The operator that torch.compile makes of linear layers: the only one that takes tensors as they are.
    return cast("Any", torch.ops.mkldnn)._linear_pointwise(left_MK, right_NK, bias_N, "none", [], "")


def _pieces(count: int, width: int) -> list[slice]:
    size = max(64, _PIECE_NUMBERS // max(1, width))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        of_hidden, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(hidden if of_weight else None, weight_NK if of_hidden else None)
        return _by_onednn(hidden, weight_NK, bias_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (hidden_MK, weight_NK), (grad,) = ctx.saved_tensors, grads
        grad_MN = grad.flatten(0, -2)
        of_hidden = None if weight_NK is None else multiplied(grad_MN, weight_NK).view(*grad.shape[:-1], weight_NK.shape[1])
        of_weight = None if hidden_MK is None else multiplied(grad_MN.t(), hidden_MK.flatten(0, -2))
        return of_hidden, of_weight, grad_MN.sum(0) if ctx.needs_input_grad[2] else None


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - names as torch has them
    if input.dim() < 2 or not suits_onednn(input, weight):
        return _torchs_linear(input, weight, bias)
    return cast("Any", _Linear).apply(input, weight, bias)


@contextmanager
def fast_linear_layers(device: torch.device) -> Generator[None]:
    """Within, `torch.nn.functional.linear`, and so every linear layer, is oneDNN's where `suits_onednn`, with gradients.

    Backward passes belong in here only where they compute layers again (checkpointed activations).

    Args:
        device: Of the model. Elsewhere than on a CPU nothing happens.
    """
    if device.type != "cpu" or not onednn_is_faster():
        yield
        return
    # In its place and not by torch's modes for functions: these end where a backward pass begins.
    functional.linear = _linear
    try:
        yield
    finally:
        functional.linear = _torchs_linear
