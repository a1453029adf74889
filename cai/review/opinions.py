"""Several people's verdicts on the same answers → one opinion. Pure functions of verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict

from cai.labels.agreement import krippendorff_alpha
from cai.records import HumanVerdict, Judgement

PREFERENCE = {Judgement.FIRST: 1.0, Judgement.SECOND: 0.0, Judgement.TIE: 0.5, Judgement.BOTH_BAD: 0.5}
"""What a verdict says of the first answer being better. One that calls both bad prefers neither."""
UNFIT = frozenset({Judgement.BOTH_BAD, Judgement.BAD})


@dataclass(frozen=True)
class Opinion:
    """What people say of one answer, or of two. `verdicts` has one for each person, none of them a skip, at least one."""

    verdicts: tuple[HumanVerdict, ...]

    @property
    def reviewers(self) -> int:
        return len(self.verdicts)

    @property
    def replies(self) -> tuple[str, ...]:
        return self.verdicts[0].replies

    @property
    def unfit(self) -> bool:
        """At least half of the people say that none of it may be learned."""
        return 2 * sum(each.judgement in UNFIT for each in self.verdicts) >= len(self.verdicts)

    @property
    def p_first(self) -> float | None:
        """Probability that the first answer is better: the mean of what the people say; None of a single answer."""
        if len(self.replies) == 1:
            return None
        return sum(PREFERENCE[each.judgement] for each in self.verdicts) / len(self.verdicts)

    @cached_property
    def judgements(self) -> tuple[Judgement, ...]:
        return tuple(each.judgement for each in self.verdicts)

    @property
    def conflict(self) -> bool:
        """Two people say what cannot both be so: either answer is better, or one calls unfit what another would learn from."""
        said = set(self.judgements)
        return {Judgement.FIRST, Judgement.SECOND} <= said or (bool(said & UNFIT) and not said <= UNFIT)


def opinions(standing: Iterable[HumanVerdict]) -> dict[str, Opinion]:
    """Name of what was judged → opinion, from the verdicts that count."""
    by_pair: dict[str, list[HumanVerdict]] = {}
    for each in standing:
        if each.judgement is not Judgement.SKIP:
            by_pair.setdefault(each.pair, []).append(each)
    return {pair: Opinion(tuple(verdicts)) for pair, verdicts in by_pair.items()}


class ReviewerAgreement(BaseModel):
    """How far people agree with each other.

    Args:
        pairs: Judged by at least two.
        agreeing_share: Of two verdicts on the same answers, drawn at random, how often they are the same.
        alpha: Krippendorff's, nominal; 1 for perfect agreement, 0 for that of chance. For two reviewers who judged the same
            pairs it is Scott's pi but for a correction for few pairs. None where all verdicts are alike.
        kappa: Cohen's, where exactly two people judged the same pairs: chance is that of each one's own habits. None otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    agreeing_share: float
    alpha: float | None
    kappa: float | None


def reviewer_agreement(found: Mapping[str, Opinion]) -> ReviewerAgreement | None:
    """Of all that was judged at least twice; None if nothing was."""
    twice = [opinion for opinion in found.values() if opinion.reviewers > 1]
    if not twice:
        return None
    names = list(Judgement)
    counts = np.array([[opinion.judgements.count(name) for name in names] for opinion in twice], dtype=np.int64)
    people = counts.sum(axis=1)
    agreeing = (counts * (counts - 1)).sum(axis=1) / (people * (people - 1))
    several = (counts.sum(axis=0) > 0).sum() > 1
    return ReviewerAgreement(
        pairs=len(twice),
        agreeing_share=float(agreeing.mean()),
        alpha=krippendorff_alpha(counts) if several else None,
        kappa=_cohens_kappa(twice),
    )


def _cohens_kappa(twice: Iterable[Opinion]) -> float | None:
    """(observed − expected) / (1 − expected) agreement (Cohen 1960), expected by the marginals of each of two people."""
    rows = [{each.reviewer: each.judgement for each in opinion.verdicts} for opinion in twice]
    people = {name for row in rows for name in row}
    if len(people) != 2:
        return None
    one, other = sorted(people)
    first, second = Counter(row[one] for row in rows), Counter(row[other] for row in rows)
    observed = sum(row[one] == row[other] for row in rows) / len(rows)
    expected = sum(first[name] * second[name] for name in first) / len(rows) ** 2
    return (observed - expected) / (1 - expected) if expected < 1 else None
