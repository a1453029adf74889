"""Supervised training: prompts with the replies they should get."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import TrainerCallback

from cai.data.filters.held_out_prompts import HeldOutPrompts
from cai.errors import TrainingError
from cai.models.spec import ModelSpec
from cai.records import SFTRecord
from cai.training.course import Course, run_course
from cai.training.held_out import refuse_empty_sides, split
from cai.training.mixing import mix_in
from cai.training.objectives import SupervisedObjective
from cai.training.plan import Step, plan_steps
from cai.training.policy import open_policy
from cai.training.results import OnEvent, TrainingResult
from cai.training.rows import ReplyRow, describe_dropped, encode_replies, refuse_overlong
from cai.training.settings import SFTSettings


def train_sft(
    model_spec: ModelSpec,
    rows: Iterable[SFTRecord],
    settings: SFTSettings,
    output_folder: Path | str,
    *,
    evaluation_prompts: HeldOutPrompts | None = None,
    resume: bool = True,
    on_event: OnEvent | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Fine-tune on the assistant's turns only: no token of anything else is ever a target.

    Arguments, resuming and errors as `train_dpo`. `rows` are gone through once and not kept; no row of `settings.mix` may
    teach one of the `evaluation_prompts`: it is dropped.

    Raises:
        DataError: If a file of `settings.mix` cannot be read, or has bad rows.
    """
    course = sft_course(model_spec, rows, settings, evaluation_prompts)
    return run_course(course, Path(output_folder), resume=resume, on_event=on_event, callbacks=callbacks)


def sft_course(
    model_spec: ModelSpec, rows: Iterable[SFTRecord], settings: SFTSettings, evaluation_prompts: HeldOutPrompts | None = None
) -> Course:
    """What `train_sft` would train on what, its steps and its fingerprint. Reads a tokenizer, and no weights."""
    model = open_policy(model_spec, settings)
    longest = min(settings.max_length_tokens, model.context_tokens)
    kept, dropped = encode_replies(rows, model.tokenizer, settings, longest, kind="row", turns=settings.turns)
    if not kept:
        raise TrainingError(f"there is no row to train on{describe_dropped(dropped)}", "give rows, or raise max_length_tokens")
    mixed = mix_in(sum(row.group.scored_tokens for row in kept), model.tokenizer, settings, longest, evaluation_prompts)
    refuse_overlong(mixed.dropped, settings)
    every, held_out = split([*kept, *mixed.rows], settings.holdout_share)
    refuse_empty_sides(every, held_out, settings)
    plan = _plan(every, settings)
    left_out = [*dropped, *mixed.dropped]
    return Course(model, every, (), held_out, left_out, plan, SupervisedObjective(), settings, mixed.of_files)


def _plan(rows: Sequence[ReplyRow], settings: SFTSettings) -> tuple[Step, ...]:
    """Rows with the same prompt come in the same step, where what they have in common is computed once."""
    siblings: dict[tuple[int, ...], list[int]] = {}
    for place, row in enumerate(rows):
        siblings.setdefault(row.group.prompt_ids, []).append(place)
    together = [
        places[first : first + settings.batch_rows]
        for places in siblings.values()
        for first in range(0, len(places), settings.batch_rows)
    ]
    steps = plan_steps(
        [len(places) for places in together], epochs=settings.epochs, batch=settings.batch_rows, seed=settings.seed
    )
    return tuple(Step(tuple(place for some in step.rows for place in together[some])) for step in steps)
