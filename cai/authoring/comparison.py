"""Two constitutions on the same drafts: what each makes of them, who is better at what, and how sure that is.

Drafts, and every call that both constitutions make alike, are computed once when the engines remember (`cai.store`). Each
(item, replica) is a pair, so the difference is measured inside it. Engines in, figures out; knows no files.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

from cai.engines.base import Engine
from cai.evaluation.before_after import behaviour_table
from cai.evaluation.results import AnswerPair, BehaviourRow
from cai.evaluation.suites import FEEDBACK_JUDGE, Behaviour, Judgement, Suite, Trial, breaking, judge_by_principles
from cai.loop import LoopEvent, LoopSettings, run_loop
from cai.records import Item, RevisionRecord
from cai.statistics import holm
from constitution.schema import Constitution, Principle
from constitution.selection import applies

OnCompared: TypeAlias = Callable[[str, int, int], None]
"""(step, calls answered, calls in all)."""
ALPHA = 0.05


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComparedBehaviour(_Frozen):
    """One behaviour under both constitutions; in `row`, "before" is A and "after" is B. Shares are of bad final answers."""

    row: BehaviourRow
    differing: int
    """Answers of the behaviour whose text is not the same under A and B: what the difference rests on."""
    p_holm: float
    """The McNemar p-value, corrected for the number of behaviours (Holm 1979)."""

    @property
    def verdict(self) -> str:
        """In words: who is better, or why nobody can say."""
        row = self.row
        if not row.enough:
            return f"not enough rows to say ({row.prompts} prompt{'s' * (row.prompts != 1)})"
        if self.differing == 0:
            return "the same answers"
        if self.p_holm >= ALPHA or row.difference_low <= 0.0 <= row.difference_high:
            return f"no difference shown ({self.differing} answers differ)"
        better = "B" if row.difference < 0 else "A"
        return f"{better} is better by {abs(row.difference):.0%}"


class ComparedTranscript(_Frozen):
    """One item under both constitutions. `likeness` of the two final texts, by words, in [0, 1]."""

    uid: str
    replica: int
    prompt: str
    draft: str
    a: RevisionRecord
    b: RevisionRecord
    likeness: float
    judged: tuple[str, ...]
    """`behaviour: outcome of A → outcome of B` where the outcomes differ."""


class ConstitutionComparison(_Frozen):
    """The whole comparison."""

    a: str
    b: str
    judge: str
    items: int
    pairs: int
    """(item, replica) finished under both."""
    failures: int
    """(item, replica) that failed under either, and answers that could not be judged: in no figure."""
    same: int
    """Pairs whose final texts are equal."""
    untouched_a: int
    """Pairs to which no principle of A applies: the draft itself is what is judged."""
    untouched_b: int
    behaviours: tuple[ComparedBehaviour, ...]
    most_different: tuple[ComparedTranscript, ...]


class EveryPrincipleSuite:
    """Items judged by the feedback model under every principle of both constitutions that applies to them.

    The judge is the model that criticised and revised: this says which answers it finds to follow the rules, not which are
    true. A principle that both constitutions have under one id, but not alike, judges twice, as A and as B have it.
    """

    name = "principles"
    judge_name = FEEDBACK_JUDGE

    def __init__(
        self, items: Sequence[Item], a: Constitution, b: Constitution, feedback: Engine, *, seed: int, ground_tokens: int
    ) -> None:
        self._feedback, self._seed, self._ground_tokens = feedback, seed, ground_tokens
        self._principles = dict(_named(a, b))
        self._trials = tuple(
            Trial(item, name) for name, principle in self._principles.items() for item in items if applies(principle, item.tags)
        )

    @property
    def behaviours(self) -> Sequence[Behaviour]:
        return tuple(breaking(name) for name in self._principles)

    @property
    def trials(self) -> Sequence[Trial]:
        return self._trials

    def judge(self, answers: Sequence[tuple[Trial, str]]) -> list[Judgement]:
        return judge_by_principles(
            self._feedback, answers, self._principles, seed=self._seed, ground_tokens=self._ground_tokens
        )


def _named(a: Constitution, b: Constitution) -> Iterable[tuple[str, Principle]]:
    of_b = {principle.id: principle for principle in b.principles}
    for principle in a.principles:
        twin = of_b.pop(principle.id, None)
        if twin is None or twin.fingerprint == principle.fingerprint:
            yield principle.id, principle
        else:
            yield f"{principle.id} (A)", principle
            yield f"{principle.id} (B)", twin
    yield from of_b.items()


@dataclass(frozen=True, slots=True)
class _Finished:
    """One (item, replica) under both constitutions."""

    item: Item
    a: RevisionRecord
    b: RevisionRecord


def compare(
    items: Sequence[Item],
    a: Constitution,
    b: Constitution,
    policy: Engine,
    feedback: Engine,
    loop: LoopSettings,
    suite: Suite,
    *,
    seed: int,
    shown: int = 10,
    on_event: OnCompared | None = None,
) -> ConstitutionComparison:
    """Run the loop under both constitutions and compare the final answers.

    Args:
        items: The sample; every trial of `suite` is on one of them.
        a: The first constitution.
        b: The second.
        policy: Drafts, once for both.
        feedback: Critiques and revises.
        loop: As in the run.
        suite: Says which behaviours an item tries, and judges answers.
        seed: Of the run: same seed, same drafts and same draws of principles both have.
        shown: How many of the most different transcripts to keep.
        on_event: Told of progress.
    """
    records: list[dict[tuple[str, int], RevisionRecord]] = []
    for name, constitution in (("A", a), ("B", b)):
        made = run_loop(items, constitution, policy, feedback, loop, seed=seed, on_event=_telling(name, on_event))
        records.append({(each.uid, each.replica): each for each in made if isinstance(each, RevisionRecord)})
    by_uid = {item.uid: item for item in items}
    finished = [_Finished(by_uid[key[0]], records[0][key], records[1][key]) for key in records[0] if key in records[1]]
    pairs = _judged(finished, suite)
    sound = [pair for pair in pairs if "unjudged" not in (pair.before_outcome, pair.after_outcome)]
    rows = behaviour_table(suite.behaviours, sound)
    corrected = holm([row.mcnemar_p for row in rows])
    differing = {row.behaviour: sum(p.behaviour == row.behaviour and p.before != p.after for p in sound) for row in rows}
    return ConstitutionComparison(
        a=a.name,
        b=b.name,
        judge=suite.judge_name,
        items=len(items),
        pairs=len(finished),
        failures=len(items) * loop.replicas - len(finished) + len(pairs) - len(sound),
        untouched_a=sum(not each.a.rounds for each in finished),
        untouched_b=sum(not each.b.rounds for each in finished),
        same=sum(each.a.final == each.b.final for each in finished),
        behaviours=tuple(
            ComparedBehaviour(row=row, differing=differing[row.behaviour], p_holm=p)
            for row, p in zip(rows, corrected, strict=True)
        ),
        most_different=_most_different(finished, sound, shown),
    )


def _telling(name: str, on_event: OnCompared | None) -> Callable[[LoopEvent], None] | None:
    if on_event is None:
        return None
    return lambda event: on_event(f"{name}: {event.stage}", event.done, event.total)


def _judged(finished: Sequence[_Finished], suite: Suite) -> list[AnswerPair]:
    trials: dict[str, list[Trial]] = {}
    for trial in suite.trials:
        trials.setdefault(trial.item.uid, []).append(trial)
    asked = [(trial, each) for each in finished for trial in trials.get(each.item.uid, ())]
    of_a = suite.judge([(trial, each.a.final) for trial, each in asked])
    of_b = suite.judge([(trial, each.b.final) for trial, each in asked])
    return [
        AnswerPair(
            uid=each.item.uid,
            behaviour=trial.behaviour,
            prompt=each.item.messages[-1].content,
            temperature=0.0,
            seed=each.a.replica,
            before=each.a.final,
            before_outcome=one.outcome,
            before_why=one.why,
            after=each.b.final,
            after_outcome=two.outcome,
            after_why=two.why,
        )
        for (trial, each), one, two in zip(asked, of_a, of_b, strict=True)
    ]


def _most_different(finished: Sequence[_Finished], pairs: Sequence[AnswerPair], shown: int) -> tuple[ComparedTranscript, ...]:
    """Transcripts that are judged otherwise first, then by how little their final texts have in common."""
    judged: dict[tuple[str, int], list[str]] = {}
    for pair in pairs:
        if pair.before_outcome != pair.after_outcome:
            line = f"{pair.behaviour}: {pair.before_outcome} → {pair.after_outcome}"
            judged.setdefault((pair.uid, pair.seed), []).append(line)
    transcripts = [
        ComparedTranscript(
            uid=each.a.uid,
            replica=each.a.replica,
            prompt=each.item.messages[-1].content,
            draft=each.a.draft,
            a=each.a,
            b=each.b,
            likeness=difflib.SequenceMatcher(None, each.a.final.split(), each.b.final.split(), autojunk=False).ratio(),
            judged=tuple(judged.get((each.a.uid, each.a.replica), ())),
        )
        for each in finished
        if each.a.final != each.b.final
    ]
    transcripts.sort(key=lambda each: (not each.judged, each.likeness, each.uid, each.replica))
    return tuple(transcripts[:shown])
