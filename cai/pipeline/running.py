"""All stages of a run in order, each resumed where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cai.evaluation.results import EvaluationResult
from cai.labels.quality import LabelQuality
from cai.loop import GateTally
from cai.pipeline.exporting import export
from cai.pipeline.generating import generate, label
from cai.pipeline.learning import newest_spec, train_dpo_stage, train_sft_stage
from cai.pipeline.measuring import measure
from cai.pipeline.session import ORDER, Session
from cai.records import Outcome, RecordKind, Stage
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
        model: Folder of the trained model.
        report: The page.
    """

    folder: Path
    ledger: dict[Outcome, int]
    reasons: dict[tuple[Outcome, str], int]
    gate: GateTally | None
    quality: LabelQuality | None
    training: dict[Stage, TrainingResult]
    evaluation: EvaluationResult | None
    model: Path | None
    report: Path

    @property
    def failed_rows(self) -> int:
        return self.ledger[Outcome.FAILED]


def run(session: Session, *, until: Stage = Stage.EVALUATE) -> RunSummary:
    """Run every stage up to and with `until`, then write the report. What is finished on the same inputs is not done again.

    A whole run without a single pair ends without preference training; asked for by itself, that training is refused.

    Raises:
        CaiError: Whatever stops the run; finished work is kept, and the same call goes on from there.
    """
    from cai.report import write_report

    config = session.inputs.config
    training: dict[Stage, TrainingResult] = {}
    evaluation: EvaluationResult | None = None
    for stage in ORDER[: ORDER.index(until) + 1]:
        with session.meter.phase(stage):
            match stage:
                case Stage.GENERATE:
                    generate(session)
                    session.write_manifest()
                    session.tell_rows(stage)
                case Stage.LABEL:
                    label(session)
                    session.tell_rows(stage)
                case Stage.EXPORT:
                    export(session)
                case Stage.SFT if config.sft is not None:
                    training[stage] = train_sft_stage(session)
                case Stage.DPO if config.dpo is not None and (
                    until is Stage.DPO or session.folder.count_records(RecordKind.PREFERENCE)
                ):
                    training[stage] = train_dpo_stage(session)
                case Stage.EVALUATE:
                    evaluation = measure(session)
                case _:
                    pass
    session.folder.calls.flush()
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
        evaluation=evaluation,
        model=Path(trained.adapter or trained.name) if trained else None,
        report=write_report(session.folder),
    )
