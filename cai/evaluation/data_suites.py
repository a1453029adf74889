"""A suite file as a suite that can be asked and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import cast

from cai.errors import CaiError, ConfigError
from cai.evaluation.checks import Calls, verdict
from cai.evaluation.judging import JudgeModel
from cai.evaluation.suite_cases import CHECK, Question, behaviours, open_trials, questions, trials
from cai.evaluation.suite_files import Judge
from cai.evaluation.suite_reading import ReadSuite
from cai.evaluation.suites import Behaviour, Judgement, Outcome, Suite, Trial
from cai.evaluation.tool_turns import ToolTurns
from constitution.schema import Principle
from constitution.templating import BadTemplateError

WITHOUT_JUDGE = "exact values and patterns (cai.evaluation.checks)"


@dataclass(frozen=True)
class SuitePlan:
    """All that one suite asks. `suite` is None where no behaviour is counted."""

    name: str
    description: str
    fingerprint: str
    suite: Suite | None
    questions: tuple[Question, ...] = ()
    drift: tuple[Trial, ...] = ()
    preference: tuple[Trial, ...] = ()
    helpful: Judge | None = None
    judges: tuple[Judge, ...] = ()
    stated: Suite | None = None
    max_tokens: int | None = None

    @property
    def prompts(self) -> int:
        """How many conversations and questions it has."""
        counted = len(self.suite.trials) if self.suite is not None else 0
        stated = sum(question.stated is not None for question in self.questions)
        return counted + len(self.questions) + stated + len(self.drift) + len(self.preference)


class DataSuite:
    """Trials with a check each, judged by `cai.evaluation.checks`, and by a judge model where a check asks for one."""

    def __init__(
        self,
        name: str,
        counted: Sequence[Behaviour],
        asked: Sequence[Trial],
        patterns: Mapping[str, Sequence[str]],
        judges: Sequence[Judge] = (),
        judge: JudgeModel | None = None,
    ) -> None:
        self.name = name
        self._behaviours = tuple(counted)
        self._trials = tuple(asked)
        self._patterns = patterns
        self._judge = judge
        self._principles = {each.principle: as_principle(each) for each in judges}

    @property
    def judge_name(self) -> str:
        return WITHOUT_JUDGE if self._judge is None else f"{WITHOUT_JUDGE}; {self._judge.description}"

    @property
    def behaviours(self) -> Sequence[Behaviour]:
        return self._behaviours

    @property
    def trials(self) -> Sequence[Trial]:
        return self._trials

    def judge(self, answers: Sequence[tuple[Trial, str]]) -> list[Judgement]:
        """Judge answers; the judge model is asked only where the checks before it do not decide."""
        judged: list[dict[str, tuple[str, str]]] = [{} for _ in answers]
        read = [_said_and_called(trial, reply) for trial, reply in answers]
        while True:
            found = [
                verdict(trial.item.facts[CHECK], said, self._patterns, known, calls)
                for (trial, _), (said, calls), known in zip(answers, read, judged, strict=True)
            ]
            pending = [place for place, (outcome, _) in enumerate(found) if outcome == "pending"]
            if not pending:
                return [_judgement(*each) for each in found]
            assert self._judge is not None, "a suite with a judge in it is not planned without one"
            asked = [
                (answers[place][0].item.messages, answers[place][1], self._principles[found[place][1]]) for place in pending
            ]
            for place, said in zip(pending, self._judge.verdicts(asked), strict=True):
                judged[place][found[place][1]] = said.outcome, said.why


def _said_and_called(trial: Trial, reply: str) -> tuple[str, Calls]:
    """What the model says last, and every call that it made in its turns, where there were tools."""
    turns = trial.continuation
    if not isinstance(turns, ToolTurns):
        return reply, ()
    calls = [(call.name, call.values) for call in turns.calls(trial.item.messages, reply)]
    return turns.said(reply), calls


def _judgement(outcome: str, why: str) -> Judgement:
    return Judgement("unjudged" if outcome == "undecided" else cast("Outcome", outcome), why)


def as_principle(each: Judge) -> Principle:
    """A judge's principle as the judging code takes it."""
    name = f"judge-{sha256(each.principle.encode()).hexdigest()[:10]}"
    # Its text is no template: braces in it stand for themselves.
    return Principle(id=name, principle="{{ text }}", parameters={"text": each.principle}, tests=each.tests)


def plan_suite(suite: ReadSuite, judge: JudgeModel | None, *, most_prompts: int | None = None) -> SuitePlan:
    """Fill in a suite's templates.

    Args:
        suite: Read and checked.
        judge: Asked where a check or a preference needs one.
        most_prompts: At most so many of each behaviour and section.

    Raises:
        ConfigError: If a template fails on a row, if one behaviour has a prompt twice, or if there is no judge to ask.
    """
    return _Planner(suite, judge, most_prompts).plan()


@dataclass(frozen=True)
class _Planner:
    suite: ReadSuite
    judge: JudgeModel | None
    most: int | None

    def plan(self) -> SuitePlan:
        file = self.suite.file
        if problem := self.problem():
            raise problem
        try:
            asked = trials(self.suite, self.most)
            calibration = questions(self.suite, file.calibration, self.most) if file.calibration else []
            drift = open_trials(self.suite, "drift", file.drift.prompts, self.most) if file.drift else []
            preferred = open_trials(self.suite, "preference", file.preference.prompts, self.most) if file.preference else []
        except BadTemplateError as error:
            raise ConfigError(f"suite {self.suite.name}: {error.problem}", error.hint) from error
        self._refuse_repeated([*asked, *drift, *preferred])
        stated = [question.stated for question in calibration if question.stated is not None]
        return SuitePlan(
            name=self.suite.name,
            description=file.description.strip(),
            fingerprint=self.suite.fingerprint,
            suite=self._data_suite(behaviours(self.suite), asked) if asked else None,
            questions=tuple(calibration),
            drift=tuple(drift),
            preference=tuple(preferred),
            helpful=self._helpful,
            judges=file.judges,
            stated=self._data_suite([], stated) if stated else None,
            max_tokens=file.max_tokens,
        )

    @cached_property
    def _helpful(self) -> Judge | None:
        entry = self.suite.file.preference
        return None if entry is None else Judge(principle=entry.principle, tests=entry.tests)

    def problem(self) -> CaiError | None:
        if self.judge is None and (self.suite.file.judges or self.suite.file.preference):
            return ConfigError(f"the suite {self.suite.name} needs a judge", "name a model: --judge MODEL, or NAME+ADAPTER")
        return None

    def _data_suite(self, counted: Sequence[Behaviour], asked: Sequence[Trial]) -> DataSuite:
        judges = self.suite.file.judges
        return DataSuite(self.suite.name, counted, asked, self.suite.patterns, judges, self.judge if judges else None)

    def _refuse_repeated(self, asked: Sequence[Trial]) -> None:
        seen: set[tuple[str, str]] = set()
        for trial in asked:
            key = trial.behaviour, trial.item.uid
            if key in seen:
                prompt = trial.item.messages[-1].content[:80]
                raise ConfigError(
                    f"suite {self.suite.name}: `{trial.behaviour}` has a prompt twice: {prompt!r}",
                    "name the columns that make prompts differ in the template, or take fewer combinations",
                )
            seen.add(key)
