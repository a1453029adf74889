"""Time and memory of a step by length of prompt, number of replies and size of vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, replace

from training_peers import dpo_step, pair_ids
from training_shapes import Arithmetic, Drawn, Shape
from training_steps import DPO, Bench, preference_rows, reference_pairs, trained_step, tuned_peer, with_end
from training_timing import Result, timed

from cai.training.objectives import PreferenceObjective


@dataclass(frozen=True, slots=True)
class Range:
    """What grows: prompts of one pair, replies of one prompt (all pairs among them), the vocabulary under one pair."""

    prompts: tuple[int, ...] = (128, 512, 2048, 4096)
    replies: tuple[int, ...] = (2, 4, 8, 16)
    vocabularies: tuple[int, ...] = (8_192, 32_768, 131_072, 262_144)
    length: int = 128
    most_of_peer: float = 1.5e12
    """Operations above which TRL is left out: it would take minutes."""


RANGES = {"tiny": Range((8, 16), (2, 3), (384, 512), 8)}


def growth(bench: Bench, span: Range) -> Result:
    def point(shape: Shape, prompt: int, replies: int) -> Result:
        shape = replace(shape, prompt=(prompt, prompt), reply=(span.length, span.length))
        here = replace(bench, shape=shape)
        among = tuple((later, earlier) for later in range(replies) for earlier in range(later))
        rows = preference_rows([Drawn(shape, 23).chain(replies, 0.0)], among)
        model = here.model()
        scorer = here.scorer(model, [row.group for row in rows])
        found: Result = {"ours": timed(here, lambda: trained_step(model, scorer, PreferenceObjective(DPO), rows, here)[0])}
        positions = [prompt + span.length] * (2 * len(among))
        if Arithmetic.of_rows(shape, positions, sum(positions)).both > span.most_of_peer:
            return found
        peer, ids = tuned_peer(here, [with_end(Drawn(shape, 1).pairs(1)[0])]), pair_ids([rows[0].group], among)
        found["TRL, tuned"] = timed(here, lambda: dpo_step(peer, ids, reference_pairs(rows), at_once=len(ids)))
        return found

    shape, length = bench.shape, span.length
    return {
        "prompt": {n: point(shape, n, 2) for n in span.prompts},
        "replies": {n: point(shape, length, n) for n in span.replies},
        "vocabulary": {n: point(replace(shape, vocabulary=n), length, 2) for n in span.vocabularies},
    }
