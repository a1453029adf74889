"""When held-out rows say that training has gone far enough: all of it follows from the evaluations so far. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EVAL_LOSS = "eval/loss"
"""Name of the held-out loss in lines of metrics."""

CLEAR_RISE = 0.01
"""Share of the lowest held-out loss by which the last one must be higher to be told of."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The held-out loss after a step."""

    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The evaluation with the lowest loss so far (the first of equals), and how many came after it."""

    best: Evaluation
    since: int

    def stops(self, patience: int | None) -> bool:
        """Whether training ends here."""
        return patience is not None and self.since >= patience


def standing(evaluations: Sequence[Evaluation]) -> Standing | None:
    """Where training stands after these evaluations, given in order of their steps; None before the first."""
    if not evaluations:
        return None
    at = min(range(len(evaluations)), key=lambda index: (evaluations[index].loss, index))
    return Standing(evaluations[at], len(evaluations) - 1 - at)


def rise(evaluations: Sequence[Evaluation], kept_step: int) -> Evaluation | None:
    """The best evaluation, if the loss after the step whose weights were kept is clearly higher; else None."""
    now = standing(evaluations)
    kept = next((each for each in evaluations if each.step == kept_step), None)
    if now is None or kept is None or kept.loss - now.best.loss <= CLEAR_RISE * abs(now.best.loss):
        return None
    return now.best


def logged(checkpoint: Path) -> list[dict[str, float]]:
    """What transformers' Trainer had logged when it wrote this checkpoint."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]


def evaluations_in(lines: Sequence[dict[str, float]]) -> list[Evaluation]:
    """Those among lines of metrics (`metrics.jsonl`, or the log history of a checkpoint's `trainer_state.json`).

    A loss that is no number counts as infinite: such weights are never the best.
    """
    found = [(int(line["step"]), float(line[EVAL_LOSS])) for line in lines if EVAL_LOSS in line]
    return [Evaluation(step, math.inf if math.isnan(loss) else loss) for step, loss in found]
