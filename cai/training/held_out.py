"""Rows that are not trained on, and what the policy makes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from cai.errors import TrainingError
from cai.statistics import cluster_bootstrap, wilson_interval
from cai.training.logps import ReplyScorer
from cai.training.objectives import Objective, StepSize
from cai.training.packing import PackedBatch, micro_batches
from cai.training.rows import PreferenceRow, TrainingRow
from cai.training.scorer import Scorer
from cai.training.settings import TrainingSettings

AnyRow = TypeVar("AnyRow", bound=TrainingRow)
Gather: TypeAlias = "Callable[[list[_Found]], list[_Found]]"
"""Joins the lists of all processes."""

FEWEST_PAIRS = 20
"""Of fewer held-out rows, the figures say too little to act on: an accuracy of 75 % then has an interval of 36 points."""
_WITH_INTERVALS = ("rewards/margins", "loss/preference", "nll/replies", "kl")
_SHARE = "rewards/accuracies"


def is_held_out(prompt_ids: Sequence[int], share: float) -> bool:
    """Whether a prompt is among the `share` that is held out: a matter of its own tokens, and of nothing else.

    Of a conversation it is the first turn's prompt that decides (`first_prompt`), whichever turns are learned. So no prompt is
    on both sides, not even as an earlier turn of another conversation; none changes sides when rows are added; and what
    supervised training has held out is held out of preference training too.
    """
    digest = hashlib.sha256(json.dumps(list(prompt_ids), separators=(",", ":")).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def split(rows: Sequence[AnyRow], share: float) -> tuple[list[AnyRow], list[AnyRow]]:
    """Rows to train on and rows held out, in their order."""
    sides: tuple[list[AnyRow], list[AnyRow]] = ([], [])
    for row in rows:
        sides[is_held_out(row.first_prompt, share)].append(row)
    return sides


def refuse_empty_sides(rows: Sequence[TrainingRow], held_out: Sequence[TrainingRow], settings: TrainingSettings) -> None:
    """Raise TrainingError if a part was to be held out and either side has no row."""
    if settings.holdout_share and (not rows or not held_out):
        side = "none is left to train on" if not rows else "none is held out"
        raise TrainingError(
            f"holdout_share {settings.holdout_share:g} of {units(rows) + units(held_out)} rows: {side}",
            "give more rows, or change holdout_share; prompts are held out whole, by their own text",
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """Of one row, by its place: its part of the loss, sums of metrics, summed divergence and tokens of its replies."""

    at: int
    loss: float
    sums: dict[str, tuple[float, int]]
    divergence: tuple[float, int] | None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Evaluates held-out rows.

    Args:
        rows: Pairs with their reference log-probabilities where the loss needs them; anchors or supervised rows.
        scorer: Gives log-probabilities.
        objective: The loss that is trained for.
        tokens_per_forward: Most positions of one pass.
        as_reference: In this context the model is the reference; None where the reference is not at hand.
    """

    rows: Sequence[TrainingRow]
    scorer: Scorer
    objective: Objective
    tokens_per_forward: int
    as_reference: Callable[[], AbstractContextManager[None]] | None

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, device: torch.device, *, rank: int = 0, world: int = 1, gather: Gather | None = None
    ) -> dict[str, float]:
        """Loss and metrics of the rows, named as those of training.

        `kl` is the mean KL(policy ‖ reference) of next-token distributions at the tokens of the held-out replies, in nats a
        token: exact over the vocabulary, and no estimate. It is there only where the reference is the policy with its adapter
        switched off; after full training there would have to be a second model in memory. `NAME/low` and `NAME/high` are 95 %
        intervals, over prompts; of accuracies Wilson's, over pairs.

        Args:
            model: The policy, perhaps wrapped.
            device: Where it is.
            rank: This process, which evaluates passes rank, rank + world, ….
            world: How many processes there are.
            gather: Joins the lists of all processes; None with one process.
        """
        model.eval()
        size = StepSize.of(self.rows)
        places = list(range(len(self.rows)))
        passes = micro_batches(places, lambda at: self.rows[at].group, self.scorer.layout, self.tokens_per_forward)
        found: list[_Found] = []
        with self.scorer.at_work():
            for first in range(0, len(passes), world):
                # Processes make equally many passes, or those that gather weights would wait for ever.
                mine = passes[min(first + rank, len(passes) - 1)]
                some = self._of_pass(model, mine, size, device)
                found += some if first + rank < len(passes) else []
        if gather is not None:
            found = gather(found)
        return self._metrics(sorted(found, key=lambda each: each.at))

    def _of_pass(self, model: nn.Module, places: Sequence[int], size: StepSize, device: torch.device) -> list[_Found]:
        batch = self.scorer.pack([self.rows[at].group for at in places], device)
        if self.as_reference is None or not isinstance(self.scorer, ReplyScorer):
            logps_R, divergences_R = self.scorer.values(model, batch), None
        else:
            logps_R, divergences_R = self.scorer.logps_and_divergences(model, batch, self.as_reference)
        return [self._of_row(at, batch, number, logps_R, divergences_R, size) for number, at in enumerate(places)]

    def _of_row(
        self, at: int, batch: PackedBatch, number: int, logps_R: Tensor, divergences_R: Tensor | None, size: StepSize
    ) -> _Found:
        row, own = self.rows[at], batch.parts[number].sequences
        loss, sums = self.objective((row,), logps_R[own], batch.sequence_lengths[own], size)
        replies = slice(own.start, own.start + len(row.group.replies))
        of_replies = (
            None if divergences_R is None else (float(divergences_R[replies].sum()), int(batch.sequence_lengths[replies].sum()))
        )
        return _Found(at, float(loss), {name: (float(total), count) for name, (total, count) in sums.items()}, of_replies)

    def _metrics(self, found: Sequence[_Found]) -> dict[str, float]:
        metrics = {"loss": sum(each.loss for each in found)}
        numbers: dict[tuple[int, ...], str] = {}
        for row in self.rows:
            numbers.setdefault(row.group.prompt_ids, str(len(numbers)))
        for name in (*self.objective.metric_names, "kl"):
            of_rows = [(each, each.divergence if name == "kl" else each.sums.get(name)) for each in found]
            known = [(numbers[self.rows[each.at].group.prompt_ids], *value) for each, value in of_rows if value is not None]
            count = sum(examples for _, _, examples in known)
            if not count:
                continue
            total = sum(value for _, value, _ in known)
            metrics[name] = total / count
            if name == _SHARE:
                interval = wilson_interval(total, count)
            elif name in _WITH_INTERVALS:
                # One mean for each example of a row: the sums that are resampled are those of its examples.
                values = [value / examples for _, value, examples in known for _ in range(examples)]
                prompts = [prompt for prompt, _, examples in known for _ in range(examples)]
                interval = cluster_bootstrap(values, prompts)
            else:
                continue
            metrics |= {f"{name}/low": interval.low, f"{name}/high": interval.high}
        return metrics


@dataclass(frozen=True, slots=True)
class Evaluating:
    """When what is evaluated: after so many steps each, and after the last; and how many without gain end the training."""

    held_out: HeldOut
    every_steps: int
    patience: int | None


def units(rows: Sequence[TrainingRow]) -> int:
    """Pairs or supervised rows in these rows."""
    return sum(len(row.pairs) if isinstance(row, PreferenceRow) else 1 for row in rows)
