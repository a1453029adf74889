"""What people said of a run's labels, as sentences: for the page, the card and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterator

from cai.report.labels_in_words import with_interval
from cai.report.texts import percent, thousands
from cai.review.figures import ReviewFigures


def review_in_words(found: ReviewFigures) -> Iterator[tuple[str, str]]:
    """(figure, what it means), for every figure there was something to measure on."""
    people = f"{found.reviewers} {'person' if found.reviewers == 1 else 'people'}"
    skipped = f"; {thousands(found.skipped)} time{'s' * (found.skipped != 1)} somebody skipped" if found.skipped else ""
    yield (
        thousands(found.verdicts),
        f"verdict{'s' * (found.verdicts != 1)} by {people}, given without knowing which answer is which{skipped}",
    )
    if found.right is not None:
        right = found.right
        yield (
            f"{percent(right.share)} ({100 * right.low:.0f}–{100 * right.high:.0f})",
            f"of all {thousands(right.pairs)} labels name the answer that people prefer: estimated from "
            f"{thousands(right.judged)} drawn at random, each counting for the pairs of its sort",
        )
    elif any(each.judged for each in found.strata):
        missing = " and ".join(
            "of high impact" if each.high_impact else "of no high impact" for each in found.strata if not each.judged
        )
        yield "no estimate", f"for all labels yet: nobody has judged a random pair {missing}"
    for each in found.strata if len(found.strata) > 1 else ():
        sort = "of high impact" if each.high_impact else "of no high impact"
        if each.right is not None and each.weight is not None:
            yield (
                with_interval(each.right),
                f"of the labels {sort}: {thousands(each.judged)} of {thousands(each.pairs)} pairs judged, each counts for "
                f"{each.weight:.3g}",
            )
    if found.judged_right is not None and (found.right is None or found.right.judged != found.judged_right.n):
        yield (
            with_interval(found.judged_right),
            f"of the {thousands(found.judged_right.n)} judged labels, which were not all drawn at random",
        )
    if found.undecided_distinct is not None:
        yield (
            with_interval(found.undecided_distinct),
            f"of {thousands(found.undecided_distinct.n)} pairs that AI feedback left undecided: people do prefer one answer",
        )
    if found.calibration is not None:
        yield (
            f"{found.calibration.ece:.3f}",
            f"expected calibration error of {thousands(found.calibration.labels)} labels drawn at random, against people; "
            f"Brier score {found.calibration.brier:.3f}",
        )
    yield from _between_people(found)


def _between_people(found: ReviewFigures) -> Iterator[tuple[str, str]]:
    between = found.between_reviewers
    if between is not None:
        measures = [
            f"{name} {value:.2f}"
            for name, value in (("Krippendorff’s alpha", between.alpha), ("Cohen’s kappa", between.kappa))
            if value is not None
        ]
        yield (
            percent(between.agreeing_share),
            f"of two verdicts on the same of {thousands(between.pairs)} answers are the same"
            + (f": {', '.join(measures)} (1 is perfect, 0 chance)" if measures else ""),
        )
    if found.conflicts:
        yield thousands(found.conflicts), "answers on which people contradict each other; their labels are softer for it"
    if found.named_a is not None:
        yield with_interval(found.named_a), "of the verdicts name the answer shown as A; far from half is a taste for a place"
    if found.unmatched:
        yield thousands(found.unmatched), "things judged that this run does not hold any more; they count nowhere"
