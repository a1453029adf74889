"""What a forward pass is trained for: losses of rows, weighted so that the passes of a step add up to the step's loss.

Knows losses and rows; knows no model. Shape suffixes: R sequences of a pass, B pairs of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from cai.training.losses import Replies, preference_losses
from cai.training.rows import PreferenceRow, ReplyRow, TrainingRow
from cai.training.settings import DPOSettings

Sums: TypeAlias = dict[str, tuple[Tensor, int]]
"""Metric name → (sum over examples, number of examples): sums of passes, steps and processes can be added."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """What a whole optimizer step holds, over all its passes and processes."""

    pairs: int
    replies: int
    reply_tokens: int
    """That are learned, of the supervised rows or anchors."""

    @classmethod
    def of(cls, rows: Sequence[TrainingRow]) -> StepSize:
        replies = [row for row in rows if isinstance(row, ReplyRow)]
        pairs = sum(len(row.pairs) for row in rows if isinstance(row, PreferenceRow))
        return cls(pairs, len(replies), sum(row.group.scored_tokens for row in replies))


class Objective(Protocol):
    """The loss of a pass, and its metrics."""

    @property
    def metric_names(self) -> tuple[str, ...]: ...

    def __call__(self, rows: Sequence[TrainingRow], logps_R: Tensor, lengths_R: Tensor, step: StepSize) -> tuple[Tensor, Sums]:
        """The pass's part of the step's loss (nats), with gradients, and sums of metrics, without.

        Of whatever the scorer gives of each sequence: log-probabilities, or rewards.
        """
        ...


class PreferenceObjective:
    """Mean preference loss of the step's pairs + `nll_weight` · NLL of their chosen replies + `anchor_weight` · NLL of anchors.

    Both NLLs are per token of each reply, then averaged over replies, as Iterative RPO's (arXiv 2404.19733, eq. 2). ORPO's own
    likelihood term is the first of them: there is no other.
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
        "logps_per_token/chosen",
        "logps_per_token/rejected",
        "length/chosen",
        "length/rejected",
        "satisfied",
        "length_margin/product",
        "length_margin/length_squared",
        "length_margin/margin_squared",
    )
    """TRL's names for what TRL logs. Each but `nll/anchors` is a mean over pairs.

    - `rewards/*`: the rewards that the loss compares, see `losses`: β·log π/ref for DPO and most others. Without a reference:
      β·log π a token (SimPO), the log-odds (ORPO).
    - `drift/*`: change of log-probability since the reference, in nats a token; missing where the loss needs no reference. It
      estimates no KL divergence, not even where the reference wrote the reply: training moves just these replies. (`kl/data` is
      one: see `reference_kl`.)
    - `length/*`: in tokens.
    - `satisfied`: share of pairs whose loss asks for no larger margin; for DPO those with σ(margin) ≥ p_chosen, which never
      comes where p_chosen is 1.
    - `length_margin/*`: means of l·m, l² and m², l = |chosen| − |rejected| in tokens and m the reward margin: with the means of
      l and m they give the correlation of both over any span of lines (`cai.training.symptoms`).
    """

    def __init__(self, settings: DPOSettings) -> None:
        self._settings = settings

    def __call__(self, rows: Sequence[TrainingRow], logps_R: Tensor, lengths_R: Tensor, step: StepSize) -> tuple[Tensor, Sums]:
        loss = logps_R.new_zeros(())
        sums: Sums = {}
        firsts = first_sequences(rows)
        preferences = [(row, first) for row, first in zip(rows, firsts, strict=True) if isinstance(row, PreferenceRow)]
        if preferences:
            part, sums = self._of_pairs(preferences, logps_R, lengths_R, step.pairs)
            loss = loss + part
        anchors = [first for row, first in zip(rows, firsts, strict=True) if isinstance(row, ReplyRow)]
        if anchors:
            at = torch.tensor(anchors, device=logps_R.device)
            nll = (-logps_R[at] / lengths_R[at]).sum()
            loss = loss + self._settings.anchor_weight * nll / step.replies
            sums["nll/anchors"] = (nll.detach(), len(anchors))
        return loss, sums

    def _of_pairs(
        self, rows: Sequence[tuple[PreferenceRow, int]], logps_R: Tensor, lengths_R: Tensor, pairs_in_step: int
    ) -> tuple[Tensor, Sums]:
        """Of rows, each with the number of its first sequence."""
        settings = self._settings
        chosen, rejected = _sides(rows, logps_R, lengths_R)
        labels = [pair.p_chosen for row, _ in rows for pair in row.pairs]
        p_chosen_B = torch.tensor(labels, dtype=logps_R.dtype, device=logps_R.device)
        found = preference_losses(settings.loss, chosen, rejected, p_chosen_B, settings.loss_options)
        nll_B = -chosen.logps / chosen.tokens
        loss = (found.losses.sum() + settings.nll_weight * nll_B.sum()) / pairs_in_step
        with torch.no_grad():
            margins_B = found.chosen_rewards - found.rejected_rewards
            longer_B = (chosen.tokens - rejected.tokens).double()
            of_each = {
                "rewards/chosen": found.chosen_rewards,
                "rewards/rejected": found.rejected_rewards,
                "rewards/margins": margins_B,
                "rewards/accuracies": (margins_B > 0).double(),
                "logps/chosen": chosen.logps,
                "logps/rejected": rejected.logps,
                "loss/preference": found.losses,
                "nll/chosen": nll_B,
                "logps_per_token/chosen": -nll_B,
                "logps_per_token/rejected": rejected.logps / rejected.tokens,
                "length/chosen": chosen.tokens.double(),
                "length/rejected": rejected.tokens.double(),
                "satisfied": found.satisfied.double(),
                "length_margin/product": longer_B * margins_B,
                "length_margin/length_squared": longer_B**2,
                "length_margin/margin_squared": margins_B**2,
            }
            if chosen.reference is not None:
                of_each["drift/chosen"] = chosen.log_ratios / chosen.tokens
                of_each["drift/rejected"] = rejected.log_ratios / rejected.tokens
            return loss, {name: (values.detach().sum(), len(labels)) for name, values in of_each.items()}


class SupervisedObjective:
    """Negative log-likelihood of the replies, averaged over all reply tokens of the step."""

    metric_names = ("nll/replies",)

    def __call__(self, rows: Sequence[TrainingRow], logps_R: Tensor, lengths_R: Tensor, step: StepSize) -> tuple[Tensor, Sums]:
        assert len(logps_R) == len(lengths_R) == sum(len(row.group.sequences) for row in rows)
        loss = -logps_R.sum() / step.reply_tokens
        return loss, {"nll/replies": (-logps_R.detach().sum(), sum(row.group.scored_tokens for row in rows))}


def _sides(rows: Sequence[tuple[PreferenceRow, int]], logps_R: Tensor, lengths_R: Tensor) -> tuple[Replies, Replies]:
    """The chosen and the rejected replies of all pairs of these rows."""

    def numbers(values: list[float] | list[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=logps_R.device)

    def side(which: int) -> Replies:
        places = [(row, first, pair[which]) for row, first in rows for pair in row.sequences]
        openings = [(row, first, pair[which]) for row, first in rows for pair in row.openings]
        at_B = numbers([first + at for _, first, at in places], torch.int64)
        opening_B = numbers([first + at for _, first, at in openings], torch.int64)
        known = all(row.reference for row, _ in rows)
        return Replies(
            logps=logps_R[at_B],
            tokens=lengths_R[at_B],
            reference=numbers([row.reference[at] for row, _, at in places], logps_R.dtype) if known else None,
            openings=logps_R[opening_B] if openings else None,
            reference_openings=numbers([row.reference[at] for row, _, at in openings], logps_R.dtype)
            if known and openings
            else None,
        )

    return side(0), side(1)


def first_sequences(rows: Sequence[TrainingRow]) -> list[int]:
    """Number, among all sequences of a pass, of the first one of each row."""
    firsts: list[int] = []
    count = 0
    for row in rows:
        firsts.append(count)
        count += len(row.group.sequences)
    return firsts
