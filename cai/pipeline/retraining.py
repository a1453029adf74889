"""Whether a training stage would train, on how many steps and for how long. Reads a tokenizer and the folder of the stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cai.config.settings import RunConfig
from cai.data.filters.held_out_prompts import HeldOutPrompts
from cai.data.rows import sft_records
from cai.errors import TrainingError
from cai.pipeline.learning import trained_place, unjudged
from cai.pipeline.mixing import held_out_prompts
from cai.pipeline.plans import PlannedStage
from cai.pipeline.preflight import Inputs
from cai.records import PreferenceRecord, RevisionRecord, Stage
from cai.training.plan import plan_steps

if TYPE_CHECKING:
    from cai.training.course import Course


@dataclass(frozen=True, slots=True)
class Rows:
    """Finished records and pairs that may be learned; `certain` when no call is yet to be made for them.

    `judged` are all labelled pairs, those included that people hold back or turn round.
    """

    records: Sequence[RevisionRecord]
    pairs: Sequence[PreferenceRecord]
    judged: Sequence[PreferenceRecord]
    certain: bool


def forecast_training(
    inputs: Inputs, stage: Stage, made: Rows, guessed: Rows, *, start_changes: bool, asked_for: bool
) -> PlannedStage | None:
    """The stage as it would be; None where it is not configured, or has no pair to train on and was not asked for by itself.

    Args:
        inputs: Of the run.
        stage: `Stage.SFT` or `Stage.DPO`.
        made: The rows as far as they are known.
        guessed: The rows with guesses for what is not.
        start_changes: The model it starts from will be another one.
        asked_for: The run ends with this stage.
    """
    config = inputs.config
    settings = config.sft if stage is Stage.SFT else config.dpo
    if settings is None or (stage is Stage.DPO and not guessed.pairs and not asked_for):
        return None
    kept, per_step = _result(config.run / stage), _seconds_per_step(config.run / stage)
    if not made.certain or start_changes:
        if stage is Stage.DPO and config.dpo is not None:
            rows, batch, why = len(guessed.pairs), config.dpo.batch_pairs, "trained again if a pair changes"
        else:
            assert config.sft is not None, "asked for by the configuration"
            own = sum(1 for _ in sft_records(guessed.records, rounds=config.sft.rounds))
            # As if rows of files were as long as the run's own.
            rows = round(own / (1 - sum(each.share for each in config.sft.mix)))
            batch, why = config.sft.batch_rows, "trained again if a reply changes"
        rows = max(1, round(rows * (1 - settings.holdout_share)))
        steps = len(plan_steps([1] * rows, epochs=settings.epochs, batch=batch, seed=settings.seed))
        why = "not trained yet" if not kept else "the model it starts from changes" if start_changes else why
        return PlannedStage(stage, "to do", f"{why}{_to_be_mixed(config, stage)}", _seconds(steps, per_step))
    try:
        course = course_of(config, stage, made, held_out_prompts(inputs) if stage is Stage.SFT else None)
    except TrainingError as error:
        return PlannedStage(stage, "to do", f"stops the run: {error.problem}", 0.0)
    if kept.get("fingerprint") == course.fingerprint():
        return PlannedStage(stage, "finished", f"the same rows and settings{_mixed(course)}")
    why = "not trained yet" if not kept else "rows or settings changed"
    return PlannedStage(stage, "to do", f"{why}{_mixed(course)}", _seconds(len(course.plan), per_step))


def _to_be_mixed(config: RunConfig, stage: Stage) -> str:
    """What is to be mixed in, before there are rows to mix it into."""
    mix = config.sft.mix if config.sft is not None and stage is Stage.SFT else ()
    return "".join(f"; {each.share:.1%} of what is learned will be from {each.path}" for each in mix)


def _mixed(course: Course) -> str:
    return "".join(f"; {each.rows} rows mixed in are {each.share:.1%} of what is learned: {each.path}" for each in course.mixed)


def course_of(config: RunConfig, stage: Stage, made: Rows, evaluation_prompts: HeldOutPrompts | None = None) -> Course:
    """What a stage would train on these rows; none that is mixed in teaches one of the `evaluation_prompts`."""
    from cai.training.dpo import dpo_course
    from cai.training.sft import sft_course

    if stage is Stage.SFT:
        assert config.sft is not None, "asked for by the configuration"
        records = sft_records(made.records, rounds=config.sft.rounds)
        return sft_course(config.policy, records, config.sft, evaluation_prompts)
    assert config.dpo is not None, "asked for by the configuration"
    start = trained_place(config, Stage.SFT) or config.policy
    return dpo_course(start, made.pairs, unjudged(made.records, made.judged), config.dpo)


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
