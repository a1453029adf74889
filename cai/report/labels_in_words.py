"""The labeller's own figures, as sentences."""

from __future__ import annotations

from collections.abc import Iterator

from cai.labels.quality import LabelQuality
from cai.report.texts import percent, signed, thousands

METHODS = {
    "letters": "Answers were shown together and the judge named a letter, in both orders.",
    "pointwise": "Each answer was judged alone: how likely its critique opens with “nothing to change”.",
}


def quality_in_words(quality: LabelQuality) -> Iterator[tuple[str, str]]:
    """(figure, what it means), for every figure there was something to measure on."""
    yield thousands(quality.pairs), "pairs labelled. " + (METHODS[quality.method] if quality.method else "")
    if quality.undecided_share is not None:
        yield (
            percent(quality.undecided_share),
            f"of the judged answers left undecided ({thousands(quality.undecided)}): no label",
        )
    if quality.mean_margin_nats is not None:
        yield f"{quality.mean_margin_nats:.2f} nats", "mean margin: log-odds that the chosen answer is the better one"
    if quality.mean_entropy_bits is not None:
        yield f"{quality.mean_entropy_bits:.2f} bits", "mean doubt of a label: 1 is a coin toss, 0 is certainty"
    if quality.draft_won_share is not None:
        yield percent(quality.draft_won_share), "of the pairs in which the judge preferred the draft to its revision"
    if quality.longer_won_share is not None:
        yield (
            percent(quality.longer_won_share),
            "of the pairs in which the longer answer won; far from half may be a taste for length",
        )
    if quality.mean_length_gap_characters is not None:
        yield signed(quality.mean_length_gap_characters), "characters: mean length of chosen minus rejected"
    if quality.same_slot_share is not None:
        yield (
            percent(quality.same_slot_share),
            "of the comparisons in which both orders named the same letter: a position, not an answer",
        )
    if quality.mean_mass_outside is not None:
        yield percent(quality.mean_mass_outside), "of the judge's probability went to neither letter"
