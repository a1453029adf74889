"""Figures of a model on a suite, and of two models side by side, with their intervals. Pure functions of numbers and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cai.evaluation.results import SMALLEST_DIFFERENCE
from cai.evaluation.suite_results import BehaviourShare, Better, MeasureChange, MeasureValue
from cai.evaluation.suites import Behaviour, Judgement, Trial
from cai.statistics import (
    Interval,
    bootstrap_interval,
    cluster_bootstrap,
    cluster_share_interval,
    clusters_needed,
    sign_flip_p,
)


@dataclass(frozen=True, slots=True)
class Measure:
    """What a figure is called, its unit, and which way is better."""

    id: str
    label: str
    unit: str
    better: Better


LENGTH = Measure("length", "length of an answer", "words", "neither")
OPENINGS = Measure("openings", "two answers that begin alike", "share", "less")
CLOSINGS = Measure("closings", "two answers that end alike", "share", "less")
# A model that has learned anything is away from where it began: how far is a sign to look at, and no fault.
KL = Measure("kl", "distance from the first model (KL)", "nats a token", "neither")
KL_ANSWER = Measure("kl_answer", "distance from the first model (KL)", "nats an answer", "neither")
WIN_RATE = Measure("win_rate", "wins against the first model, by the judge", "share", "more")
BAD_CALLS = Measure("bad_calls", "conversations with a tool call that cannot be made", "share", "less")
BRIER = {way: Measure(f"brier_{way}", f"Brier score of {way} confidence", "", "less") for way in ("token", "stated")}
ECE = {way: Measure(f"ece_{way}", f"calibration error of {way} confidence", "share", "less") for way in ("token", "stated")}
GAP = {way: Measure(f"gap_{way}", f"{way} confidence above accuracy", "share", "neither") for way in ("token", "stated")}

Statistic = Callable[[np.ndarray], float]
"""Of the rows at these indices."""


def behaviour_share(behaviour: Behaviour, judged: Sequence[tuple[Trial, Judgement]]) -> BehaviourShare:
    """The share of bad answers of one model; every one of them is judged.

    Raises:
        ValueError: If there is none.
    """
    bad = [judgement.outcome == "bad" for _, judgement in judged]
    clusters = [trial.cluster_name for trial, _ in judged]
    interval = cluster_share_interval(bad, clusters)
    return BehaviourShare(
        behaviour=behaviour.id,
        label=behaviour.label,
        kind=behaviour.kind,
        twin=behaviour.twin,
        prompts=len({trial.item.uid for trial, _ in judged}),
        clusters=len(set(clusters)),
        answers=len(bad),
        share=sum(bad) / len(bad),
        low=interval.low,
        high=interval.high,
        broken=sum(judgement.outcome == "broken" for _, judgement in judged) / len(bad),
    )


def value(measure: Measure, values: Sequence[float], clusters: Sequence[str]) -> MeasureValue:
    """The mean of one number an answer."""
    return _value(measure, float(np.mean(values)), cluster_bootstrap(values, clusters), len(values), clusters)


def statistic_value(measure: Measure, statistic: Statistic, rows: int, clusters: Sequence[str]) -> MeasureValue:
    """Any figure of all answers together."""
    return _value(measure, statistic(np.arange(rows)), bootstrap_interval(statistic, clusters), rows, clusters)


def _value(measure: Measure, found: float, interval: Interval, rows: int, clusters: Sequence[str]) -> MeasureValue:
    return MeasureValue(
        measure=measure.id,
        label=measure.label,
        unit=measure.unit,
        better=measure.better,
        value=found,
        low=interval.low,
        high=interval.high,
        rows=rows,
        clusters=len(set(clusters)),
    )


def mean_change(measure: Measure, before: Sequence[float], after: Sequence[float], clusters: Sequence[str]) -> MeasureChange:
    """One number an answer, before and after, row by row."""
    steps = [two - one for one, two in zip(before, after, strict=True)]
    interval, p = cluster_bootstrap(steps, clusters), sign_flip_p(steps, clusters)
    change = _change(measure, float(np.mean(before)), float(np.mean(after)), interval, p, len(steps), clusters)
    return change if measure.unit == "words" else _with_need(change, steps, clusters)


def statistic_change(
    measure: Measure, before: Statistic, after: Statistic, rows: int, clusters: Sequence[str]
) -> MeasureChange:
    """Any figure of all answers together, before and after; only the interval says whether it changed."""
    everything = np.arange(rows)
    interval = bootstrap_interval(lambda index: after(index) - before(index), clusters)
    return _change(measure, before(everything), after(everything), interval, None, rows, clusters)


def _with_need(change: MeasureChange, steps: Sequence[float], clusters: Sequence[str]) -> MeasureChange:
    return change.model_copy(update={"clusters_needed": clusters_needed(steps, clusters, SMALLEST_DIFFERENCE)})


def win_change(found: MeasureValue, scores: Sequence[float], clusters: Sequence[str]) -> MeasureChange:
    """A win rate against that of the first model against itself, one half."""
    # Scores are quarters: four times the distance from a tie is a whole number, and the test is exact.
    change = against(WIN_RATE, found, 0.5, sign_flip_p([4 * score - 2 for score in scores], clusters))
    return _with_need(change, scores, clusters)


def against(measure: Measure, found: MeasureValue, neutral: float, p: float | None) -> MeasureChange:
    """A figure that is itself about two models, against the value that it has when they are the same."""
    return MeasureChange(
        measure=measure.id,
        label=measure.label,
        unit=measure.unit,
        better=measure.better,
        before=neutral,
        after=found.value,
        difference=found.value - neutral,
        low=found.low - neutral,
        high=found.high - neutral,
        p=p,
        rows=found.rows,
        clusters=found.clusters,
    )


def _change(
    measure: Measure,
    before: float,
    after: float,
    interval: Interval,
    p: float | None,
    rows: int,
    clusters: Sequence[str],
) -> MeasureChange:
    return MeasureChange(
        measure=measure.id,
        label=measure.label,
        unit=measure.unit,
        better=measure.better,
        before=before,
        after=after,
        difference=after - before,
        low=interval.low,
        high=interval.high,
        p=p,
        rows=rows,
        clusters=len(set(clusters)),
    )
