"""What is found out about the labelling models before they label, and whether it is enough to let them.

The principles' own tests and, where there are any, pairs labelled by people: both by the labels' own code and settings. A
labeller that is too weak is refused before anything is generated, and again when it is seen to name a place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from cai.engines.base import Engine
from cai.labels import ItemLabels, LabelQuality, LabelTally
from cai.labels.exam import ExamResult, examine
from cai.labels.human_labels import HumanAgreement, compare_with_people
from cai.labels.stop_bar import WeakLabellerError, advice, weaknesses
from cai.pipeline.preflight import Inputs
from constitution.schema import Constitution

TRIAL_PAIRS = 200
"""Of a run's first pairs, so many are looked at before the first label is written."""

OnExamined: TypeAlias = Callable[[str, int, int], None]
"""(what is asked, calls answered, calls in all)."""


@dataclass(frozen=True, slots=True)
class Examination:
    """How the labellers did before the run. `human` is None where there are no pairs labelled by people."""

    exam: ExamResult
    human: HumanAgreement | None

    def added_to(self, quality: LabelQuality) -> LabelQuality:
        """What is said of the labels, with what is known of their labellers."""
        return quality.model_copy(update={"exam": self.exam, "human": self.human})


def examination(inputs: Inputs, labellers: Sequence[Engine], on_event: OnExamined | None = None) -> Examination:
    """Examine the labellers, and compare them with people."""
    labels, seed, judging = inputs.config.labels, inputs.config.seed, judging_constitution(inputs)
    told = partial(on_event, "examination") if on_event else None
    exam = examine(judging, labellers, labels, seed=seed, on_done=told)
    human: HumanAgreement | None = None
    if inputs.human is not None and labels.human is not None:
        told = partial(on_event, "people's pairs") if on_event else None
        human = compare_with_people(inputs.human, judging, labellers, labels, labels.human, seed=seed, on_done=told)
    return Examination(exam, human)


def judging_constitution(inputs: Inputs) -> Constitution:
    """The principles that may label."""
    named = inputs.config.labels.principles
    return inputs.constitution.select(named) if isinstance(named, tuple) else inputs.constitution


def first_pairs(made: Iterable[ItemLabels]) -> LabelQuality:
    """What is to be said of the first `TRIAL_PAIRS` compared pairs. Reads no further."""
    tally = LabelTally()
    for each in made:
        for pair in (*each.pairs, *each.undecided):
            tally.add(pair)
        if tally.compared >= TRIAL_PAIRS:
            break
    return tally.quality()


def refuse_weak(quality: LabelQuality, inputs: Inputs) -> LabelQuality:
    """The same, with what was allowed, if it was.

    Raises:
        WeakLabellerError: If something speaks against these labels, and `labels.allow_weak_labels` is not set.
    """
    found = weaknesses(quality)
    labels = inputs.config.labels
    if found and not labels.allow_weak_labels:
        raise WeakLabellerError(found, advice(labels.method))
    return quality.model_copy(update={"weak_labels_allowed": found})
