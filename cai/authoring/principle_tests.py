"""Unit tests of principles: is each `tests:` entry judged as its author says, and does the verdict stay where it must?

Constitution in, report out; opens no model and prints nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cai.authoring.judgements import Answer, Judge, OnJudged, Question
from cai.authoring.metamorphic import Check, Kept, Relation, check_change, check_swap, position_biased, verdict
from cai.engines.base import RequestFailure
from cai.records import Method
from cai.statistics import Interval, wilson_interval
from constitution.schema import Constitution, Principle, PrincipleTest


class Result(StrEnum):
    """How one test came out."""

    PASSED = "pass"
    FAILED = "fail"
    BIASED = "position-biased"
    """letters: in both orders the judge named the same place, whichever reply stood there."""
    UNDECIDED = "undecided"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Case:
    """One entry of a principle's `tests:`; `number` is its place there, from 1."""

    principle: Principle
    number: int

    @property
    def test(self) -> PrincipleTest:
        return self.principle.tests[self.number - 1]

    @property
    def name(self) -> str:
        return f"{self.principle.id}/{self.number}"


@dataclass(frozen=True, slots=True)
class CaseReport:
    """A test, judged by one method, with the relations tried on it."""

    case: Case
    method: Method
    result: Result
    answer: Answer
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """Tests counted. `interval` (95 %, Wilson) is of the share that passed of those judged; None if none was."""

    passed: int
    judged: int
    counts: dict[Result, int]
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class CriticTally:
    """pointwise: what the critique alone says. A fault that it passes over is never revised, however right the margin is.

    Args:
        faulted: Tests whose worse reply gets a fault.
        kept: Tests in whose better reply there is nothing to change.
        judged: Tests judged.
    """

    faulted: int
    kept: int
    judged: int


@dataclass(frozen=True, slots=True)
class ConstitutionReport:
    """All results, in order of the constitution.

    Args:
        tested: One for each test and method.
        untested: Ids of the principles that have no tests.
        computed: Judgements, those of the relations included, for which the model was asked.
        remembered: Judgements known from an earlier run.
    """

    tested: tuple[CaseReport, ...]
    untested: tuple[str, ...]
    computed: int
    remembered: int

    def critic(self) -> CriticTally:
        """Over the pointwise judgements, whatever the margins."""
        parts = [
            each.answer.outcome.parts_nats
            for each in self.tested
            if each.method == "pointwise" and not isinstance(each.answer.outcome, RequestFailure)
        ]
        return CriticTally(sum(worse < 0 for _, worse in parts), sum(better > 0 for better, _ in parts), len(parts))

    def results(self) -> Counter[Result]:
        return Counter(each.result for each in self.tested)

    def outcomes(self) -> Counter[Kept]:
        return Counter(check.outcome for each in self.tested for check in each.checks)


def cases_of(constitution: Constitution, text: str = "") -> tuple[Case, ...]:
    """The tests of a constitution; with `text`, those whose principle id, prompt or replies hold it, in whatever case."""
    wanted = text.casefold()
    cases = (Case(principle, n + 1) for principle in constitution.principles for n in range(len(principle.tests)))
    return tuple(
        case
        for case in cases
        if any(wanted in each.casefold() for each in (case.name, case.test.prompt, case.test.better, case.test.worse))
    )


def run_tests(
    cases: Sequence[Case],
    judge: Judge,
    methods: Sequence[Method],
    relations: Sequence[Relation],
    *,
    min_margin_nats: float,
    untested: Iterable[str] = (),
    on_judged: OnJudged | None = None,
) -> ConstitutionReport:
    """Judge every test by every method, and try the relations on it.

    Args:
        cases: From `cases_of`.
        judge: The labelling model.
        methods: One or both methods of the labels.
        relations: From `cai.authoring.metamorphic.RELATIONS`; none: the tests alone.
        min_margin_nats: Below this margin nothing is decided.
        untested: Goes into the report.
        on_judged: Told of every call answered.
    """
    asked: list[tuple[Case, Method, Question, list[tuple[Relation, Question]]]] = []
    for case in cases:
        for method in methods:
            source = Question(case.principle, case.test.prompt, case.test.better, case.test.worse, method)
            asked.append((case, method, source, _changed(source, relations)))
    questions = [each for _, _, source, changes in asked for each in (source, *(question for _, question in changes))]
    answers = judge.ask(questions, on_judged)
    rest = iter(answers)
    tested: list[CaseReport] = []
    for case, method, source, changes in asked:
        answer = next(rest)
        changed = {relation.name: next(rest) for relation, _ in changes}
        checks = tuple(
            _check(relation, method, answer, changed.get(relation.name), min_margin_nats)
            for relation in relations
            if source.method in relation.methods
        )
        tested.append(CaseReport(case, method, result_of(answer, method, min_margin_nats), answer, checks))
    remembered = sum(answer.remembered for answer in answers)
    return ConstitutionReport(tuple(tested), tuple(untested), len(answers) - remembered, remembered)


def _changed(source: Question, relations: Iterable[Relation]) -> list[tuple[Relation, Question]]:
    found: list[tuple[Relation, Question]] = []
    for relation in relations:
        if relation.change is not None and source.method in relation.methods:
            question = relation.change(source)
            found += [] if question is None else [(relation, question)]
    return found


def _check(relation: Relation, method: Method, source: Answer, changed: Answer | None, min_margin_nats: float) -> Check:
    if relation.change is None:
        return check_swap(source, min_margin_nats)
    if changed is None:
        return Check(relation, Kept.NOT_APPLICABLE, note="nothing to change in this test")
    return check_change(relation, method, source, changed, min_margin_nats)


def result_of(answer: Answer, method: Method, min_margin_nats: float) -> Result:
    """What a judgement makes of its test."""
    if isinstance(answer.outcome, RequestFailure):
        return Result.ERROR
    if position_biased(answer, method, min_margin_nats):
        return Result.BIASED
    return {1: Result.PASSED, 0: Result.UNDECIDED, -1: Result.FAILED}[verdict(answer, method, min_margin_nats)]


def tally(tested: Iterable[CaseReport]) -> Tally:
    """Count results."""
    counts = Counter(each.result for each in tested)
    judged = counts.total() - counts[Result.ERROR]
    passed = counts[Result.PASSED]
    interval = wilson_interval(passed, judged) if judged else None
    return Tally(passed, judged, {result: counts[result] for result in Result}, interval)
