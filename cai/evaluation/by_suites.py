"""Models on suites: answers gathered, judged, measured, each model compared with the first, p-values corrected together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cai.engines.base import RequestFailure
from cai.evaluation.answering import Reply, Sampling, Try
from cai.evaluation.before_after import behaviour_table, judged_answers, paired
from cai.evaluation.data_suites import SuitePlan, as_principle
from cai.evaluation.gathering import SECTIONS, Contestant, Gathered, OnProgress, gather, tries_of
from cai.evaluation.judging import JudgeModel, JudgeQuality
from cai.evaluation.measures import behaviour_share
from cai.evaluation.results import BehaviourRow
from cai.evaluation.suite_measures import ModelMeasures
from cai.evaluation.suite_results import (
    BehaviourShare,
    Comparison,
    Correction,
    MeasureChange,
    ModelResult,
    SuiteAnswer,
    SuiteResult,
)
from cai.evaluation.suites import Judgement
from cai.statistics import benjamini_hochberg, holm

Judged = Sequence[tuple[Reply, Judgement] | None]


@dataclass(frozen=True)
class SuiteEvaluation:
    """A suite's result, and every answer it rests on."""

    result: SuiteResult
    answers: tuple[SuiteAnswer, ...]


def _nobody(what: str, done: int, total: int) -> None:
    """Nobody listens."""


def evaluate_suites(
    plans: Sequence[SuitePlan],
    contestants: Sequence[Contestant],
    judge: JudgeModel | None,
    sampling: Sampling,
    *,
    max_tokens: int,
    seed: int,
    correction: Correction = "holm",
    on_progress: OnProgress = _nobody,
) -> list[SuiteEvaluation]:
    """Ask every model every suite and compare each with the first.

    Args:
        plans: The suites.
        contestants: At least one model; the first is what the others are measured against.
        judge: Asked where a suite needs it.
        sampling: Temperatures, and answers for each above 0.
        max_tokens: The longest answer, where a suite does not say.
        seed: Of the noise, which is the same for every model.
        correction: For all p-values of the evaluation together.
        on_progress: Told how far it is.
    """
    gathered, fingerprints = gather(plans, contestants, sampling, max_tokens=max_tokens, seed=seed, on_progress=on_progress)
    found: list[SuiteEvaluation] = []
    for number, plan in enumerate(plans):
        on_progress("judge", number, len(plans))
        mine = [each[number] for each in gathered]
        found.append(_Evaluation(plan, contestants, fingerprints, judge, sampling, mine, correction).evaluate())
    on_progress("judge", len(plans), len(plans))
    return _corrected(found, correction)


@dataclass(frozen=True)
class _Evaluation:
    """One suite on all models."""

    plan: SuitePlan
    contestants: Sequence[Contestant]
    fingerprints: Sequence[str]
    judge: JudgeModel | None
    sampling: Sampling
    gathered: Sequence[Gathered]
    correction: Correction

    def evaluate(self) -> SuiteEvaluation:
        asked = tries_of(self.plan, "behaviours", self.sampling)
        suite = self.plan.suite
        judged: list[Judged] = [
            judged_answers(suite, asked, each.replies["behaviours"]) if suite is not None else [] for each in self.gathered
        ]
        measured = [
            ModelMeasures.of(self.plan, self.sampling, each, start=self.gathered[0] if number else None, judge=self.judge)
            for number, each in enumerate(self.gathered)
        ]
        comparisons = tuple(
            Comparison(
                before=self.contestants[0].name,
                after=self.contestants[n].name,
                rows=self._rows(asked, judged[0], judged[n]),
                measures=tuple(measured[n].changes(measured[0])),
            )
            for n in range(1, len(self.contestants))
        )
        result = SuiteResult(
            suite=self.plan.name,
            description=self.plan.description,
            fingerprint=self.plan.fingerprint,
            judge=suite.judge_name if suite is not None else self.judge.description if self.plan.helpful and self.judge else "",
            judges=tuple(self._judges()),
            models=tuple(self._model(n, asked, judged[n], measured[n]) for n in range(len(self.contestants))),
            comparisons=comparisons,
            temperatures=self.sampling.temperatures,
            seeds=self.sampling.seeds,
            correction=self.correction,
        )
        answers = [
            answer
            for n, each in enumerate(measured)
            for answer in self._answers(self.contestants[n].name, asked, judged[n], each)
        ]
        return SuiteEvaluation(result, tuple(answers))

    def _rows(self, asked: Sequence[Try], before: Judged, after: Judged) -> tuple[BehaviourRow, ...]:
        if self.plan.suite is None:
            return ()
        pairs = paired(asked, before, after)
        return behaviour_table(
            self.plan.suite.behaviours, [p for p in pairs if "unjudged" not in (p.before_outcome, p.after_outcome)]
        )

    def _model(self, number: int, asked: Sequence[Try], judged: Judged, measured: ModelMeasures) -> ModelResult:
        gathered = self.gathered[number]
        failures = Counter(
            f"{section}: {reply.cause}"
            for section in SECTIONS
            for reply in gathered.replies[section]
            if isinstance(reply, RequestFailure)
        )
        failures.update(f"not judged: {each[1].why}" for each in judged if each is not None and each[1].outcome == "unjudged")
        failures.update(measured.failures)
        return ModelResult(
            model=self.contestants[number].name,
            fingerprint=self.fingerprints[number],
            behaviours=self._shares(asked, judged),
            measures=tuple(measured.values()),
            confidence=tuple(measured.confidence()),
            failures=dict(sorted(failures.items())),
            unmeasured=dict(sorted(measured.unmeasured.items())),
        )

    def _shares(self, asked: Sequence[Try], judged: Judged) -> tuple[BehaviourShare, ...]:
        sound = [
            (each.trial, found[1])
            for each, found in zip(asked, judged, strict=True)
            if found is not None and found[1].outcome != "unjudged"
        ] if self.plan.suite is not None else []  # fmt: skip
        by_behaviour = {each[0].behaviour: [row for row in sound if row[0].behaviour == each[0].behaviour] for each in sound}
        behaviours = self.plan.suite.behaviours if self.plan.suite is not None else ()
        return tuple(behaviour_share(each, by_behaviour[each.id]) for each in behaviours if each.id in by_behaviour)

    def _judges(self) -> Iterator[JudgeQuality]:
        if self.judge is None:
            return
        for each in self.plan.judges:
            yield self.judge.quality(as_principle(each), each.tests, pairwise=False)
        if self.plan.helpful is not None and len(self.contestants) > 1:
            yield self.judge.quality(as_principle(self.plan.helpful), self.plan.helpful.tests, pairwise=True)

    def _answers(self, model: str, asked: Sequence[Try], judged: Judged, measured: ModelMeasures) -> Iterator[SuiteAnswer]:
        for each, found in zip(asked, judged, strict=True) if self.plan.suite is not None else ():
            if found is not None:
                reply, judgement = found
                yield _as_answer(self.plan.name, model, each.trial.behaviour, each, reply, judgement)
        for section, rows in measured.answered.items():
            for row in rows:
                yield _as_answer(self.plan.name, model, section, row.asked, row.reply, row.judgement, row.score)


def _as_answer(
    suite: str,
    model: str,
    section: str,
    asked: Try,
    reply: Reply,
    judgement: Judgement | None,
    score: float | None = None,
) -> SuiteAnswer:
    return SuiteAnswer(
        suite=suite,
        model=model,
        section=section,
        uid=asked.trial.item.uid,
        cluster=asked.trial.cluster_name,
        temperature=asked.temperature,
        seed=asked.number,
        conversation=reply.conversation,
        reply=reply.text,
        cut=reply.cut,
        outcome=judgement.outcome if judgement else None,
        why=judgement.why if judgement else "",
        score=score,
    )


def _corrected(found: Sequence[SuiteEvaluation], correction: Correction) -> list[SuiteEvaluation]:
    """The p-values of all suites and comparisons, corrected together."""
    p_values = [p for each in found for comparison in each.result.comparisons for p in _p_values(comparison)]
    if correction == "holm":
        corrected = iter(holm(p_values))
    elif correction == "benjamini-hochberg":
        corrected = iter(benjamini_hochberg(p_values))
    else:
        corrected = iter(p_values)
    new: list[SuiteEvaluation] = []
    for each in found:
        comparisons = tuple(_with(comparison, corrected) for comparison in each.result.comparisons)
        changes: Mapping[str, object] = {"comparisons": comparisons, "tests_corrected_for": len(p_values)}
        new.append(replace(each, result=each.result.model_copy(update=changes)))
    return new


def _p_values(comparison: Comparison) -> Iterator[float]:
    yield from (row.mcnemar_p for row in comparison.rows)
    yield from (change.p for change in comparison.measures if change.p is not None)


def _with(comparison: Comparison, corrected: Iterator[float]) -> Comparison:
    """The comparison with its corrected p-values, which come in the order of `_p_values`."""
    rows = tuple(row.model_copy(update={"p_corrected": next(corrected)}) for row in comparison.rows)
    measures: list[MeasureChange] = [
        change if change.p is None else change.model_copy(update={"p_corrected": next(corrected)})
        for change in comparison.measures
    ]
    return comparison.model_copy(update={"rows": rows, "measures": tuple(measures)})
