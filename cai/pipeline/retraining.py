"""Whether a training stage would train, on how many steps and for how long. Reads a tokenizer and the folder of the stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cai.config.settings import RunConfig
from cai.data.rows import sft_records
from cai.errors import TrainingError
from cai.pipeline.learning import trained_place, unjudged
from cai.pipeline.plans import PlannedStage
from cai.records import PreferenceRecord, RevisionRecord, Stage
from cai.training.plan import plan_steps

if TYPE_CHECKING:
    from cai.training.course import Course


@dataclass(frozen=True, slots=True)
class Rows:
    """Finished records and pairs; `certain` when no call is yet to be made for them."""

    records: Sequence[RevisionRecord]
    pairs: Sequence[PreferenceRecord]
    certain: bool


def forecast_training(
    config: RunConfig, stage: Stage, made: Rows, guessed: Rows, *, start_changes: bool, asked_for: bool
) -> PlannedStage | None:
    """The stage as it would be; None where it is not configured, or has no pair to train on and was not asked for by itself.

    Args:
        config: Of the run.
        stage: `Stage.SFT` or `Stage.DPO`.
        made: The rows as far as they are known.
        guessed: The rows with guesses for what is not.
        start_changes: The model it starts from will be another one.
        asked_for: The run ends with this stage.
    """
    settings = config.sft if stage is Stage.SFT else config.dpo
    if settings is None or (stage is Stage.DPO and not guessed.pairs and not asked_for):
        return None
    kept, per_step = _result(config.run / stage), _seconds_per_step(config.run / stage)
    if not made.certain or start_changes:
        if stage is Stage.DPO and config.dpo is not None:
            rows, batch, why = len(guessed.pairs), config.dpo.batch_pairs, "trained again if a pair changes"
        else:
            rows, batch, why = (
                len(guessed.records),
                config.sft.batch_rows if config.sft else 1,
                "trained again if a reply changes",
            )
        steps = len(plan_steps(rows, epochs=settings.epochs, batch=batch, seed=settings.seed))
        why = "not trained yet" if not kept else "the model it starts from changes" if start_changes else why
        return PlannedStage(stage, "to do", why, _seconds(steps, per_step))
    try:
        course = _course(config, stage, made)
    except TrainingError as error:
        return PlannedStage(stage, "to do", f"stops the run: {error.problem}", 0.0)
    if kept.get("fingerprint") == course.fingerprint():
        return PlannedStage(stage, "finished", "the same rows and settings")
    why = "not trained yet" if not kept else "rows or settings changed"
    return PlannedStage(stage, "to do", why, _seconds(len(course.plan), per_step))


def _course(config: RunConfig, stage: Stage, made: Rows) -> Course:
    from cai.training.dpo import dpo_course
    from cai.training.sft import sft_course

    if stage is Stage.SFT:
        assert config.sft is not None, "asked for by the configuration"
        return sft_course(config.policy, sft_records(made.records), config.sft)
    assert config.dpo is not None, "asked for by the configuration"
    start = trained_place(config, Stage.SFT) or config.policy
    return dpo_course(start, made.pairs, unjudged(made.records, made.pairs), config.dpo)


def _seconds(steps: int, per_step: float | None) -> float | None:
    return None if per_step is None else round(steps * per_step, 1)


def _seconds_per_step(folder: Path) -> float | None:
    kept = _result(folder)
    steps = int(kept.get("steps", 0)) - int(kept.get("resumed_from_step", 0))
    return float(kept["seconds"]) / steps if steps > 0 else None


def _result(folder: Path) -> dict[str, Any]:
    """What the last finished training in a folder wrote of itself, or {}."""
    try:
        return cast("dict[str, Any]", json.loads((folder / "training.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
