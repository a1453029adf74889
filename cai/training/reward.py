"""Training a reward model: pairs in, a sequence classifier out, and what it is worth on pairs it has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import TrainerCallback

from cai.errors import TrainingError
from cai.models.loading import LoadedModel
from cai.models.spec import ModelSpec
from cai.records import PreferenceRecord
from cai.training import processes
from cai.training.course import Course, run_course
from cai.training.held_out import refuse_empty_sides, split
from cai.training.plan import plan_steps
from cai.training.policy import open_policy
from cai.training.results import DroppedRow, OnEvent
from cai.training.reward_encoding import ExchangeEncoder
from cai.training.reward_head import padding
from cai.training.reward_model import RewardModel
from cai.training.reward_objective import RewardObjective
from cai.training.reward_quality import RewardQuality, ScoredPair, reward_quality
from cai.training.reward_results import RewardResult, keep_quality, kept_quality
from cai.training.reward_scorer import each_reply, read_at_the_end
from cai.training.rows import PreferenceRow, describe_dropped, encode_pairs
from cai.training.settings import RewardSettings


def train_reward(
    model_spec: ModelSpec,
    pairs: Sequence[PreferenceRecord],
    settings: RewardSettings,
    output_folder: Path | str,
    *,
    resume: bool = True,
    on_event: OnEvent | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> RewardResult:
    """Train a reward model, from a language model or from another reward model; then measure it on the held-out pairs.

    Resuming, arguments and errors as `train_dpo`. The folder loads with `AutoModelForSequenceClassification.from_pretrained`;
    its logits are the rewards, one for each head.

    Raises:
        TrainingError: As `train_dpo`; the architecture has no sequence classifier.
    """
    course = reward_course(model_spec, pairs, settings)
    result = run_course(course, Path(output_folder), resume=resume, on_event=on_event, callbacks=callbacks)
    quality: RewardQuality | None = None
    if course.held_out and processes.is_first():
        quality = kept_quality(result)
        if quality is None:
            quality = held_out_quality(result.folder, model_spec, pairs, course)
            keep_quality(result, quality)
    return RewardResult(training=result, quality=processes.from_first(quality))


def reward_course(model_spec: ModelSpec, pairs: Iterable[PreferenceRecord], settings: RewardSettings) -> Course:
    """What `train_reward` would train on what, its steps and its fingerprint. Reads a tokenizer, and no weights."""
    model = open_policy(model_spec, settings, head=None)
    rows, held_out, dropped = _encoded(model, pairs, settings)
    if not rows and not held_out:
        raise TrainingError(
            f"there is no pair to train on{describe_dropped(dropped)}", "label more items, or raise max_length_tokens"
        )
    refuse_empty_sides(rows, held_out, settings)
    plan = plan_steps([len(row.pairs) for row in rows], epochs=settings.epochs, batch=settings.batch_pairs, seed=settings.seed)
    objectives = (RewardObjective(settings, bootstrap=settings.bootstrap), RewardObjective(settings, bootstrap=False))
    return Course(model, rows, (), held_out, dropped, plan, objectives[0], settings, held_out_objective=objectives[1])


def _encoded(
    model: LoadedModel, pairs: Iterable[PreferenceRecord], settings: RewardSettings
) -> tuple[list[PreferenceRow], list[PreferenceRow], list[DroppedRow]]:
    """Rows to train on, those held out, and what is neither."""
    encoded, dropped = encode_pairs(
        pairs,
        ExchangeEncoder(model.tokenizer, padding(model.tokenizer).token_id),
        settings,
        min(settings.max_length_tokens, model.context_tokens),
        max_p_chosen=settings.max_p_chosen,
        most_pairs=settings.batch_pairs,
    )
    read = [replace(row, group=read_at_the_end(row.group)) for row in encoded]
    return *split(read, settings.holdout_share), dropped


def held_out_quality(folder: Path, spec: ModelSpec, pairs: Iterable[PreferenceRecord], course: Course) -> RewardQuality:
    """What the saved model makes of the pairs that were held out, loaded as anybody would load it."""
    saved = spec.model_copy(
        update={
            "name": str(folder),
            "adapter": None,
            "revision": None,
            "chat_template": None,
            "dtype": str(course.model.dtype).removeprefix("torch."),
        }
    )
    model = RewardModel.open(saved, tokens_per_forward=course.settings.tokens_per_forward)
    assert isinstance(course.settings, RewardSettings)
    # One by one, by the rule that dealt them: a record is measured if it was itself held out, whoever shares its name.
    held_out = [(pair, row.group) for pair in pairs for row in _encoded(course.model, (pair,), course.settings)[1]]
    rewards_NK = model.of_groups([reply for _, group in held_out for reply in each_reply(group)])
    return reward_quality(
        [ScoredPair(pair, tuple(rewards_NK[2 * at]), tuple(rewards_NK[2 * at + 1])) for at, (pair, _) in enumerate(held_out)]
    )
