"""The head by tiles, fused with a loss, against the whole logits and autograd in float64."""

from __future__ import annotations

import pytest
import torch
from token_groups import VOCABULARY, make_groups
from torch import nn

from cai.training.head import Head, LossOf, fused_loss, head_logps, tile_slots
from cai.training.packing import PackedBatch, pack

WIDTH = 12


def make_head(*, bias: bool, scale: float, cap: float | None, temperature: float = 1.0) -> Head:
    torch.manual_seed(3)
    made = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=torch.float64)
    return Head(made.weight, made.bias, scale, cap, temperature)


def naive_logps(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = nn.functional.linear(hidden, head.weight, head.bias) * head.scale
    logits = logits if head.cap is None else head.cap * torch.tanh(logits / head.cap)
    logits = logits / head.temperature
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


def loss_for(batch: PackedBatch, calls: list[slice]) -> LossOf:
    def loss_of(groups: slice, logps_R: torch.Tensor) -> torch.Tensor:
        calls.append(groups)
        first = batch.parts[groups][0].sequences.start
        strength = torch.arange(first + 1.0, first + 1.0 + len(logps_R), dtype=torch.float64)
        return (torch.nn.functional.softplus(logps_R * 0.1) * strength).sum()

    return loss_of


@pytest.mark.parametrize("slots", [1, 3, 8, 1000])
@pytest.mark.parametrize(
    ("bias", "scale", "cap", "temperature"),
    [
        (False, 1.0, None, 1.0),
        (True, 0.25, None, 1.0),
        (False, 2.0, 3.0, 1.0),
        (True, 1.0, 1.0, 1.0),
        (False, 1.0, None, 0.7),
        (True, 0.25, 3.0, 1.6),
    ],
)
def test_fused_losses_and_gradients_are_those_of_autograd(
    slots: int, *, bias: bool, scale: float, cap: float | None, temperature: float
) -> None:
    """With tiles larger and smaller than a group: where one does not fit, its logits are made a second time."""
    batch = pack(make_groups(), "tree")
    head = make_head(bias=bias, scale=scale, cap=cap, temperature=temperature)
    hidden = torch.randn(len(batch.slots), WIDTH, dtype=torch.float64, requires_grad=True)
    weights = [hidden, head.weight, *([head.bias] if head.bias is not None else [])]
    calls: list[slice] = []
    loss_of = loss_for(batch, calls)
    loss, logps = fused_loss(head, hidden, batch, loss_of, slots=slots)
    ours = torch.autograd.grad(loss * 3, weights)
    assert [group for run in calls for group in range(run.start, run.stop)] == list(range(len(batch.parts)))

    sums = torch.zeros(len(batch.sequence_lengths), dtype=torch.float64)
    sums = sums.index_add(0, batch.sequence_of, naive_logps(head, hidden, batch.targets)[batch.slot_of])
    wanted = loss_of(slice(0, len(batch.parts)), sums)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(logps, sums.detach())
    for found, theirs in zip(ours, torch.autograd.grad(wanted * 3, weights), strict=True):
        torch.testing.assert_close(found, theirs)


@pytest.mark.parametrize("slots", [1, 4, 1000])
def test_logps_without_gradients_are_those_of_log_softmax(slots: int) -> None:
    head = make_head(bias=True, scale=0.5, cap=2.0)
    hidden, targets = torch.randn(11, WIDTH, dtype=torch.float64), torch.randint(VOCABULARY, (11,))
    torch.testing.assert_close(head_logps(head, hidden, targets, slots=slots), naive_logps(head, hidden, targets).detach())


def test_nothing_is_made_for_frozen_weights() -> None:
    batch = pack(make_groups(), "tree")
    head = make_head(bias=False, scale=1.0, cap=None)
    head.weight.requires_grad_(False)
    hidden = torch.randn(len(batch.slots), WIDTH, dtype=torch.float64, requires_grad=True)
    loss, _ = fused_loss(head, hidden, batch, loss_for(batch, []))
    loss.backward()
    assert hidden.grad is not None
    assert head.weight.grad is None


def test_bfloat16_hidden_states_are_summed_in_float32() -> None:
    batch = pack(make_groups(), "tree")
    wide = make_head(bias=False, scale=1.0, cap=None)
    head = Head(wide.weight.detach().float().requires_grad_(), None)
    hidden = torch.randn(len(batch.slots), WIDTH).to(torch.bfloat16).requires_grad_()
    loss, logps = fused_loss(head, hidden, batch, loss_for(batch, []))
    loss.backward()
    exact = Head(head.weight.detach().to(torch.bfloat16).double().requires_grad_(), None)
    hidden_exact = hidden.detach().double().requires_grad_()
    loss_exact, logps_exact = fused_loss(exact, hidden_exact, batch, loss_for(batch, []))
    loss_exact.backward()
    torch.testing.assert_close(logps, logps_exact, rtol=0, atol=0.05)
    assert exact.weight.grad is not None
    for found, wanted in ((hidden.grad, hidden_exact.grad), (head.weight.grad, exact.weight.grad)):
        assert found is not None
        assert wanted is not None
        assert found.dtype == (torch.bfloat16 if found is hidden.grad else torch.float32)
        assert (found.double() - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("vocabulary", [1000, 32_000, 256_000])
def test_the_buffer_is_bounded_however_large_the_vocabulary(vocabulary: int) -> None:
    rows = tile_slots(vocabulary, torch.float32, torch.device("cpu"))
    assert 4 * rows * vocabulary <= max(128 * 2**20, 4 * 256 * vocabulary)
    assert rows >= 256
