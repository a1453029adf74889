"""All stages of a run in order, each resumed where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.evaluation.results import EvaluationResult
from cai.evaluation.suite_results import SuiteResult
from cai.labels.quality import LabelQuality
from cai.loop import GateTally
from cai.pipeline.exporting import export, review_of
from cai.pipeline.finished import ORDER
from cai.pipeline.generating import check_labellers, generate, label
from cai.pipeline.learning import newest_spec, rounds_of, train_dpo_stage, train_sft_stage, trained_spec
from cai.pipeline.measuring import Measured, measure
from cai.pipeline.session import Session
from cai.records import BAD_CALLS_KEY, Outcome, Stage
from cai.review.flow import NOTHING_WAITS, Waiting, waiting
from cai.training.results import TrainingResult


@dataclass(frozen=True)
class RunSummary:
    """How a run stands.

    Args:
        folder: Of the run.
        ledger: Outcome → items; every input row is in exactly one of them.
        reasons: The same, with reasons.
        gate: What the gate did; None without one.
        quality: Of the labels; None before the label stage.
        training: Stage → result.
        evaluation: Before and after; None when nothing was trained or nothing held out.
        suites: What the behaviour suites found.
        model: Folder of the trained model.
        report: The page.
        bad_calls: Revisions left out since they call a tool as it cannot be called.
    waiting: What is not learned before a person has judged it; false where nothing waits.
    """

    folder: Path
    ledger: dict[Outcome, int]
    reasons: dict[tuple[Outcome, str], int]
    gate: GateTally | None
    quality: LabelQuality | None
    training: dict[Stage, TrainingResult]
    evaluation: EvaluationResult | None
    suites: tuple[SuiteResult, ...]
    model: Path | None
    report: Path
    waiting: Waiting = NOTHING_WAITS
    bad_calls: int = 0

    @property
    def failed_rows(self) -> int:
        return self.ledger[Outcome.FAILED]


def run(session: Session, *, until: Stage = Stage.EVALUATE) -> RunSummary:
    """Run every stage up to and with `until`, then write the report. What is finished on the same inputs is not done again.

    A whole run without a single pair ends without preference training, and one whose rows all wait for review without
    supervised training; asked for by itself, such a training is refused.

    Raises:
        CaiError: Whatever stops the run; finished work is kept, and the same call goes on from there.
    """
    from cai.report import write_report

    config = session.inputs.config
    training: dict[Stage, TrainingResult] = {}
    measured = Measured()
    if until is not Stage.GENERATE:
        with session.meter.phase(Stage.LABEL):
            check_labellers(session)
    for stage in ORDER[: ORDER.index(until) + 1]:
        with session.meter.phase(stage):
            match stage:
                case Stage.GENERATE:
                    generate(session)
                    session.write_manifest()
                    session.tell_rows(stage)
                    session.tracking.note("generation", _summary(session, stage))
                case Stage.LABEL:
                    label(session)
                    session.tell_rows(stage)
                    session.tracking.note("labels", _summary(session, stage))
                case Stage.EXPORT:
                    export(session)
                case Stage.SFT if config.sft is not None and (until is Stage.SFT or not _all_rows_wait(session)):
                    training[stage] = train_sft_stage(session)
                case Stage.DPO if config.dpo is not None and (
                    until is Stage.DPO or next(review_of(session).pairs_of(session.folder), None) is not None
                ):
                    training[stage] = train_dpo_stage(session)
                case Stage.SFT | Stage.DPO if trained_spec(session, stage) is not None:
                    session.begin(stage)  # what this model has learned may not be learned any more
                case Stage.EVALUATE:
                    measured = measure(session)
                    for name, row in measured.rows:
                        session.tracking.note(f"evaluation/{name}", row.model_dump(mode="json"))
                case _:
                    pass
    session.folder.calls.flush()
    session.write_manifest()
    generated = session.folder.stage(Stage.GENERATE)
    labelled = session.folder.stage(Stage.LABEL)
    trained = newest_spec(session) if training else None
    return RunSummary(
        folder=session.folder.path,
        ledger=session.folder.ledger_counts(),
        reasons=session.folder.ledger_reasons(),
        gate=GateTally.model_validate(generated.summary["gate"]) if generated and "gate" in generated.summary else None,
        quality=LabelQuality.model_validate(labelled.summary) if labelled else None,
        training=training,
        evaluation=measured.evaluation,
        suites=measured.suites,
        model=Path(trained.adapter or trained.name) if trained else None,
        report=write_report(session.folder),
        waiting=waiting(session.folder, review_of(session)) if labelled else NOTHING_WAITS,
        bad_calls=generated.summary.get(BAD_CALLS_KEY, 0) if generated else 0,
    )


def _all_rows_wait(session: Session) -> bool:
    review = review_of(session)
    return (
        next(review.records_of(session.folder, rounds=rounds_of(session.inputs.config)), None) is None
        and review.tally.rows_waiting > 0
    )


def _summary(session: Session, stage: Stage) -> dict[str, Any]:
    finished = session.folder.stage(stage)
    return finished.summary if finished is not None else {}
