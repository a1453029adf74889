"""What a forward pass is trained for: losses of rows, weighted so that the passes of a step add up to the step's loss.

Knows losses and rows; knows no model. Shape suffixes: R sequences of a pass, B pairs of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from cai.training.losses import ipo_preference_loss, sigmoid_preference_loss
from cai.training.rows import PairRow, ReplyRow, TrainingRow
from cai.training.settings import DPOSettings

Sums: TypeAlias = dict[str, tuple[Tensor, int]]
"""Metric name → (sum over examples, number of examples): sums of passes, steps and processes can be added."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """What a whole optimizer step holds, over all its passes and processes."""

    pairs: int
    replies: int
    reply_tokens: int
    """Of the supervised rows or anchors."""

    @classmethod
    def of(cls, rows: Sequence[TrainingRow]) -> StepSize:
        replies = [row for row in rows if isinstance(row, ReplyRow)]
        return cls(len(rows) - len(replies), len(replies), sum(len(row.group.replies[0]) for row in replies))


class Objective(Protocol):
    """The loss of a pass, and its metrics."""

    @property
    def metric_names(self) -> tuple[str, ...]: ...

    def __call__(self, rows: Sequence[TrainingRow], logps_R: Tensor, lengths_R: Tensor, step: StepSize) -> tuple[Tensor, Sums]:
        """The pass's part of the step's loss (nats), with gradients, and sums of metrics, without."""
        ...


class PreferenceObjective:
    """Mean preference loss of the step's pairs + `nll_weight` · NLL of their chosen replies + `anchor_weight` · NLL of anchors.

    Both NLLs are per token of each reply, then averaged over replies, as Iterative RPO's (arXiv 2404.19733, eq. 2).
    """

    metric_names = (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
        "loss/preference",
        "nll/chosen",
        "nll/anchors",
        "drift/chosen",
        "drift/rejected",
    )
    """TRL's names for what TRL logs; `drift/*` is the change of log-probability since the reference, in nats a token."""

    def __init__(self, settings: DPOSettings) -> None:
        self._settings = settings

    def __call__(self, rows: Sequence[TrainingRow], logps_R: Tensor, lengths_R: Tensor, step: StepSize) -> tuple[Tensor, Sums]:
        loss = logps_R.new_zeros(())
        sums: Sums = {}
        pairs = [row for row in rows if isinstance(row, PairRow)]
        firsts = _first_sequences(rows)
        if pairs:
            at_B = torch.tensor([first for row, first in zip(rows, firsts, strict=True) if isinstance(row, PairRow)])
            at_B = at_B.to(logps_R.device)
            part, sums = self._of_pairs(
                pairs,
                chosen_B=logps_R[at_B],
                rejected_B=logps_R[at_B + 1],
                chosen_tokens_B=lengths_R[at_B],
                rejected_tokens_B=lengths_R[at_B + 1],
                pairs_in_step=step.pairs,
            )
            loss = loss + part
        anchors = [first for row, first in zip(rows, firsts, strict=True) if isinstance(row, ReplyRow)]
        if anchors:
            at = torch.tensor(anchors, device=logps_R.device)
            nll = (-logps_R[at] / lengths_R[at]).sum()
            loss = loss + self._settings.anchor_weight * nll / step.replies
            sums["nll/anchors"] = (nll.detach(), len(anchors))
        return loss, sums

    def _of_pairs(
        self,
        pairs: Sequence[PairRow],
        *,
        chosen_B: Tensor,
        rejected_B: Tensor,
        chosen_tokens_B: Tensor,
        rejected_tokens_B: Tensor,
        pairs_in_step: int,
    ) -> tuple[Tensor, Sums]:
        settings = self._settings
        reference_B2 = torch.tensor([pair.known_reference for pair in pairs], dtype=torch.float64, device=chosen_B.device)
        p_chosen_B = torch.tensor([pair.p_chosen for pair in pairs], dtype=torch.float64, device=chosen_B.device)
        ref_chosen_B, ref_rejected_B = reference_B2.unbind(-1)
        of_pairs = sigmoid_preference_loss if settings.loss == "sigmoid" else ipo_preference_loss
        losses_B = of_pairs(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, beta=settings.beta, p_chosen_B=p_chosen_B)
        nll_B = -chosen_B / chosen_tokens_B
        loss = (losses_B.sum() + settings.nll_weight * nll_B.sum()) / pairs_in_step
        with torch.no_grad():
            rises_B, falls_B = chosen_B - ref_chosen_B, rejected_B - ref_rejected_B
            margins_B = settings.beta * (rises_B - falls_B)
            of_each = {
                "rewards/chosen": settings.beta * rises_B,
                "rewards/rejected": settings.beta * falls_B,
                "rewards/margins": margins_B,
                "rewards/accuracies": (margins_B > 0).double(),
                "logps/chosen": chosen_B,
                "logps/rejected": rejected_B,
                "loss/preference": losses_B,
                "nll/chosen": nll_B,
                "drift/chosen": rises_B / chosen_tokens_B,
                "drift/rejected": falls_B / rejected_tokens_B,
            }
            return loss, {name: (values.detach().sum(), len(pairs)) for name, values in of_each.items()}


class SupervisedObjective:
    """Negative log-likelihood of the replies, averaged over all reply tokens of the step."""

    metric_names = ("nll/replies",)

    def __call__(self, rows: Sequence[TrainingRow], logps_R: Tensor, lengths_R: Tensor, step: StepSize) -> tuple[Tensor, Sums]:
        assert len(rows) == len(logps_R) == len(lengths_R)
        loss = -logps_R.sum() / step.reply_tokens
        tokens = sum(len(row.group.replies[0]) for row in rows)
        return loss, {"nll/replies": (-logps_R.detach().sum(), tokens)}


def _first_sequences(rows: Sequence[TrainingRow]) -> list[int]:
    firsts: list[int] = []
    count = 0
    for row in rows:
        firsts.append(count)
        count += len(row.group.replies)
    return firsts
