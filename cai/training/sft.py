"""Supervised training: prompts with the replies they should get."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cai.errors import TrainingError
from cai.models.spec import ModelSpec
from cai.records import SFTRecord
from cai.training.course import Course, run_course
from cai.training.objectives import SupervisedObjective
from cai.training.plan import plan_steps
from cai.training.policy import open_policy
from cai.training.results import OnEvent, TrainingResult
from cai.training.rows import describe_dropped, encode_replies
from cai.training.settings import SFTSettings


def train_sft(
    model_spec: ModelSpec,
    rows: Iterable[SFTRecord],
    settings: SFTSettings,
    output_folder: Path | str,
    *,
    resume: bool = True,
    on_event: OnEvent | None = None,
) -> TrainingResult:
    """Fine-tune on replies only: no token of a prompt is ever a target. Arguments, resuming and errors as `train_dpo`."""
    return run_course(sft_course(model_spec, rows, settings), Path(output_folder), resume=resume, on_event=on_event)


def sft_course(model_spec: ModelSpec, rows: Iterable[SFTRecord], settings: SFTSettings) -> Course:
    """What `train_sft` would train on what, its steps and its fingerprint. Reads a tokenizer, and no weights."""
    model = open_policy(model_spec, settings)
    longest = min(settings.max_length_tokens, model.context_tokens)
    kept, dropped = encode_replies(rows, model.tokenizer, settings, longest, kind="row")
    if not kept:
        raise TrainingError(f"there is no row to train on{describe_dropped(dropped)}", "give rows, or raise max_length_tokens")
    plan = plan_steps(len(kept), epochs=settings.epochs, batch=settings.batch_rows, seed=settings.seed)
    return Course(model, kept, (), dropped, plan, SupervisedObjective(), settings)
