"""Moves the policy: forward passes over packed replies, the loss of their tokens, one optimizer step after another.

Replies to one prompt are one tree: their prompt is computed once. Shape suffixes as in `experience`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from cai.models.loading import LoadedModel
from cai.rl.experience import Batch, Known, Piece, Targets, minibatches
from cai.rl.losses import kl_losses, policy_losses, token_weights, value_losses
from cai.rl.settings import RLSettings
from cai.rl.values import ValueHead
from cai.training.head import sum_dtype
from cai.training.logps import ReplyScorer
from cai.training.packing import PackedBatch, micro_batches
from cai.training.policy import Policy
from cai.training.scorer import inner_model


class Diverged(Exception):
    """A loss, a gradient or a weight is no finite number. Of the step, optimizer steps may have been made by then."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The model before training: the policy with its adapter off, or a frozen copy where all weights are trained."""

    model: nn.Module
    scorer: ReplyScorer
    active: Callable[[], contextlib.AbstractContextManager[None]]

    @classmethod
    def of(cls, policy: Policy, scorer: ReplyScorer, opened: LoadedModel) -> Reference:
        """Made after `choose_path` has set the scorer's path."""
        if policy.has_adapter:
            return cls(policy.model, scorer, policy.as_reference)
        model = cast("Any", opened.new_model()).requires_grad_(requires_grad=False)
        own = ReplyScorer(model, path=scorer.path, plain_head=scorer.plain_head, temperature=scorer.temperature)
        return cls(model, own, contextlib.nullcontext)


class Learner:
    """The policy with its optimizer.

    Args:
        policy: What is trained.
        scorer: Made for it; its path is set.
        reference: What it is held near.
        settings: Of the run.
        device: Of the policy.
    """

    def __init__(
        self, policy: Policy, scorer: ReplyScorer, reference: Reference, settings: RLSettings, device: torch.device
    ) -> None:
        self.policy = policy
        self._scorer = scorer
        self._reference = reference
        self._settings = settings
        self._device = device
        self._wide = sum_dtype(device)
        self.head = ValueHead(_width(policy.model), device) if settings.algorithm == "ppo" else None
        trained = [(name, weight) for name, weight in policy.model.named_parameters() if weight.requires_grad]
        if self.head is not None:
            trained += [(f"value_head.{name}", weight) for name, weight in self.head.named_parameters()]
        self.trained: dict[str, nn.Parameter] = dict(trained)
        self.optimizer = torch.optim.AdamW(
            list(self.trained.values()), lr=settings.peak_learning_rate, weight_decay=settings.weight_decay
        )
        self.scored_tokens = self.trained_tokens = 0
        """Positions that went forward, through policy and reference, and positions that went forward and backward, so far;
        prompts included."""

    # ---- before the step

    @torch.no_grad()
    def know(self, batch: Batch) -> Known:
        """Log-probabilities of all tokens under policy and reference, and their values."""
        self.policy.model.eval()
        count = sum(batch.lengths)
        logps_M, ref_M, values_M = (torch.zeros(count, dtype=torch.float64) for _ in range(3))
        for pieces in self.passes(batch.pieces):
            at = _tokens_of(pieces)
            with self._scorer.at_work():
                packed = self._packed(self._scorer, pieces)
                kept: list[Tensor] = []
                on_hidden = None if self.head is None else kept.append
                logps_M[at] = self._scorer.logps(self.policy.model, packed, on_hidden=on_hidden).cpu().double()
                if self.head is not None:
                    values_M[at] = self.head(kept[0])[packed.slot_of].cpu().double()
            reference = self._reference
            with reference.active(), reference.scorer.at_work():
                ref_M[at] = reference.scorer.logps(reference.model, packed).cpu().double()
            self.scored_tokens += 2 * packed.tokens
        return Known(logps_M, ref_M, None if self.head is None else values_M)

    # ---- the step

    def update(self, batch: Batch, known: Known, targets: Targets, step: int) -> dict[str, float]:
        """All passes over one batch. Returns means over its optimizer steps.

        Raises:
            Diverged: If a loss or gradient is not finite. Earlier optimizer steps of the batch have been made.
        """
        settings = self._settings
        order = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        rows = [
            self._minibatch(batch, pieces, known, targets, step)
            for _ in range(settings.epochs)
            for pieces in minibatches(batch, settings.minibatches, order)
        ]
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    def _minibatch(self, batch: Batch, pieces: Sequence[Piece], known: Known, targets: Targets, step: int) -> dict[str, float]:
        places = _tokens_of(pieces)
        lengths = [length for piece in pieces for length in batch.lengths[piece.replies]]
        weights_M = torch.zeros(sum(batch.lengths), dtype=torch.float64)
        weights_M[places] = token_weights(lengths, self._settings.averaged)
        sums: dict[str, float] = {"loss": 0.0, "loss/policy": 0.0, "clip_fraction": 0.0}
        for some in self.passes(pieces):
            tokens = _TokenLoss(_tokens_of(some), weights_M, known, targets, self._settings, self._wide, self._device)
            with self._pass() as packed_of:
                packed = packed_of(some)
                of_hidden = None
                if self.head is not None:
                    of_hidden = self._value_loss(tokens, packed, sums)
                self._backward(self._scorer.loss(self.policy.model, packed, tokens.of(packed, sums), of_hidden=of_hidden), sums)
        sums["clip_fraction"] /= max(1, len(places))
        return {**sums, **self.make_step(step)}

    def _value_loss(self, tokens: _TokenLoss, packed: PackedBatch, sums: dict[str, float]) -> Callable[[Tensor], Tensor]:
        assert self.head is not None
        head, weight = self.head, self._settings.value_weight

        def of_hidden(hidden_SD: Tensor) -> Tensor:
            loss = tokens.value_loss(head(hidden_SD)[packed.slot_of])
            sums["loss/value"] = sums.get("loss/value", 0.0) + float(loss.detach())
            return weight * loss

        return of_hidden

    # ---- what every algorithm does

    def passes(self, pieces: Sequence[Piece]) -> list[list[Piece]]:
        """The forward passes that pieces are made in."""
        return micro_batches(pieces, lambda piece: piece.group, self._scorer.layout, self._settings.tokens_per_forward)

    def add_gradient(self, pieces: Sequence[Piece], loss_of: Any, sums: dict[str, float]) -> None:
        """Forward and backward of one pass whose loss is of whole replies; `loss_of` as `ReplyScorer.loss` takes it."""
        self.policy.model.train()
        with self._scorer.at_work():
            packed = self._scorer.pack([piece.group for piece in pieces], self._device)
            self.trained_tokens += packed.tokens
            self._backward(self._scorer.loss(self.policy.model, packed, lambda at, logps: loss_of(packed, at, logps)), sums)

    def make_step(self, step: int) -> dict[str, float]:
        """One optimizer step with the gradients as they stand.

        Raises:
            Diverged: If they are not finite.
        """
        settings = self._settings
        norm = float(nn.utils.clip_grad_norm_(list(self.trained.values()), settings.max_grad_norm))
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise Diverged(f"the gradient's length is {norm}")
        rate = settings.peak_learning_rate * min(1.0, step / (settings.warmup_steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        cast("Any", self.optimizer).step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": norm, "learning_rate": rate}

    def _backward(self, loss: Tensor, sums: dict[str, float]) -> None:
        value = float(loss.detach())
        sums["loss"] += value
        if not math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            raise Diverged(f"the loss is {value}")
        cast("Any", loss).backward()

    def _packed(self, scorer: ReplyScorer, pieces: Sequence[Piece]) -> PackedBatch:
        return scorer.pack([piece.group for piece in pieces], self._device).by_token()

    @contextlib.contextmanager
    def _pass(self) -> Generator[Callable[[Sequence[Piece]], PackedBatch]]:
        """A forward and backward pass happens in here."""
        self.policy.model.train()

        def packed_of(pieces: Sequence[Piece]) -> PackedBatch:
            packed = self._packed(self._scorer, pieces)
            self.trained_tokens += packed.tokens
            return packed

        with self._scorer.at_work():
            yield packed_of


class _TokenLoss:
    """The loss of one pass's tokens, whose places in the batch are `at`."""

    def __init__(
        self,
        at: Tensor,
        weights_M: Tensor,
        known: Known,
        targets: Targets,
        settings: RLSettings,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        def here(values_M: Tensor | None) -> Tensor:
            return torch.empty(0) if values_M is None else values_M[at].to(device=device, dtype=dtype)

        self._weights, self._old, self._ref = here(weights_M), here(known.logps), here(known.ref_logps)
        self._advantages, self._returns, self._values = (
            here(targets.advantages),
            here(targets.returns),
            here(known.values),
        )
        self._settings = settings

    def of(self, packed: PackedBatch, sums: dict[str, float]) -> Callable[[slice, Tensor], Tensor]:
        """As `ReplyScorer.loss` takes it, of a batch by token."""
        settings = self._settings

        def loss_of(groups: slice, logps_m: Tensor) -> Tensor:
            first = packed.parts[groups][0].tokens.start
            at = slice(first, first + len(logps_m))
            found = policy_losses(logps_m, self._old[at], self._advantages[at], settings.clip)
            loss = policy = (self._weights[at] * found.losses).sum()
            if settings.kl_in == "loss" and settings.beta:
                penalty = (self._weights[at] * kl_losses(logps_m, self._old[at], self._ref[at])).sum()
                loss = policy + settings.beta * penalty
            sums["loss/policy"] += float(policy.detach())
            sums["clip_fraction"] += float(found.clipped.sum())
            return loss

        return loss_of

    def value_loss(self, values_m: Tensor) -> Tensor:
        wide = values_m.to(self._returns.dtype)
        losses = value_losses(wide, self._values, self._returns, self._settings.value_clip)
        return (self._weights * losses).sum()


def _tokens_of(pieces: Sequence[Piece]) -> Tensor:
    return torch.cat([torch.arange(piece.tokens.start, piece.tokens.stop) for piece in pieces])


def _width(model: nn.Module) -> int:
    return int(inner_model(model).get_output_embeddings().weight.shape[-1])
