"""The labeller's own figures, as sentences: for the page and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterator

from cai.labels.agreement import Agreement
from cai.labels.exam import ExamResult
from cai.labels.human_labels import HumanAgreement
from cai.labels.quality import LabelQuality
from cai.labels.shares import Share
from cai.labels.stop_bar import ENOUGH
from cai.report.texts import percent, plain, signed, thousands
from cai.statistics import Interval

METHODS = {
    "letters": "Answers were shown together and the judge named a letter, in both orders.",
    "pointwise": "Each answer was judged alone: how likely its critique opens with “nothing to change”.",
    "yes_no": "Each answer was judged alone: how likely “yes” is, asked whether it follows the principle.",
    "contrast": "Each answer was judged alone: how much likelier the principle makes it.",
}
DEBATED = " Before that, an advocate had spoken for each answer, and the judge read both."


def quality_in_words(quality: LabelQuality) -> Iterator[tuple[str, str]]:
    """(figure, what it means), for every figure there was something to measure on."""
    yield (
        thousands(quality.pairs),
        "pairs labelled. " + (METHODS[quality.method] if quality.method else "") + (DEBATED if quality.debated else ""),
    )
    if quality.undecided_share is not None:
        reasons = "; ".join(f"{reason}: {thousands(count)}" for reason, count in quality.undecided_reasons.items())
        yield (
            percent(quality.undecided_share.share),
            f"of the compared pairs left undecided ({thousands(quality.undecided)})" + (reasons and f": {reasons}"),
        )
    if quality.mean_margin_nats is not None:
        yield f"{quality.mean_margin_nats:.2f} nats", "mean margin: log-odds that the chosen answer is the better one"
    if quality.mean_entropy_bits is not None:
        yield f"{quality.mean_entropy_bits:.2f} bits", "mean doubt of a label: 1 is a coin toss, 0 is certainty"
    if quality.draft_won_share is not None:
        yield percent(quality.draft_won_share.share), "of the pairs in which the judge preferred the draft to its revision"
    yield from _lengths_in_words(quality)
    yield from _places_in_words(quality)
    if quality.mean_mass_outside is not None:
        yield percent(quality.mean_mass_outside), "of the judge's probability went to none of the words asked for"
    for name, agreement in (
        ("principles", quality.agreement_of_principles),
        ("orders", quality.agreement_of_orders),
        ("labelling models", quality.agreement_of_labellers),
    ):
        if agreement is not None:
            yield percent(agreement.agreeing_share), _agreement_in_words(name, agreement)


def _lengths_in_words(quality: LabelQuality) -> Iterator[tuple[str, str]]:
    if quality.longer_won_share is not None:
        yield (
            with_interval(quality.longer_won_share),
            "of the pairs in which the longer answer won; far from half may be a taste for length",
        )
    if quality.mean_length_gap_characters is not None:
        yield signed(quality.mean_length_gap_characters), "characters: mean length of chosen minus rejected"
    if quality.length_correlation is not None and quality.margin_per_doubling_nats is not None:
        interval = quality.length_correlation_interval
        within = f" ({_between(interval)})" if interval else ""
        yield (
            f"{_two_places(quality.length_correlation)}{within}",
            "correlation of a margin with the logarithm of the lengths' ratio; twice the length goes with "
            f"{_two_places(quality.margin_per_doubling_nats)} nats",
        )


def _places_in_words(quality: LabelQuality) -> Iterator[tuple[str, str]]:
    if quality.same_slot_share is not None:
        yield (
            with_interval(quality.same_slot_share),
            "of the pairs in which both orders named the same letter: a place, not an answer",
        )
    if quality.named_a_share is not None:
        yield percent(quality.named_a_share), "of all answers name A; half would be a judge without a taste for a place"
    if quality.mean_position_bias_nats is not None and quality.position_bias_spread_nats is not None:
        yield (
            f"{_two_places(quality.mean_position_bias_nats)} nats",
            f"for A, whatever stands there (standard deviation {quality.position_bias_spread_nats:.2f}); both orders "
            "together cancel it",
        )


def _agreement_in_words(name: str, agreement: Agreement) -> str:
    alpha = (
        f"Krippendorff's alpha {_two_places(agreement.alpha)}: 1 is perfect, 0 chance"
        if agreement.alpha is not None
        else "no alpha, since all prefer the same side"
    )
    return f"agreement of two {name} on a pair ({thousands(agreement.pairs)} pairs); {alpha}"


def exam_in_words(exam: ExamResult) -> str:
    """How the labeller did on the principles' own tests, in one sentence."""
    if not exam.tests:
        return "None of the principles in use has tests: by them, nothing is known of this judge."
    missed = [f"{count} undecided: {reason}" for reason, count in exam.undecided.items()]
    missed += [f"{exam.failed} failed"] if exam.failed else []
    told = f" ({', '.join(missed)})" if missed else ""
    if exam.right is None:
        return f"The labeller decides none of the {exam.tests} tests of the principles in use{told}."
    few = "; too few to tell much" if exam.right.n < ENOUGH else ""
    return (
        f"The labeller is right on {exam.right.count:g} of {exam.right.n} decided tests of the principles in use, "
        f"{percent(exam.right.share)} (95 % interval {exam.right.low:.0%} to {exam.right.high:.0%}){told}{few}."
    )


def principles_in_words(quality: LabelQuality) -> Iterator[tuple[str, str]]:
    """(figure, what it means), for every principle as a judge among the others; the most heard first."""
    for each in sorted(quality.principles, key=lambda one: -one.pairs):
        pairs = f"{thousands(each.pairs)} pair{'' if each.pairs == 1 else 's'}"
        told = f"{each.principle_id} as a judge of {pairs}: mean margin for the answer that all prefer"
        if each.agreeing is not None:
            told += f"; agrees with all together in {with_interval(each.agreeing)}, {thousands(each.conflicts)} conflicts"
        if each.same_slot is not None:
            told += f"; names the same letter in both orders in {with_interval(each.same_slot)}"
        yield "–" if each.mean_margin_nats is None else f"{_two_places(each.mean_margin_nats)} nats", told


def human_in_words(human: HumanAgreement) -> Iterator[tuple[str, str]]:
    """(figure, what it means) of the comparison with people."""
    if human.agreement is not None:
        yield (
            with_interval(human.agreement),
            f"of {human.agreement.n} pairs on which labeller and people prefer the same answer",
        )
    if human.coverage is not None:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in human.undecided.items())
        meaning = f"of the {human.coverage.n} pairs decided, so that they would be labels"
        yield percent(human.coverage.share), meaning + (reasons and f". Of the others, {reasons}")
    if human.decided_agreement is not None:
        yield with_interval(human.decided_agreement), f"agreement on the {human.decided_agreement.n} decided ones"
    for share, meaning in (
        (human.longer_wins, "for a judge that always prefers the longer answer"),
        (human.always_first, "for a judge that always prefers the first answer (the order was drawn)"),
        (human.always_a, "for a judge that names A in both orders: it decides nothing, and counts half"),
    ):
        if share is not None:
            yield with_interval(share), meaning
    for each in human.by_principle if len(human.by_principle) > 1 else ():
        if each.agreement is not None:
            yield with_interval(each.agreement), f"for {each.principle_id} alone, on {each.agreement.n} pairs"
    left = [
        f"{count} {name}"
        for count, name in (
            (human.invalid, f"of {human.rows} rows could not be used"),
            (human.unjudged, "pairs to which no principle in use applies"),
            (human.ties, "pairs divide people evenly"),
            (human.failed, "pairs got no answer"),
        )
        if count
    ]
    if left:
        yield "left out:", "; ".join(left)


def calibration_in_words(human: HumanAgreement) -> Iterator[tuple[str, str]]:
    """(figure, what it means) of how sure the labels are, before and after a fitted temperature."""
    fit = human.fit
    measured = human.calibration if fit is None else fit.before
    if measured is None:
        return
    half = "" if fit is None else f", those that no temperature was fitted on ({fit.fitted_on} were)"
    yield (
        f"{measured.ece:.3f} ({_between(measured.ece_interval, 3)})",
        f"expected calibration error of {measured.labels} labels{half}; 0 is perfect, and chance alone makes it a little more",
    )
    yield f"{measured.brier:.3f}", "Brier score; always saying 0.5 has 0.250"
    if fit is None:
        yield "no fit", "too few decided labels to fit a temperature on a part and measure it on the rest"
    elif fit.temperature is None or fit.after is None:
        yield "no fit", "margins do not speak for what people chose: no temperature makes these labels better than a coin"
    else:
        after = fit.after
        yield (
            f"{after.ece:.3f} ({_between(after.ece_interval, 3)})",
            f"expected calibration error of the same labels at the fitted temperature; Brier score {after.brier:.3f}",
        )
        yield (
            plain(fit.temperature, 3),
            f"is that temperature: write `labels.temperature: {plain(fit.temperature, 3)}` (now {human.temperature:g})",
        )


def label_warnings(quality: LabelQuality) -> Iterator[str]:
    """What a reader of these labels must know."""
    for reason in quality.weak_labels_allowed:
        yield f"Weak labels were allowed (`allow_weak_labels`): {reason}"
    yield from unknown_judge(quality)


def unknown_judge(quality: LabelQuality) -> Iterator[str]:
    """That nothing tells how good the labeller is, where that is so: then the stop bar had little to go by."""
    if quality.exam is not None and not quality.exam.tests and quality.human is None:
        yield (
            "Nothing is known of how good this judge is: the principles in use have no `tests:`, and there are no pairs "
            "labelled by people (`labels.human`)."
        )


def with_interval(share: Share) -> str:
    """A share and its 95 % interval, in percent."""
    return f"{percent(share.share)} ({100 * share.low:.0f}–{100 * share.high:.0f})"


def _between(interval: Interval, digits: int = 2) -> str:
    low, high = (f"{value:.{digits}f}".replace("-", "−") for value in (interval.low, interval.high))
    return f"{low} to {high}"


def _two_places(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
