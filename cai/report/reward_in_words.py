"""What a reward model is worth on pairs it has not seen, as sentences: for the page and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterator

from cai.report.texts import percent, thousands
from cai.statistics import Interval
from cai.training.reward_quality import RewardQuality


def reward_in_words(quality: RewardQuality) -> Iterator[tuple[str, str]]:
    """(figure, what it means), for every figure there was something to measure on."""
    found, overall = quality.calibration, quality.overall
    yield (
        f"{percent(overall.accuracy)} {shares(overall.interval)}",
        f"of {thousands(quality.pairs)} labelled pairs on {thousands(quality.prompts)} prompts have the higher reward on the "
        f"reply that was chosen; the labels themselves are {percent(quality.mean_p_chosen)} sure",
    )
    yield (
        f"{percent(quality.longer_wins.accuracy)} {shares(quality.longer_wins.interval)}",
        "is what “the longer reply wins” gets right; above the better of longer and shorter the model is "
        f"{100 * quality.gain_over_length:+.1f} points {shares(quality.gain_interval)}",
    )
    yield (
        f"{found.ece:.3f} {_range(found.ece_interval)}",
        f"expected calibration error: how far σ(margin) is from the labels; Brier score {found.brier:.3f} "
        f"{_range(quality.brier_interval)}, log loss {found.log_loss_nats:.3f} nats",
    )
    if quality.temperature is None:
        yield "no temperature", "makes margins as sure as the labels: they do not speak for them"
    else:
        how = "too sure" if quality.temperature > 1 else "not sure enough"
        yield f"{quality.temperature:.2f}", f"is the temperature at which margins are as sure as the labels: they are {how}"
    if quality.length_correlation is not None:
        yield f"{quality.length_correlation:+.2f}", "is the correlation of margins with the logarithm of the ratio of lengths"
    if quality.mean_spread is not None:
        low, high = min(quality.head_accuracies), max(quality.head_accuracies)
        yield (
            f"{quality.mean_spread:.3f}",
            f"is the standard deviation of a margin over {len(quality.head_accuracies)} heads, whose accuracies go from "
            f"{percent(low)} to {percent(high)}",
        )


def shares(interval: Interval) -> str:
    """An interval in percent."""
    return f"({100 * interval.low:.0f}–{100 * interval.high:.0f})"


def _range(interval: Interval) -> str:
    return f"({interval.low:.3f}–{interval.high:.3f})"
