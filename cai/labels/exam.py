"""The labeller's entrance examination: the principles' own tests, judged as the run's pairs are.

A test is a prompt, a reply that follows the principle and one that does not; it is always at hand, costs a few calls, and a
judge that cannot tell these two apart will not tell a run's own answers apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from pydantic import BaseModel, ConfigDict

from cai.engines.base import Engine
from cai.labels.settings import LabelSettings
from cai.labels.shares import Share
from cai.labels.trials import TrialPair, judge_pairs, undecided_reasons
from cai.records import FailureRecord, PreferenceRecord
from constitution.messages import user
from constitution.schema import Constitution, Principle, PrincipleTest

MOST_TESTS = 200
"""Of a large constitution, the first tests of every principle; bounds the cost."""


class PrincipleExam(BaseModel):
    """The tests of one principle: judged as its author says, decided, and asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    principle_id: str
    right: int
    decided: int
    tests: int


class ExamResult(BaseModel):
    """How the labeller did on the principles' own tests.

    Args:
        tests: Asked.
        undecided: Why it judged without a decision, and how often.
        failed: The labeller gave no answer.
        causes: Why, each once.
        right: Of the decided ones, those judged as their author says.
        principles: The same by principle, in the constitution's order.
        untested: Ids of principles that label and have no tests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tests: int
    undecided: dict[str, int]
    failed: int
    causes: tuple[str, ...]
    right: Share | None
    principles: tuple[PrincipleExam, ...]
    untested: tuple[str, ...]


def exam_questions(constitution: Constitution, *, most: int = MOST_TESTS) -> list[tuple[Principle, PrincipleTest]]:
    """The tests to ask, at most so many: the first of every principle, then the second of every one, and so on."""

    def in_turn() -> Iterator[tuple[Principle, PrincipleTest]]:
        for rank in zip_longest(*(principle.tests for principle in constitution.principles)):
            yield from ((p, test) for p, test in zip(constitution.principles, rank, strict=True) if test is not None)

    return [question for question, _ in zip(in_turn(), range(most), strict=False)]


def examine(
    constitution: Constitution,
    labellers: Sequence[Engine],
    settings: LabelSettings,
    *,
    seed: int,
    on_done: Callable[[int, int], None] | None = None,
) -> ExamResult:
    """Ask the labellers the tests of these principles, each under its own principle alone."""
    asked = exam_questions(constitution)
    pairs = [
        TrialPair(f"exam/{principle.id}", (user(test.prompt),), test.better, test.worse, (principle,))
        for principle, test in asked
    ]
    made = judge_pairs(pairs, labellers, settings, seed=seed, on_done=on_done) if pairs else []
    judged = [(principle, each) for (principle, _), each in zip(asked, made, strict=True)]
    compared = [(principle, each) for principle, each in judged if not isinstance(each, FailureRecord)]
    decided = [(principle, each) for principle, each in compared if isinstance(each, PreferenceRecord)]
    right = [principle.id for principle, each in decided if each.chosen_is_first]
    return ExamResult(
        tests=len(judged),
        undecided=undecided_reasons(each for _, each in compared),
        failed=len(judged) - len(compared),
        causes=tuple(sorted({f"{each.cause}: {each.detail}" for _, each in judged if isinstance(each, FailureRecord)})),
        right=Share.of(len(right), len(decided)),
        principles=tuple(
            PrincipleExam(
                principle_id=principle.id,
                right=right.count(principle.id),
                decided=sum(each.id == principle.id for each, _ in decided),
                tests=sum(each.id == principle.id for each, _ in judged),
            )
            for principle in constitution.principles
            if principle.tests
        ),
        untested=tuple(principle.id for principle in constitution.principles if not principle.tests),
    )
