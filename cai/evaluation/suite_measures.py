"""The figures of one model on one suite besides its behaviours, and how they changed: confidence, drift, preference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cai.engines.base import RequestFailure
from cai.evaluation import measures as figures
from cai.evaluation.answering import Reply, Sampling, Try
from cai.evaluation.before_after import judged_answers
from cai.evaluation.checks import stated_confidence
from cai.evaluation.confidence import Belief, arrays, confidence_result, expected_error
from cai.evaluation.data_suites import SuitePlan, as_principle
from cai.evaluation.drift import LogRatio, alike_share, closing, length_words, log_ratios, nats_per_token, numbered, opening
from cai.evaluation.gathering import UNSCORED, Gathered, Section, tries_of
from cai.evaluation.judging import JudgeModel, Preference
from cai.evaluation.measures import Measure
from cai.evaluation.suite_results import ConfidenceResult, MeasureChange, MeasureValue
from cai.evaluation.suites import Judgement
from cai.evaluation.tool_turns import has_bad_call
from constitution.messages import tools_of

Ways = dict[str, list[Belief]]
_EDGES: tuple[tuple[Measure, Callable[[str], str]], ...] = ((figures.OPENINGS, opening), (figures.CLOSINGS, closing))


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """One answer of a section that counts no behaviour."""

    asked: Try
    reply: Reply
    judgement: Judgement | None = None
    score: float | None = None

    @property
    def key(self) -> str:
        """The same for every model."""
        return f"{self.asked.trial.item.uid}/{self.asked.temperature:g}/{self.asked.number}"

    @property
    def cluster(self) -> str:
        return self.asked.trial.cluster_name


@dataclass
class ModelMeasures:
    """What the figures of one model are made of. `unmeasured`: measure → why there is none."""

    answered: dict[Section, list[AnsweredRow]]
    beliefs: Ways = field(default_factory=dict[str, list[Belief]])
    ratios: list[tuple[str, LogRatio]] = field(default_factory=list[tuple[str, LogRatio]])
    """Cluster and log-ratio to the first model of each drift answer."""
    bad_calls: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    """Of each conversation with tools: its cluster, and 1 where a tool was called as it cannot be called, else 0."""
    least: dict[str, float] = field(default_factory=dict[str, float])
    unparsed: int = 0
    unmeasured: dict[str, str] = field(default_factory=dict[str, str])
    failures: Counter[str] = field(default_factory=Counter[str])

    @classmethod
    def of(
        cls, plan: SuitePlan, sampling: Sampling, gathered: Gathered, *, start: Gathered | None, judge: JudgeModel | None
    ) -> ModelMeasures:
        """Of what one model said; `start` is what the first model said, None for that one itself."""
        answered: dict[Section, list[AnsweredRow]] = {
            section: _rows(tries_of(plan, section, sampling), gathered.replies[section]) for section in ("drift",)
        }
        made = cls(answered)
        made._add_bad_calls(plan, sampling, gathered)
        made._add_token_beliefs(plan, gathered)
        made._add_stated(plan, sampling, gathered)
        if start is not None:
            made._add_ratios(gathered)
        made._add_preferences(plan, sampling, gathered, start, judge)
        return made

    def _add_bad_calls(self, plan: SuitePlan, sampling: Sampling, gathered: Gathered) -> None:
        for row in _rows(tries_of(plan, "behaviours", sampling), gathered.replies["behaviours"]):
            start = row.asked.trial.item.messages
            if tools_of(start):
                bad = has_bad_call(start, row.reply.conversation, row.reply.text)
                self.bad_calls[f"{row.asked.trial.behaviour}/{row.key}"] = row.cluster, float(bad)

    def _add_token_beliefs(self, plan: SuitePlan, gathered: Gathered) -> None:
        if not plan.questions:
            return
        self.beliefs["token"] = [each for each in gathered.beliefs if isinstance(each, Belief)]
        self.least["token"] = 1 / max(len(question.options) for question in plan.questions)
        self._count_failures("token confidence", gathered.beliefs)

    def _add_stated(self, plan: SuitePlan, sampling: Sampling, gathered: Gathered) -> None:
        if plan.stated is None:
            return
        asked = tries_of(plan, "stated", sampling)
        rows: list[AnsweredRow] = []
        for each, found in zip(asked, judged_answers(plan.stated, asked, gathered.replies["stated"]), strict=True):
            if found is not None:
                said = stated_confidence(found[0].text)
                rows.append(AnsweredRow(each, found[0], found[1], said[0] if said else None))
        self.answered["stated"] = rows
        sound = [row for row in rows if row.judgement is not None and row.judgement.outcome != "unjudged"]
        self.failures["stated: not judged"] += len(rows) - len(sound)
        self.failures = +self.failures
        self.unparsed = sum(row.score is None for row in sound)
        self.least["stated"] = 0.0
        self.beliefs["stated"] = [
            Belief(
                row.key,
                row.cluster,
                row.score,
                row.judgement is not None and row.judgement.outcome == "good",
                by_word=(said := stated_confidence(row.reply.text)) is not None and not said[1],
            )
            for row in sound
            if row.score is not None
        ]
        if sound and not self.beliefs["stated"]:
            self.unmeasured["stated confidence"] = f"none of {len(sound)} answers says how sure it is"

    def _add_ratios(self, gathered: Gathered) -> None:
        found = log_ratios(gathered.own, gathered.by_start)
        for row_or_failure, reply in zip(found, _with_rows(self.answered["drift"], gathered.replies["drift"]), strict=True):
            if isinstance(row_or_failure, LogRatio) and reply is not None:
                self.ratios.append((reply.cluster, row_or_failure))
        self._count_failures("KL", found)

    def _add_preferences(
        self, plan: SuitePlan, sampling: Sampling, gathered: Gathered, start: Gathered | None, judge: JudgeModel | None
    ) -> None:
        if plan.helpful is None:
            return
        rows = _rows(tries_of(plan, "preference", sampling), gathered.replies["preference"])
        self.answered["preference"] = rows
        if start is None or judge is None:
            return
        others = {row.key: row for row in _rows(tries_of(plan, "preference", sampling), start.replies["preference"])}
        pairs = [(row, others[row.key]) for row in rows if row.key in others]
        asked = [(row.reply.conversation, row.reply.text, other.reply.text) for row, other in pairs]
        scored: dict[str, float] = {}
        for (row, _), found in zip(pairs, judge.preferences(asked, as_principle(plan.helpful)), strict=True):
            if isinstance(found, Preference):
                scored[row.key] = found.score
            else:
                self.failures[f"preference not judged: {found.cause}"] += 1
        self.answered["preference"] = [replace(row, score=scored.get(row.key)) for row in rows]
        if rows and not scored:
            self.unmeasured[figures.WIN_RATE.label] = "the judge compared no pair"

    def _count_failures(self, what: str, found: Sequence[object]) -> None:
        failed = [each for each in found if isinstance(each, RequestFailure)]
        without = [each for each in failed if each.cause == UNSCORED]
        self.failures.update(f"{what}: {each.cause}" for each in failed if each.cause != UNSCORED)
        if without:
            self.unmeasured[what] = without[0].detail
        elif found and len(failed) == len(found):
            self.unmeasured[what] = "no answer could be scored"

    # ---- of this model alone

    def values(self) -> Iterator[MeasureValue]:
        """Every figure there is."""
        drift = self.answered["drift"]
        clusters = [row.cluster for row in drift]
        if drift:
            yield figures.value(figures.LENGTH, [float(length_words(row.reply.text)) for row in drift], clusters)
            for measure, edge in _EDGES:
                yield figures.statistic_value(measure, _alike(drift, edge), len(drift), clusters)
        if self.bad_calls:
            clusters, bad = zip(*self.bad_calls.values(), strict=True)
            yield figures.value(figures.BAD_CALLS, bad, clusters)
        yield from (figure for figure, _ in self._kl())
        yield from (figure for figure, _ in self._wins())

    def confidence(self) -> Iterator[ConfidenceResult]:
        """How sure, against how right, in each way that was measured."""
        for way, beliefs in self.beliefs.items():
            if beliefs:
                unparsed = self.unparsed if way == "stated" else 0
                yield confidence_result(way, beliefs, least=self.least[way], unparsed=unparsed)

    def _kl(self) -> Iterator[tuple[MeasureValue, MeasureChange]]:
        if not self.ratios:
            return
        clusters = [cluster for cluster, _ in self.ratios]
        nats_N = np.array([ratio.nats for _, ratio in self.ratios])
        tokens_N = np.array([ratio.tokens for _, ratio in self.ratios])
        per_token = figures.statistic_value(
            figures.KL, lambda index: nats_per_token(nats_N[index], tokens_N[index]), len(clusters), clusters
        )
        per_answer = figures.value(figures.KL_ANSWER, nats_N.tolist(), clusters)
        for measure, found in ((figures.KL, per_token), (figures.KL_ANSWER, per_answer)):
            yield found, figures.against(measure, found, 0.0, None)

    def _wins(self) -> Iterator[tuple[MeasureValue, MeasureChange]]:
        rows = [row for row in self.answered.get("preference", ()) if row.score is not None]
        if rows:
            scores, clusters = [row.score or 0.0 for row in rows], [row.cluster for row in rows]
            found = figures.value(figures.WIN_RATE, scores, clusters)
            yield found, figures.win_change(found, scores, clusters)

    # ---- against the first model

    def changes(self, first: ModelMeasures) -> Iterator[MeasureChange]:
        """Every figure that both have, on what both answered."""
        yield from self._drift_changes(first)
        both = [(*first.bad_calls[key], bad) for key, (_, bad) in self.bad_calls.items() if key in first.bad_calls]
        if both:
            clusters, before, after = zip(*both, strict=True)
            yield figures.mean_change(figures.BAD_CALLS, before, after, clusters)
        yield from (change for _, change in self._kl())
        for way in self.beliefs:
            yield from self._confidence_changes(way, first)
        yield from (change for _, change in self._wins())

    def _drift_changes(self, first: ModelMeasures) -> Iterator[MeasureChange]:
        mine = {row.key: row for row in self.answered["drift"]}
        both = [(row, mine[row.key]) for row in first.answered["drift"] if row.key in mine]
        if not both:
            return
        before, after = [one for one, _ in both], [other for _, other in both]
        clusters = [row.cluster for row in before]
        lengths = [[float(length_words(row.reply.text)) for row in side] for side in (before, after)]
        yield figures.mean_change(figures.LENGTH, lengths[0], lengths[1], clusters)
        for measure, edge in _EDGES:
            yield figures.statistic_change(measure, _alike(before, edge), _alike(after, edge), len(both), clusters)

    def _confidence_changes(self, way: str, first: ModelMeasures) -> Iterator[MeasureChange]:
        mine = {belief.key: belief for belief in self.beliefs[way]}
        both = [(each, mine[each.key]) for each in first.beliefs.get(way, ()) if each.key in mine]
        if not both:
            return
        (p_before_N, right_before_N), (p_after_N, right_after_N) = (arrays([pair[side] for pair in both]) for side in (0, 1))
        clusters, least = [one.cluster for one, _ in both], self.least[way]
        squares = [((p_before_N - right_before_N) ** 2).tolist(), ((p_after_N - right_after_N) ** 2).tolist()]
        yield figures.mean_change(figures.BRIER[way], squares[0], squares[1], clusters)
        gaps = [(p_before_N - right_before_N).tolist(), (p_after_N - right_after_N).tolist()]
        yield figures.mean_change(figures.GAP[way], gaps[0], gaps[1], clusters)
        yield figures.statistic_change(
            figures.ECE[way],
            lambda index: expected_error(p_before_N[index], right_before_N[index], least=least),
            lambda index: expected_error(p_after_N[index], right_after_N[index], least=least),
            len(both),
            clusters,
        )


def _rows(asked: Sequence[Try], replies: Sequence[Reply | RequestFailure]) -> list[AnsweredRow]:
    return [AnsweredRow(each, reply) for each, reply in zip(asked, replies, strict=True) if isinstance(reply, Reply)]


def _with_rows(rows: Sequence[AnsweredRow], replies: Sequence[Reply | RequestFailure]) -> Iterator[AnsweredRow | None]:
    """The row of each reply, None where it failed."""
    answered = iter(rows)
    for reply in replies:
        yield next(answered) if isinstance(reply, Reply) else None


def _alike(rows: Sequence[AnsweredRow], edge: Callable[[str], str]) -> figures.Statistic:
    units_N = numbered([edge(row.reply.text) for row in rows])
    clusters_N = numbered([row.cluster for row in rows])
    return lambda index: alike_share(units_N[index], clusters_N[index])
