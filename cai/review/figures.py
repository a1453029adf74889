"""Label quality from verdicts: an estimate for all of a run's labels, from the few that people looked at.

What people look at is chosen: undecided pairs and those of high impact come first. So the plain share of judged labels that
are right says little of all of them. Here each stratum's share, from its random sample (`cai.review.queue`), counts by the
number of pairs in the stratum: the stratified estimator, unbiased for the whole (Cochran 1977, section 5.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from cai.labels.calibration import Calibration, calibration
from cai.labels.shares import Share
from cai.records import HumanVerdict, Judgement, PreferenceRecord, RecordKind
from cai.review.answers import Answers
from cai.review.flow import Review
from cai.review.opinions import Opinion, ReviewerAgreement, opinions, reviewer_agreement
from cai.review.queue import ReviewQueue
from cai.statistics import wilson_interval
from cai.store import RecordKey, RunFolder, VerdictFile

LEAST_CALIBRATED = 10
"""Labels drawn at random that a calibration is told of."""


class StratumFigures(BaseModel):
    """Labelled pairs of one sort.

    Args:
        high_impact: By tag or detector.
        pairs: In the run.
        sampled: Shown to people, from the first of their random order on without a gap.
        judged: Of these, those on which people prefer one answer or neither; the others were skipped or called unfit.
        weight: Pairs that each judged one stands for; None where none is judged.
        right: Of the judged ones, those whose label people agree with; a tie counts half.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    high_impact: bool
    pairs: int
    sampled: int
    judged: int
    weight: float | None
    right: Share | None


class Estimate(BaseModel):
    """A share of all pairs, estimated from a stratified sample, with its 95 % interval.

    The interval is Wilson's, with the sample size that a simple random sample of the same precision has (Kish 1965).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float
    low: float
    high: float
    judged: int
    pairs: int


class ReviewFigures(BaseModel):
    """What a review says of a run's labels, and of itself.

    Args:
        reviewers: People who gave verdicts.
        verdicts: That count, skips left out.
        skipped: Times that somebody skipped.
        unmatched: Things judged that the run does not hold any more; they count nowhere.
        conflicts: Things that people disagree on.
        named_a: Verdicts for one of two answers, and how many of them name the one at place A; half, without a taste for it.
        between_reviewers: Agreement of people with each other; None without double review.
        strata: Labelled pairs by sort.
        right: Of all labelled pairs, the share whose label people agree with; None while a stratum has no judged pair.
        judged_right: The same of the judged ones, however they were chosen: no estimate of the whole.
        undecided_distinct: Of the sampled undecided pairs, those in which people do prefer one answer.
        calibration: Of the labels in the random part; None with fewer than `LEAST_CALIBRATED`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reviewers: int
    verdicts: int
    skipped: int
    unmatched: int
    conflicts: int
    named_a: Share | None
    between_reviewers: ReviewerAgreement | None
    strata: tuple[StratumFigures, ...]
    right: Estimate | None
    judged_right: Share | None
    undecided_distinct: Share | None
    calibration: Calibration | None


def review_figures(folder: RunFolder) -> ReviewFigures | None:
    """Of a run; None where nobody has reviewed it."""
    review = Review.of(folder)
    with VerdictFile.look_at(folder.path) as verdicts:
        standing = list(verdicts.standing().values())
        if not standing:
            return None
        queue = ReviewQueue.of(folder, verdicts, review.settings, int(folder.manifest.get("seed", 0)))
    try:
        return _figures(folder, queue, standing)
    finally:
        queue.close()


def _figures(folder: RunFolder, queue: ReviewQueue, standing: Sequence[HumanVerdict]) -> ReviewFigures:
    found = opinions(standing)
    strata: list[StratumFigures] = []
    undecided: list[float] = []
    for stratum in queue.strata():
        if stratum.kind == RecordKind.UNDECIDED:
            judged = (found.get(answers.key) for answers in queue.sampled(stratum))
            undecided += [float(each.p_first != 0.5) for each in judged if each is not None and not each.unfit]
            continue
        right = list(_rights(folder, queue.sampled_keys(stratum), found))
        strata.append(
            StratumFigures(
                high_impact=stratum.impact,
                pairs=stratum.pairs,
                sampled=stratum.sampled,
                judged=len(right),
                weight=stratum.pairs / len(right) if right else None,
                right=Share.of(sum(right), len(right)),
            )
        )
    all_judged = list(_rights(folder, _keys_of(folder, found.values()), found))
    places = [_place(each) for each in standing if each.judgement in (Judgement.FIRST, Judgement.SECOND)]
    known = [each for each in places if each is not None]
    return ReviewFigures(
        reviewers=len({each.reviewer for each in standing}),
        verdicts=sum(opinion.reviewers for opinion in found.values()),
        skipped=sum(each.judgement is Judgement.SKIP for each in standing),
        unmatched=queue.unmatched,
        conflicts=sum(opinion.conflict for opinion in found.values()),
        named_a=Share.of(sum(known), len(known)),
        between_reviewers=reviewer_agreement(found),
        strata=tuple(strata),
        right=estimate(strata),
        judged_right=Share.of(sum(all_judged), len(all_judged)),
        undecided_distinct=Share.of(sum(undecided), len(undecided)),
        calibration=_calibration(folder, queue, found),
    )


def estimate(strata: Sequence[StratumFigures]) -> Estimate | None:
    """The share of right labels among all pairs; None while there is a stratum of which nothing is known."""
    total = sum(each.pairs for each in strata)
    if not total or any(each.pairs and each.right is None for each in strata):
        return None
    shares = [(each.pairs / total, each.right) for each in strata if each.right is not None]
    share = sum(weight * right.share for weight, right in shares)
    effective = 1.0 / sum(weight**2 / right.n for weight, right in shares)
    n = max(1, math.floor(effective + 1e-9))
    interval = wilson_interval(share * n, n)
    return Estimate(share=share, low=interval.low, high=interval.high, judged=sum(right.n for _, right in shares), pairs=total)


def _rights(folder: RunFolder, keys: Iterable[RecordKey], found: Mapping[str, Opinion]) -> Iterable[float]:
    """For each judged pair among these: 1 if people prefer what the label chose, 0 if the other, 0.5 if neither."""
    for _, target in _judged(folder, keys, found):
        yield 0.5 if target == 0.5 else float(target > 0.5)


def _judged(
    folder: RunFolder, keys: Iterable[RecordKey], found: Mapping[str, Opinion]
) -> Iterable[tuple[PreferenceRecord, float]]:
    """Each judged pair among these, with the probability that people give to what its label chose."""
    for uid, replica, sequence in keys:
        for at, pair in folder.records_of(RecordKind.PREFERENCE, PreferenceRecord, uid, replica):
            answers = Answers.of_pair(pair)
            opinion = found.get(answers.key)
            if at == sequence and opinion is not None and opinion.p_first is not None and not opinion.unfit:
                yield pair, opinion.p_first if answers.texts[0] == pair.chosen else 1 - opinion.p_first


def _keys_of(folder: RunFolder, found: Iterable[Opinion]) -> Iterable[RecordKey]:
    for uid, replica in sorted({(each.uid, each.replica) for opinion in found for each in opinion.verdicts}):
        yield from ((uid, replica, at) for at, _ in folder.records_of(RecordKind.PREFERENCE, PreferenceRecord, uid, replica))


def _calibration(folder: RunFolder, queue: ReviewQueue, found: Mapping[str, Opinion]) -> Calibration | None:
    judged = list(_judged(folder, queue.random_keys(RecordKind.PREFERENCE), found))
    if len(judged) < LEAST_CALIBRATED:
        return None
    return calibration(np.array([pair.p_chosen for pair, _ in judged]), np.array([target for _, target in judged]))


def _place(verdict: HumanVerdict) -> bool | None:
    """Whether a verdict names the answer at place A; None where nobody noted the places."""
    if verdict.shown not in ("first_second", "second_first"):
        return None
    return (verdict.judgement is Judgement.FIRST) == (verdict.shown == "first_second")
