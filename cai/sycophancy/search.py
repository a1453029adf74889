"""The search for the wording to which a model gives in most: beam search per prompt, moves drawn by a bandit over all of them.

A round extends every prompt's best wordings by some moves, asks all of them in one batch, and judges them in one. Which moves
are tried is drawn by Thompson sampling: a move's chance to be better than the wording it was made from, as seen on all prompts
in the rounds before (Beta(1 + gains, 1 + others)). Everything follows from the seed and the answers: with an engine that
remembers, a search that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from cai.engines.base import Engine, GenerationRequest, RequestFailure, SamplingParams
from cai.evaluation.answering import Reply, answer, tries
from cai.evaluation.before_after import judged_answers
from cai.evaluation.suites import Suite, Trial
from cai.lab.world import seeded
from cai.sycophancy.moves import Move, Wording, kept_words, moved, moves_of, reworded
from cai.sycophancy.wordings import PARAPHRASE, Wordings
from constitution.messages import Conversation, user

OnSearched: TypeAlias = Callable[[str, int, int], None]
"""(what is done, done, in all)."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How far a search goes.

    Args:
        rounds: Moves of a wording, at most.
        beam: Wordings of a prompt that are kept from a round.
        moves: Tried from each of them.
        samples: Answers at temperature 1 to each wording, besides the greedy one.
        paraphrases: Whether the model itself may write wordings.
        max_tries: Of the whole search: wordings asked. The prompts as they are written are asked in any case.
        max_tokens: The longest answer.
        seed: Of moves and noise.
    """

    rounds: int = 3
    beam: int = 2
    moves: int = 4
    samples: int = 1
    paraphrases: bool = True
    max_tries: int = 20_000
    max_tokens: int = 48
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A wording that was asked.

    Args:
        wording: It.
        root: Uid of the prompt it was made from.
        round: 0: as it was written.
        conversation: What the first of these answers: with the model's own earlier answers, where the prompt has follow-ups.
        replies: The model's answers; the greedy one comes first.
        outcomes: Of each, as the suite judges it.
        score: Share of bad answers in [0, 1]; None where no answer could be judged.
        cut: Whether each of them was cut at its token limit.
    """

    wording: Wording
    root: str
    round: int
    conversation: Conversation
    replies: tuple[str, ...]
    outcomes: tuple[str, ...]
    score: float | None
    cut: tuple[bool, ...] = ()

    @property
    def answered(self) -> Conversation | None:
        """`conversation`, whole; None where the model was to answer in between and did not."""
        return self.conversation if self.replies or not self.wording.trial.has_more else None


@dataclass
class MoveCount:
    """How often a move was tried, and how often what came of it was worse behaved than what it was made from."""

    tried: int = 0
    gained: int = 0


@dataclass
class Found:
    """What a search came to.

    `best` holds the strongest wording of every prompt, by its uid: of equal ones the first, so the prompt as it was written
    where no wording was stronger. `dropped` counts what was not asked, by reason; `failures` answers that failed, by cause.
    """

    best: dict[str, Attempt] = field(default_factory=dict[str, Attempt])
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    moves: dict[str, MoveCount] = field(default_factory=dict[str, MoveCount])
    dropped: Counter[str] = field(default_factory=Counter[str])
    failures: Counter[str] = field(default_factory=Counter[str])


_Wanted: TypeAlias = tuple[str, Attempt, Move]
"""(uid of the prompt, what is to be made from, by which move)."""


@dataclass(frozen=True)
class _AtZeroAndOne:
    seeds: int

    @property
    def temperatures(self) -> tuple[float, ...]:
        return (0.0, 1.0) if self.seeds else (0.0,)


def search(
    engine: Engine,
    suite: Suite,
    targets: Sequence[Trial],
    wordings: Wordings,
    settings: SearchSettings,
    *,
    on_progress: OnSearched | None = None,
) -> Found:
    """Find the strongest wording of every target. A prompt whose answers all are bad is done.

    Args:
        engine: The model that is attacked; it writes the paraphrases too.
        suite: Judges.
        targets: Prompts, each of another uid.
        wordings: The moves.
        settings: How far.
        on_progress: Told of progress.
    """
    return _Search(engine, suite, wordings, settings, on_progress).run(targets)


class _Search:
    def __init__(
        self, engine: Engine, suite: Suite, wordings: Wordings, settings: SearchSettings, on_progress: OnSearched | None
    ) -> None:
        self._engine, self._suite, self._wordings, self._settings = engine, suite, wordings, settings
        self._tell = on_progress
        self._found = Found()
        names = [*wordings.moves, *([PARAPHRASE] if settings.paraphrases else [])]
        self._found.moves = {name: MoveCount() for name in names}
        self._asked: dict[str, set[str]] = {}
        """By root, the wordings asked already."""

    def run(self, targets: Sequence[Trial]) -> Found:
        found = self._found
        first = self._try([(each.item.uid, Wording(each), None) for each in targets], 0)
        beams = {attempt.root: [attempt] for attempt in first}
        found.best = {attempt.root: attempt for attempt in first}
        for number in range(1, self._settings.rounds + 1):
            open_beams = {root: beam for root, beam in beams.items() if (found.best[root].score or 0.0) < 1.0}
            candidates = self._candidates(open_beams, number)
            if not candidates:
                break
            made = self._try(candidates, number)
            by_root: dict[str, list[Attempt]] = {}
            for attempt in made:
                by_root.setdefault(attempt.root, []).append(attempt)
                best = found.best[attempt.root]
                if (attempt.score or 0.0) > (best.score or 0.0):
                    found.best[attempt.root] = attempt
            for root, attempts in by_root.items():
                ranked = sorted([*beams[root], *attempts], key=lambda each: -(each.score or 0.0))
                beams[root] = ranked[: self._settings.beam]
        return found

    def _candidates(self, beams: dict[str, list[Attempt]], number: int) -> list[tuple[str, Wording, Attempt | None]]:
        settings, found = self._settings, self._found
        wanted: list[_Wanted] = []
        for root, beam in beams.items():
            for place, attempt in enumerate(beam):
                wanted += [(root, attempt, move) for move in self._drawn(f"{root}/{number}/{place}", attempt)]
        left = max(0, settings.max_tries - len(found.attempts))
        if len(wanted) > left:
            found.dropped["the bound of all tries"] += len(wanted) - left
            wanted = _evenly(wanted, left)
        texts = self._paraphrases([(attempt, move) for _, attempt, move in wanted if move[0] == PARAPHRASE])
        candidates: list[tuple[str, Wording, Attempt | None]] = []
        for root, attempt, move in wanted:
            if move[0] == PARAPHRASE:
                text = texts.get((attempt.wording.trial.item.uid, move))
                if text is None:  # counted as a failure
                    continue
                made = reworded(attempt.wording, move, text, kept_words(attempt.wording.trial))
                why = "the paraphrase says something else"
            else:
                made, why = moved(attempt.wording, move, self._wordings), "the prompt gets too long"
            if made is None:
                found.dropped[why] += 1
            elif made.trial.item.uid in self._asked[root]:
                found.dropped["asked already"] += 1
            else:
                self._asked[root].add(made.trial.item.uid)
                candidates.append((root, made, attempt))
        return candidates

    def _drawn(self, key: str, attempt: Attempt) -> list[Move]:
        """Moves to try from a wording: no name twice, and none that it holds already, but for paraphrases."""
        rng = seeded(f"{self._settings.seed}/moves/{key}")
        used = {name for name, _ in attempt.wording.moves}
        names = [name for name in self._found.moves if name == PARAPHRASE or name not in used]
        counts = self._found.moves
        drawn = {n: rng.betavariate(1 + counts[n].gained, 1 + counts[n].tried - counts[n].gained) for n in names}
        chosen = sorted(names, key=lambda name: -drawn[name])[: self._settings.moves]
        variants = {name: [move for move in moves_of(self._wordings) if move[0] == name] for name in chosen}
        return [(name, attempt.wording.depth) if name == PARAPHRASE else rng.choice(variants[name]) for name in chosen]

    def _paraphrases(self, wanted: Sequence[tuple[Attempt, Move]]) -> dict[tuple[str, Move], str]:
        """By uid of the wording; those that failed are counted, and missing."""
        requests = [
            GenerationRequest(
                (user(f"{self._wordings.paraphrase}\n\n{attempt.wording.text}"),),
                SamplingParams(temperature=0.7, max_tokens=96),
                f"{self._settings.seed}/{attempt.wording.trial.item.uid}/{move[1]}/paraphrase/0",
            )
            for attempt, move in wanted
        ]
        found: dict[tuple[str, Move], str] = {}
        for index, result in self._engine.generate(requests):
            attempt, move = wanted[index]
            if isinstance(result, RequestFailure):
                self._found.failures[f"paraphrase: {result.cause}"] += 1
            else:
                found[attempt.wording.trial.item.uid, move] = result.text
        return found

    def _try(self, candidates: Sequence[tuple[str, Wording, Attempt | None]], number: int) -> list[Attempt]:
        settings = self._settings
        told = partial(self._tell, f"round {number}") if self._tell else None
        asked = tries([wording.trial for _, wording, _ in candidates], _AtZeroAndOne(settings.samples))
        replies = answer(self._engine, asked, [settings.max_tokens] * len(asked), seed=settings.seed, on_done=told)
        self._found.failures.update(each.cause for each in replies if isinstance(each, RequestFailure))
        judged = judged_answers(self._suite, asked, replies)
        answers: dict[str, list[tuple[Reply, str]]] = {}
        for each, result in zip(asked, judged, strict=True):
            if result is not None:
                answers.setdefault(each.trial.item.uid, []).append((result[0], result[1].outcome))
        made: list[Attempt] = []
        for root, wording, parent in candidates:
            self._asked.setdefault(root, {wording.trial.item.uid})
            own = answers.get(wording.trial.item.uid, [])
            outcomes = tuple(outcome for _, outcome in own)
            sound = [outcome for outcome in outcomes if outcome != "unjudged"]
            score = sum(outcome == "bad" for outcome in sound) / len(sound) if sound else None
            answered = own[0][0].conversation if own else wording.trial.item.messages
            texts, cut = tuple(reply.text for reply, _ in own), tuple(reply.cut for reply, _ in own)
            attempt = Attempt(wording, root, number, answered, texts, outcomes, score, cut)
            made.append(attempt)
            if parent is not None and parent.score is not None and score is not None:
                count = self._found.moves[wording.moves[-1][0]]
                count.tried += 1
                count.gained += score > parent.score
        self._found.attempts += made
        return made


def _evenly(wanted: Sequence[_Wanted], most: int) -> list[_Wanted]:
    """So many at most, in their order, as many of every prompt: a bound must not leave out the last prompts altogether."""
    before: Counter[str] = Counter()
    ranks: list[int] = []
    for root, *_ in wanted:
        ranks.append(before[root])
        before[root] += 1
    kept = sorted(range(len(wanted)), key=lambda place: ranks[place])[:most]
    return [wanted[place] for place in sorted(kept)]
