"""When labels are refused: the labeller is not better than chance, or it answers a place instead of an answer.

What has to be shown grows with what can be shown. From `ENOUGH` decided judgements on, the whole 95 % interval (Wilson) of the
share that is right has to lie above one half: of twenty, fifteen. Of fewer an interval is too wide to ask that much of (a judge
that is right in three of four cases would mostly be refused on ten), and it has to be right more often than wrong. A coin is
that too in up to half of all cases, so that what is known of such a judge is stated as little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cai.errors import CaiError
from cai.labels.quality import LabelQuality
from cai.labels.shares import Share

ENOUGH = 20
CHANCE = 0.5


class WeakLabellerError(CaiError):
    """The labeller's labels would be worth nothing.

    Args:
        reasons: Why, each with its figures.
        hint: What can be done.
    """

    def __init__(self, reasons: tuple[str, ...], hint: str) -> None:
        listed = "\n".join(f"- {reason}" for reason in reasons)
        super().__init__(f"This model's labels are refused, and no pair was written:\n{listed}", hint)
        self.reasons = reasons


def weaknesses(quality: LabelQuality) -> tuple[str, ...]:
    """What speaks against these labels, each with its figures; empty for a labeller that passes.

    Args:
        quality: With the examination and the comparison with people, where there are any; of some or all pairs of a run.
    """
    found: list[str] = []
    exam, human = quality.exam, quality.human
    if exam is not None and exam.tests:
        missed = _missed(exam.undecided, exam.failed, exam.causes)
        found += _no_better_than_chance("on the principles' own tests", exam.right, exam.tests, missed)
    if human is not None and human.pairs > human.ties:
        missed = _missed(human.undecided, human.failed)
        found += _no_better_than_chance(f"against people ({human.source})", human.decided_agreement, human.pairs, missed)
    same = quality.same_slot_share
    if same is not None and same.low > CHANCE:
        found.append(
            f"it mostly answers a place: both orders name the same letter in {same}; "
            f"it names A in {quality.named_a_share or 0:.0%} of all answers"
        )
    return tuple(found)


def _missed(undecided: Mapping[str, int], failed: int, causes: Sequence[str] = ()) -> str:
    """What was asked and is in no share, with the reasons."""
    reasons = f" ({', '.join(undecided)})" if undecided else ""
    return f"{sum(undecided.values())} undecided{reasons}, {failed} failed" + (f" ({'; '.join(causes)})" if causes else "")


def _no_better_than_chance(where: str, right: Share | None, asked: int, missed: str) -> list[str]:
    if right is None:
        return [f"{where}, it decides none of {asked}: {missed}"]
    if right.n >= ENOUGH and right.low <= CHANCE:
        return [f"{where}, it is not better than chance: right in {right}; {missed}"]
    if right.n < ENOUGH and right.share <= CHANCE:
        return [f"{where}, it is right in {right.count:g} of {right.n}, no more than a coin; {missed}"]
    return []


def advice(method: str | None) -> str:
    """What can be done about a labeller that is refused."""
    other = "`labels.method: pointwise`, which knows no places" if method == "letters" else "another `labels.method`"
    return (
        f"Try {other}; a bigger `feedback` model; `demonstrations:` in the principle files; or, with `labels.principles`, only "
        "those principles that it can judge (`cai test` shows them one by one). `--allow-weak-labels` writes them all the "
        "same, and says so wherever the labels go."
    )
