"""Preference training: pairs in, a better policy out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import TrainerCallback

from cai.errors import TrainingError
from cai.models.spec import ModelSpec
from cai.records import PreferenceRecord, SFTRecord
from cai.training.course import Course, run_course
from cai.training.held_out import refuse_empty_sides, split
from cai.training.loss_table import LOSSES
from cai.training.objectives import PreferenceObjective
from cai.training.plan import plan_steps
from cai.training.policy import open_policy
from cai.training.results import OnEvent, TrainingResult
from cai.training.rows import describe_dropped, encode_pairs, encode_replies
from cai.training.settings import DPOSettings


def train_dpo(
    model_spec: ModelSpec,
    pairs: Iterable[PreferenceRecord],
    anchors: Iterable[SFTRecord],
    settings: DPOSettings,
    output_folder: Path | str,
    *,
    resume: bool = True,
    on_event: OnEvent | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7) with soft labels, started from and held near `model_spec`.

    The result is a pure function of model, rows and settings, whether or not the run was interrupted (bit for bit on a CPU in
    float32). Kill it at any moment and call it again: it goes on from the last whole checkpoint, and a finished run is
    returned at once.

    Args:
        model_spec: The policy before training, which is also the reference.
        pairs: Labelled pairs; `p_chosen` is used as a soft label.
        anchors: Replies to be kept as they are: drafts that no critique objected to. May be empty.
        settings: Of this stage.
        output_folder: What it holds afterwards is described in `cai.training.folder`.
        resume: Go on with what an interrupted run with the same model, rows and settings left there; False: start anew.
        on_event: Told after every forward pass of the reference and every optimizer step.
        callbacks: More callbacks for transformers' Trainer.

    Raises:
        ModelError: The model cannot be found or loaded.
        TrainingError: No pair is left to train on; the loss stopped being finite; the folder cannot be used.
        ProblemList: Rows are too long and `overlong` is "refuse".
    """
    course = dpo_course(model_spec, pairs, anchors, settings)
    return run_course(course, Path(output_folder), resume=resume, on_event=on_event, callbacks=callbacks)


def dpo_course(
    model_spec: ModelSpec, pairs: Iterable[PreferenceRecord], anchors: Iterable[SFTRecord], settings: DPOSettings
) -> Course:
    """What `train_dpo` would train on what, its steps and its fingerprint. Reads a tokenizer, and no weights."""
    model = open_policy(model_spec, settings)
    longest = min(settings.max_length_tokens, model.context_tokens)
    rows, dropped = encode_pairs(
        pairs,
        model.tokenizer,
        settings,
        longest,
        max_p_chosen=settings.max_p_chosen,
        most_pairs=settings.batch_pairs,
        openings=LOSSES[settings.loss].needs_openings,
    )
    kept, dropped_anchors = encode_replies(anchors, model.tokenizer, settings, longest, kind="anchor")
    used = kept if settings.anchor_weight > 0 and settings.anchors_per_pair > 0 else []
    if not rows:
        raise TrainingError(
            f"there is no pair to train on{describe_dropped(dropped)}", "label more items, or raise max_length_tokens"
        )
    rows, held_out = split(rows, settings.holdout_share)
    used, held_out_anchors = split(used, settings.holdout_share)
    refuse_empty_sides(rows, held_out, settings)
    plan = plan_steps(
        [len(row.pairs) for row in rows],
        epochs=settings.epochs,
        batch=settings.batch_pairs,
        seed=settings.seed,
        anchors=len(used),
        anchors_per_unit=settings.anchors_per_pair,
    )
    objective = PreferenceObjective(settings)
    apart = (*held_out, *held_out_anchors)
    return Course(model, rows, used, apart, (*dropped, *dropped_anchors), plan, objective, settings)
