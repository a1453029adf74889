"""What the metrics of a preference training say that its reader should know.

Knows lines of `metrics.jsonl` and nothing else. The last epoch is looked at, in which every pair was seen once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LOUD_FALL_NATS = 0.3
"""Fall of the chosen replies' log-probability, in nats a token, that deserves a warning."""
SATURATED_MARGIN = 6.0
"""A pair with a margin above this has a DPO loss below 0.0025 nats: its gradient is gone."""
SATISFIED_SHARE = 0.95
"""Share of pairs with the margin that their labels ask for from which on another epoch is not worth its time."""
LENGTH_SHARE = 0.5
"""Share of the margins' variance that length explains (the squared correlation) from which on it is warned of."""
FEWEST_PAIRS = 20
"""Of fewer pairs the correlation says too little: chance gives 20 pairs a share of `LENGTH_SHARE` once in two thousand runs."""


def symptoms(lines: Sequence[dict[str, float]], *, steps_per_epoch: int, pairs: int) -> list[str]:
    """One sentence for each thing that went wrong, with what to do about it.

    Args:
        lines: Of all epochs, each with its `step` (the last one that it averages over) and means over pairs, named as
            `PreferenceObjective` names them. A line weighs as much as it has steps in the last epoch.
        steps_per_epoch: Optimizer steps.
        pairs: In one epoch.
    """
    if not lines:
        return []
    last_step = lines[-1]["step"]
    last = _Means(lines, last_step - steps_per_epoch, last_step)
    first = _Means(lines, 0, steps_per_epoch)
    found: list[str] = []
    if (drift := last.of("drift/chosen")) is not None:
        if drift < -LOUD_FALL_NATS:
            found.append(
                f"chosen replies lost {-drift:.2f} nats a token against the reference: raise nll_weight or beta, "
                "or lower learning_rate"
            )
    elif (before := first.of("logps_per_token/chosen")) is not None:
        after = last.of("logps_per_token/chosen")
        if after is not None and before - after > LOUD_FALL_NATS:
            found.append(
                f"chosen replies lost {before - after:.2f} nats a token between the first epoch and the last: raise "
                "nll_weight, lower learning_rate, or take a loss with a reference"
            )
    margin, satisfied = last.of("rewards/margins"), last.of("satisfied")
    if margin is not None and margin > SATURATED_MARGIN:
        found.append(
            f"reward margins are saturated (mean {margin:.1f}): the pairs have little left to teach; fewer epochs, a lower "
            "learning_rate or a larger beta keep the model nearer to what it was"
        )
    elif satisfied is not None and satisfied >= SATISFIED_SHARE:
        found.append(
            f"{satisfied:.0%} of the pairs have the margin that their labels ask for: more epochs teach nothing, fewer may do"
        )
    if (accuracy := last.of("rewards/accuracies")) is not None and accuracy < 0.5:
        found.append("in the last epoch the policy preferred the chosen reply in fewer than half of the pairs")
    correlation = length_correlation(lines, last_step - steps_per_epoch, last_step)
    if correlation is not None and pairs >= FEWEST_PAIRS and correlation**2 > LENGTH_SHARE:
        longer = "longer" if correlation > 0 else "shorter"
        found.append(
            f"length explains {correlation**2:.0%} of how margins differ (the {longer} the chosen reply, the larger): the "
            'policy may learn length instead of what was judged; take the loss "rdpo" or "ld_dpo" (or make it stronger), or '
            "pairs of like length"
        )
    return found


def length_correlation(lines: Sequence[dict[str, float]], after_step: float, to_step: float) -> float | None:
    """Pearson's correlation, over the pairs of these steps, of |chosen| − |rejected| in tokens and the reward margin.

    None where one of them does not vary or was not logged.
    """
    means = _Means(lines, after_step, to_step)
    names = ("rewards/margins", "length/chosen", "length/rejected")
    squares = ("length_margin/product", "length_margin/length_squared", "length_margin/margin_squared")
    values = [means.of(name) for name in (*names, *squares)]
    if any(value is None for value in values):
        return None
    margin, chosen, rejected, product, length_squared, margin_squared = (value or 0.0 for value in values)
    length = chosen - rejected
    length_variance, margin_variance = length_squared - length**2, margin_squared - margin**2
    # Differences of means of squares: below this share of them they are rounding.
    if length_variance <= 1e-9 * length_squared or margin_variance <= 1e-9 * margin_squared:
        return None
    return (product - length * margin) / math.sqrt(length_variance * margin_variance)


class _Means:
    """Means over the steps in (after_step, to_step]."""

    def __init__(self, lines: Sequence[dict[str, float]], after_step: float, to_step: float) -> None:
        begins = [0.0, *(line["step"] for line in lines[:-1])]
        self._lines = [
            (line, line["step"] - max(begin, after_step))
            for begin, line in zip(begins, lines, strict=True)
            if after_step < line["step"] <= to_step
        ]

    def of(self, name: str) -> float | None:
        weighted = [(line[name], steps) for line, steps in self._lines if name in line]
        steps = sum(count for _, count in weighted)
        return sum(value * count for value, count in weighted) / steps if steps else None
