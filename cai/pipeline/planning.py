"""What a run would do, found out by doing it on engines that compute nothing. Reads only: no weights, no write, no lock.

The stages' own functions are run twice. First every call that is not stored fails: what is asked then is asked whatever the
answers will be, and the rows that fail are the rows to be made. Then every such call is answered by a guess, drawn from the
stored answers of its stage, so that what follows from it is counted too.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property

from cai.data.rows import Rounds
from cai.engines.base import Engine
from cai.engines.opening import open_engine
from cai.evaluation.before_after import evaluate
from cai.evaluation.by_suites import evaluate_suites
from cai.evaluation.gathering import Contestant
from cai.evaluation.judging import JudgeModel
from cai.labels.debate import with_advocate
from cai.loop import run_loop
from cai.pipeline.beside import forecast_beside
from cai.pipeline.changes import Before, Comparison
from cai.pipeline.evaluating import plan_suites
from cai.pipeline.examining import examination
from cai.pipeline.exporting import export_key, is_exported
from cai.pipeline.finished import ORDER, is_current
from cai.pipeline.forecasting import NOT_MADE, ForecastingEngine, StageForecast, Tally
from cai.pipeline.generating import generation_key, label_key, labels
from cai.pipeline.learning import rounds_of, trained_place
from cai.pipeline.measuring import EVALUATION_NAME, evaluation_key, suite_of
from cai.pipeline.plans import Plan, PlannedCalls, PlannedRow, PlannedStage
from cai.pipeline.preflight import Inputs
from cai.pipeline.retraining import Rows, forecast_training
from cai.records import (
    FailureRecord,
    FindingRecord,
    LedgerEntry,
    PreferenceRecord,
    RecordKind,
    RevisionRecord,
    Stage,
    UndecidedRecord,
)
from cai.review.flow import FINISHED, Review, Waiting
from cai.store import RunFolder, Usage


def plan(inputs: Inputs, *, until: Stage = Stage.EVALUATE) -> Plan:
    """Find out what `run(session, until=until)` would do with these inputs.

    Raises:
        StoreError: If the folder is foreign or damaged.
        ModelError: If a model cannot be used after all.
    """
    folder = RunFolder.look_at(inputs.config.run)
    with folder or nullcontext():
        return _Planning(inputs, folder, until).plan()


@dataclass(frozen=True, slots=True)
class _Labelled:
    """What the labels came to: together, every record's outcome."""

    pairs: list[PreferenceRecord] = field(default_factory=list[PreferenceRecord])
    undecided: list[UndecidedRecord] = field(default_factory=list[UndecidedRecord])
    entries: list[LedgerEntry] = field(default_factory=list[LedgerEntry])
    failures: list[FailureRecord] = field(default_factory=list[FailureRecord])
    findings: list[FindingRecord] = field(default_factory=list[FindingRecord])


@dataclass(frozen=True)
class _Made:
    """What the loop and the labels come to."""

    records: list[RevisionRecord]
    failures: list[FailureRecord]
    labels: _Labelled
    review: Review
    rounds: Rounds

    @property
    def waiting(self) -> list[FailureRecord]:
        """The rows that wait for a call."""
        return [each for each in (*self.failures, *self.labels.failures) if each.cause == NOT_MADE]

    @cached_property
    def learned(self) -> tuple[Rows, Waiting]:
        """What is trained on, and what is not before a person has judged it."""
        good = {(e.uid, e.replica) for e in self.labels.entries if e.outcome in FINISHED}
        finished = (record for record in self.records if (record.uid, record.replica) in good)
        learned = (
            list(self.review.records(finished, rounds=self.rounds)),
            list(self.review.pairs(self.labels.pairs, self.labels.undecided)),
        )
        rows = Rows(*learned, judged=self.labels.pairs, certain=not self.waiting)
        return rows, Waiting(self.review.tally.pairs_waiting, self.review.tally.rows_waiting)


class _Planning:
    def __init__(self, inputs: Inputs, folder: RunFolder | None, until: Stage) -> None:
        self._inputs = inputs
        self._folder = folder
        self._until = until
        self._wanted = ORDER[: ORDER.index(until) + 1]
        config = inputs.config
        self._policy = open_engine(config.policy, config.engine)
        same = config.feedback_or_policy == config.policy
        self._feedback = self._policy if same else open_engine(config.feedback_or_policy, config.engine)
        self._generated = generation_key(inputs, self._policy, self._feedback)
        own = config.labels.models
        self._labellers = [open_engine(spec, config.engine) for spec in own] if own else [self._feedback]
        fingerprints, shard = [each.fingerprint for each in self._labellers], inputs.shard is not None
        human = inputs.human.fingerprint if inputs.human else ""
        self._labelled = label_key(config, fingerprints, self._generated, human, of_shard=shard)
        self._certain, self._expected = Tally(), Tally()
        self._review = Review(config.review, {}) if folder is None else Review.of(folder, config.review)

    def plan(self) -> Plan:
        comparison = self._comparison()
        made = self._make(self._certain, guess=False)
        guessed = self._make(self._expected, guess=True)
        stages = [*self._rows_stages(made), *self._forecast_training(made, guessed)]
        if Stage.EVALUATE in self._wanted and (evaluation := self._evaluation(stages, certain=not made.waiting)):
            stages.append(evaluation)
        places = {item.uid: place for place, item in enumerate(self._inputs.items)}
        rows = [
            PlannedRow(row.uid, row.replica, row.stage, comparison.why(row.uid) if comparison else "new run")
            for row in sorted(made.waiting, key=lambda row: (places[row.uid], row.replica))
        ]
        return Plan(
            folder=self._inputs.config.run,
            begun=self._folder is not None,
            changes=tuple(comparison.changes()) if comparison else (),
            stages=tuple(stages),
            calls=tuple(self._calls()),
            rows=tuple(rows),
            all_rows=len(self._inputs.training_items) * self._inputs.config.loop.replicas,
            waiting=made.learned[1],
            beside=tuple(forecast_beside(self._inputs, self._folder, stages, made.learned[0])),
        )

    def _comparison(self) -> Comparison | None:
        if self._folder is None:
            return None
        config = self._inputs.config
        engines = [self._policy, self._feedback, *(self._labellers if config.labels.models else [])]
        models = {role: engine.fingerprint for role, engine in zip(config.models, engines, strict=True)}
        return Comparison(Before.read(self._folder), self._inputs, models)

    def _is_current(self, stage: Stage, key: str) -> bool:
        return self._folder is not None and is_current(self._folder, stage, key)

    def _engine(self, engine: Engine, tally: Tally, *, guess: bool) -> ForecastingEngine:
        return ForecastingEngine(engine, self._folder.calls if self._folder else None, tally, guess=guess)

    # ---- loop, labels, data sets

    def _make(self, tally: Tally, *, guess: bool) -> _Made:
        """The records and labels, read where they are finished, else made with what is stored and, with `guess`, guessed."""
        inputs, folder = self._inputs, self._folder
        feedback = self._engine(self._feedback, tally, guess=guess)
        failures: list[FailureRecord] = []
        if folder is not None and self._is_current(Stage.GENERATE, self._generated):
            records = list(folder.records(RecordKind.REVISION, RevisionRecord))
        else:
            policy = self._engine(self._policy, tally, guess=guess)
            config = inputs.config
            made = list(run_loop(inputs.training_items, inputs.constitution, policy, feedback, config.loop, seed=config.seed))
            records = [each for each in made if isinstance(each, RevisionRecord)]
            failures = [each for each in made if isinstance(each, FailureRecord)]
        if Stage.LABEL not in self._wanted:
            labelled = _Labelled()
        elif folder is not None and self._is_current(Stage.LABEL, self._labelled):
            pairs = folder.records(RecordKind.PREFERENCE, PreferenceRecord)
            undecided = folder.records(RecordKind.UNDECIDED, UndecidedRecord)
            findings = folder.records(RecordKind.FINDING, FindingRecord)
            labelled = _Labelled(list(pairs), list(undecided), list(folder.ledger()), findings=list(findings))
        else:
            labellers = with_advocate(
                [self._engine(each, tally, guess=guess) for each in self._labellers],
                lambda: self._engine(self._policy, tally, guess=guess),
                inputs.config.labels.debate,
            )
            examination(inputs, labellers)
            sifted = list(labels(lambda: records, inputs, labellers))
            found = [each.labels for each in sifted]
            labelled = _Labelled(
                pairs=[pair for each in found for pair in each.pairs],
                undecided=[pair for each in found for pair in each.undecided],
                entries=[each.entry for each in found],
                failures=[each.failure for each in found if each.failure],
                findings=[finding for each in sifted for finding in each.findings],
            )
        return _Made(records, failures, labelled, self._review.with_findings(labelled.findings), rounds_of(inputs.config))

    def _rows_stages(self, made: _Made) -> list[PlannedStage]:
        waiting = {"loop": 0, "labels": 0}
        for failure in made.waiting:
            waiting["labels" if failure.stage == Stage.LABEL else "loop"] += 1
        keys = {Stage.GENERATE: self._generated, Stage.LABEL: self._labelled}
        keys[Stage.EXPORT] = export_key(self._inputs, self._labelled, self._review.fingerprint)
        stages: list[PlannedStage] = []
        for stage in (each for each in self._wanted if each in keys):
            whole = stage is not Stage.EXPORT or (self._folder is not None and is_exported(self._folder))
            if self._is_current(stage, keys[stage]) and whole:
                stages.append(PlannedStage(stage, "finished", "nothing it depends on has changed"))
                continue
            rows = {Stage.GENERATE: waiting["loop"], Stage.LABEL: waiting["loop"] + waiting["labels"]}.get(stage, 0)
            if stage is Stage.EXPORT:
                why = "written again from the records"
            elif rows:
                why = f"{rows} row{'s' if rows > 1 else ''} to be made"
            else:
                why = "put together again; every answer is stored"
            stages.append(PlannedStage(stage, "to do", why))
        return stages

    # ---- training and evaluation

    def _forecast_training(self, made: _Made, guessed: _Made) -> list[PlannedStage]:
        stages: list[PlannedStage] = []
        for stage in (each for each in self._wanted if each in (Stage.SFT, Stage.DPO)):
            again = any(each.state == "to do" for each in stages)
            found = forecast_training(
                self._inputs,
                stage,
                made.learned[0],
                guessed.learned[0],
                start_changes=again,
                asked_for=self._until is stage,
            )
            stages += [found] if found else []
        return stages

    def _evaluation(self, stages: list[PlannedStage], *, certain: bool) -> PlannedStage | None:
        config = self._inputs.config
        trained = [each for each in stages if each.trains]
        suite = suite_of(self._inputs, self._feedback)
        plans = plan_suites(config.evaluation.suites, self._suite_judge(self._feedback), config.evaluation, seed=config.seed)
        if not trained or (suite is None and not plans):
            return None
        again = any(each.state == "to do" for each in trained)
        place = trained_place(config, trained[-1].stage)
        assert place is not None, "a stage that trains leaves a model"
        after = self._policy if again else open_engine(place, config.engine)
        if not again and all(each.state == "finished" for each in stages if each.stage in (Stage.GENERATE, Stage.LABEL)):
            judge = config.evaluation.judge
            other = open_engine(judge, config.engine) if judge is not None and plans else None
            key = evaluation_key(self._inputs, suite, self._policy, after, self._feedback, plans, other)
            if self._is_current(Stage.EVALUATE, key) and (config.run / EVALUATION_NAME).is_file() == (suite is not None):
                return PlannedStage(Stage.EVALUATE, "finished", "nothing it depends on has changed")
        for tally, guess in ((self._certain, False), (self._expected, True)):
            if not guess and again and not certain:
                continue  # should no pair change, nothing is trained
            calls = self._folder.calls if self._folder and not again else None
            answers = ForecastingEngine(after, calls, tally, guess=guess, fingerprint="to be trained" if again else None)
            policy, feedback = (self._engine(each, tally, guess=guess) for each in (self._policy, self._feedback))
            if (judged := suite_of(self._inputs, feedback)) is not None:
                evaluate(policy, answers, judged, config.evaluation, seed=config.seed)
            self._forecast_suites(policy, answers, feedback)
        return PlannedStage(Stage.EVALUATE, "to do", "the trained model changes" if again else "measured again")

    def _forecast_suites(self, policy: Engine, answers: Engine, feedback: Engine) -> None:
        config = self._inputs.config
        judge = self._suite_judge(feedback)
        plans = plan_suites(config.evaluation.suites, judge, config.evaluation, seed=config.seed)
        if plans:
            evaluate_suites(
                plans,
                [Contestant("before", lambda: policy), Contestant("after", lambda: answers)],
                judge,
                config.evaluation,
                max_tokens=config.evaluation.max_tokens,
                seed=config.seed,
            )

    def _suite_judge(self, feedback: Engine) -> JudgeModel:
        """Stands for the judge; another model than the feedback model is taken to be asked as often."""
        config = self._inputs.config
        return JudgeModel("judge", lambda: feedback, ground_tokens=config.labels.ground_tokens, seed=config.seed)

    # ---- calls

    def _calls(self) -> list[PlannedCalls]:
        usage = self._folder.usage() if self._folder else {}
        found: list[PlannedCalls] = []
        for name, expected in self._expected.stages.items():
            certain = self._certain.stages.get(name, StageForecast())
            cost = usage.get(name, Usage())
            known = cost.calls - cost.failures
            found.append(
                PlannedCalls(
                    name=name,
                    reused=expected.reused,
                    certain=certain.calls,
                    calls=expected.calls,
                    prompt_tokens=expected.prompt_tokens,
                    new_tokens=expected.new_tokens,
                    most_new_tokens=expected.most_new_tokens,
                    seconds=round(expected.calls * cost.seconds / known, 1) if known else None if expected.calls else 0.0,
                )
            )
        return found
