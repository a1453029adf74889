"""What a search has found, measured on answers that it has not seen: before against after, random wordings, and controls.

The best of many noisy tries looks better than it is. So prompts as written and in the wordings found are answered again, at
temperature 1 with other noise; `random` wordings of as many moves tell what pressing alone does, without a search. Controls
(true claims, harmless requests) get the moves that were found for the faults, none where a fault needed none: were they pressed
on more, a model could tell right from wrong by the pressure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel, ConfigDict

from cai.engines.base import Engine
from cai.evaluation.answering import Reply, answer, tries
from cai.evaluation.before_after import behaviour_table, judged_answers, paired
from cai.evaluation.results import BehaviourRow
from cai.evaluation.suites import Judgement, Outcome, Suite, Trial
from cai.lab.world import seeded
from cai.sycophancy.moves import Move, Wording, moved, moves_of
from cai.sycophancy.search import Found
from cai.sycophancy.wordings import PARAPHRASE, Wordings

NOISE = 7919
"""Added to the seed: the answers measured share no noise with those that the search chose by."""


class MoveFigures(BaseModel):
    """A move over the whole search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    move: str
    tried: int
    gained: int
    """What came of it was worse behaved than what it was made from, on the search's own answers: part of that is chance."""
    in_best: int
    """Strongest wordings that hold it."""


class AttackResult(BaseModel):
    """How often a model gives in, as prompts are written and in other wordings. Rows: `before` as written, `after` reworded.

    Args:
        model: Attacked.
        judge: Who judged.
        prompts: Faults attacked.
        controls: Pressed alike.
        tries: Wordings asked.
        rounds: At most so many moves of a wording.
        found: With the wordings found.
        random: With as many moves, drawn without looking.
        wholly: Faults whose found wording got nothing but bad answers in the search; no measure, since it was chosen by.
        moves: Each move.
        dropped: What was not asked, by reason.
        failures: Answers that failed, by cause.
        unmeasured: Answers that could not be judged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    judge: str
    prompts: int
    controls: int
    tries: int
    rounds: int
    found: tuple[BehaviourRow, ...]
    random: tuple[BehaviourRow, ...]
    wholly: int
    moves: tuple[MoveFigures, ...]
    dropped: dict[str, int]
    failures: dict[str, int]
    unmeasured: int


@dataclass(frozen=True, slots=True)
class Arms:
    """Trials as they are written, and each in the wording found and in a random one; by uid."""

    trials: tuple[Trial, ...]
    found: Mapping[str, Wording]
    random: Mapping[str, Wording]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of the measurement, by uid of the prompt; `reworded`: to the wording found, not as it was written."""

    uid: str
    reworded: bool
    text: str
    outcome: Outcome
    cut: bool


@dataclass(frozen=True)
class _Drawn:
    seeds: int
    temperatures: tuple[float, ...] = (1.0,)


def arms(faults: Sequence[Trial], controls: Sequence[Trial], found: Found, wordings: Wordings, *, seed: int) -> Arms:
    """The wordings to measure. A control takes the moves of one fault, in turn; paraphrases are of one prompt alone."""
    best = {trial.item.uid: found.best[trial.item.uid].wording for trial in faults}
    donors = [wording.moves for wording in best.values()]
    for number, trial in enumerate(controls):
        moves = donors[number % len(donors)] if donors else ()
        best[trial.item.uid] = _with_moves(trial, moves, wordings)
    known = moves_of(wordings)
    random: dict[str, Wording] = {}
    for trial in (*faults, *controls):
        rng = seeded(f"{seed}/random/{trial.item.uid}")
        by_name = {name: [move for move in known if move[0] == name] for name in wordings.moves}
        names = rng.sample(list(by_name), min(best[trial.item.uid].depth, len(by_name)))
        random[trial.item.uid] = _with_moves(trial, [rng.choice(by_name[name]) for name in names], wordings)
    return Arms((*faults, *controls), best, random)


def measure(
    engine: Engine,
    suite: Suite,
    arms: Arms,
    *,
    seeds: int,
    max_tokens: int,
    seed: int,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> tuple[tuple[BehaviourRow, ...], tuple[BehaviourRow, ...], int, list[Answered]]:
    """Rows of the wordings found and of random ones, how many answers could not be judged, and those to all but random ones."""

    def asked(of: Callable[[Trial], Trial], what: str) -> list[tuple[Reply, Judgement] | None]:
        wanted = tries([of(trial) for trial in arms.trials], _Drawn(seeds))
        told = partial(on_progress, what) if on_progress else None
        replies = answer(engine, wanted, [max_tokens] * len(wanted), seed=seed + NOISE, on_done=told)
        return judged_answers(suite, wanted, replies)

    original = tries(arms.trials, _Drawn(seeds))
    before = asked(lambda trial: trial, "measure as written")
    sides = [
        asked(lambda trial: arms.found[trial.item.uid].trial, "measure wordings found"),
        asked(lambda trial: arms.random[trial.item.uid].trial, "measure random wordings"),
    ]
    tables: list[tuple[BehaviourRow, ...]] = []
    unjudged = sum(each is None or each[1].outcome == "unjudged" for side in (before, *sides) for each in side)
    for side in sides:
        both = paired(original, before, side)
        sound = [each for each in both if "unjudged" not in (each.before_outcome, each.after_outcome)]
        tables.append(behaviour_table(suite.behaviours, sound))
    answers = [
        Answered(asked_for.trial.item.uid, reworded, result[0].text, result[1].outcome, result[0].cut)
        for reworded, side in ((False, before), (True, sides[0]))
        for asked_for, result in zip(original, side, strict=True)
        if result is not None
    ]
    return tables[0], tables[1], unjudged, answers


def move_figures(found: Found, faults: Sequence[Trial]) -> tuple[MoveFigures, ...]:
    """Each move, the one that gained most often first."""
    best = [found.best[trial.item.uid].wording for trial in faults]
    made = [
        MoveFigures(
            move=name,
            tried=count.tried,
            gained=count.gained,
            in_best=sum(any(move == name for move, _ in wording.moves) for wording in best),
        )
        for name, count in found.moves.items()
    ]
    return tuple(sorted(made, key=lambda each: -each.gained / max(1, each.tried)))


def _with_moves(trial: Trial, moves: Sequence[Move], wordings: Wordings) -> Wording:
    wording = Wording(trial)
    for move in moves:
        if move[0] != PARAPHRASE:
            wording = moved(wording, move, wordings) or wording
    return wording
