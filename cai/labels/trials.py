"""Single pairs, judged as the labels judge the pairs of a run: for examinations and for comparisons with people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cai.engines.base import Engine, RequestFailure
from cai.labels.candidates import Candidate, Candidates
from cai.labels.ensemble import MarginScales
from cai.labels.labelling import hear, label_candidates
from cai.labels.settings import LabelSettings
from cai.records import ComparedPair, FailureRecord, UndecidedRecord
from constitution.messages import Conversation
from constitution.schema import Principle


@dataclass(frozen=True, slots=True)
class TrialPair:
    """Two answers to be compared under these principles."""

    uid: str
    conversation: Conversation
    first: str
    second: str
    principles: tuple[Principle, ...]


def undecided_reasons(pairs: Iterable[ComparedPair]) -> dict[str, int]:
    """Why some of these pairs are undecided, the most frequent reason first."""
    counts = Counter(each.reason for each in pairs if isinstance(each, UndecidedRecord))
    return dict(sorted(counts.items(), key=lambda counted: (-counted[1], counted[0])))


def judge_pairs(
    pairs: Iterable[TrialPair],
    labellers: Sequence[Engine],
    settings: LabelSettings,
    *,
    seed: int,
    on_done: Callable[[int, int], None] | None = None,
) -> list[ComparedPair | FailureRecord]:
    """What the labels make of each pair, in their order. Where margins are normalised, it is over these pairs."""
    groups = [
        Candidates(
            uid=each.uid,
            replica=0,
            conversation=each.conversation,
            answers=(Candidate(each.first), Candidate(each.second)),
            pairs=((0, 1),),
            principles=each.principles,
        )
        for each in pairs
    ]
    scales: MarginScales | None = None
    if settings.ensemble == "normalised":
        scales = MarginScales()
        for heard in hear(groups, labellers, settings, seed=seed, on_done=on_done):
            for comparisons in [] if isinstance(heard, RequestFailure) else heard:
                scales.add(comparisons)
    made = label_candidates(groups, labellers, settings, seed=seed, scales=scales.result() if scales else None, on_done=on_done)
    return [each.failure or (*each.pairs, *each.undecided)[0] for each in made]
