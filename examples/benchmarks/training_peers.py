"""TRL's trainers, set up for `preference_training`: the same model, the same token ids, one step at a time or a whole run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from training_shapes import Shape
from transformers import PreTrainedTokenizerFast, PrinterCallback

from cai.training.packing import TokenGroup

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
LONGEST = 16384
PairIds = dict[str, list[int]]


def pair_ids(groups: Sequence[TokenGroup], pairs: Sequence[tuple[int, int]] = ((0, 1),)) -> list[PairIds]:
    """What TRL's collator takes for (chosen, rejected) pairs of each group."""
    return [
        {"prompt_ids": list(g.prompt_ids), "chosen_ids": list(g.replies[c]), "rejected_ids": list(g.replies[r])}
        for g in groups
        for c, r in pairs
    ]


SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def tokenizer_of(shape: Shape) -> PreTrainedTokenizerFast:
    """Token n is the word "tn", but for the first ones."""
    words = {_word(number): number for number in range(shape.vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[3]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, bos, eos, unk = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=unk)


def _word(number: int) -> str:
    return SPECIAL[number] if number < len(SPECIAL) else f"t{number}"


def _text(ids: Sequence[int]) -> str:
    return " ".join(map(_word, ids))


def _dataset(rows: Sequence[dict[str, Any]]) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_list(list(rows))


def dpo_trainer(
    model: Any,
    shape: Shape,
    groups: Sequence[TokenGroup],
    *,
    precompute: bool,
    checkpointing: bool,
    bf16: bool = False,
    reference: Any = None,
    peft_config: Any = None,
    **others: Any,
) -> Any:
    """A DPOTrainer on these pairs, whose replies must end with token 2, which TRL appends. Its model is not moved.

    With `precompute` its reference's log-probabilities are made at once.
    """
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    arguments = DPOConfig(
        **{
            "output_dir": "unused",
            "per_device_train_batch_size": shape.pairs,
            "per_device_eval_batch_size": shape.pairs,
            "use_cpu": model.device.type == "cpu",
            "bf16": bf16,
            "gradient_checkpointing": checkpointing,
            "precompute_ref_log_probs": precompute,
            "max_length": LONGEST,
            "beta": 0.1,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_steps": 1,
            "optim": "adamw_torch",
        }
        | others
    )
    rows = [
        {"prompt": _text(g.prompt_ids), "chosen": f" {_text(g.replies[0][:-1])}", "rejected": f" {_text(g.replies[1][:-1])}"}
        for g in groups
    ]
    trainer = cast("Any", DPOTrainer)(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=_dataset(rows),
        processing_class=tokenizer_of(shape),
        peft_config=peft_config,
    )
    _ready_for_steps(trainer, checkpointing=checkpointing)
    return trainer


def sft_trainer(model: Any, shape: Shape, groups: Sequence[TokenGroup], *, padding_free: bool, bf16: bool = False) -> Any:
    """An SFTTrainer that learns replies alone."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    arguments = SFTConfig(
        output_dir="unused",
        per_device_train_batch_size=len(groups),
        use_cpu=model.device.type == "cpu",
        bf16=bf16,
        gradient_checkpointing=False,
        padding_free=padding_free,
        max_length=None,
        completion_only_loss=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = cast("Any", SFTTrainer)(
        model=model, args=arguments, train_dataset=_dataset(sft_ids(groups)), processing_class=tokenizer_of(shape)
    )
    _ready_for_steps(trainer, checkpointing=False)
    return trainer


def sft_ids(groups: Sequence[TokenGroup]) -> list[dict[str, list[int]]]:
    """Whole rows, with the prompt's tokens masked."""
    return [
        {
            "input_ids": [*group.prompt_ids, *group.replies[0]],
            "labels": [*[-100] * len(group.prompt_ids), *group.replies[0]],
            "completion_mask": [*[0] * len(group.prompt_ids), *[1] * len(group.replies[0])],
        }
        for group in groups
    ]


def _ready_for_steps(trainer: Any, *, checkpointing: bool) -> None:
    """What `train` does before its first step."""
    trainer.remove_callback(PrinterCallback)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    if checkpointing:
        trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs)


def dpo_step(trainer: Any, rows: Sequence[PairIds], reference: Sequence[tuple[float, float]] | None, *, at_once: int) -> float:
    """Forward and backward passes of one step, so many pairs in each. Returns the step's loss."""
    loss = 0.0
    for start in range(0, len(rows), at_once):
        some = list(rows[start : start + at_once])
        batch = trainer.data_collator(some)
        if reference is not None:
            known = torch.tensor(reference[start : start + at_once], device=trainer.args.device)
            batch |= {"ref_chosen_logps": known[:, 0], "ref_rejected_logps": known[:, 1]}
        trainer.current_gradient_accumulation_steps = -(-len(rows) // at_once)
        loss += float(trainer.training_step(trainer.model, _moved(batch, trainer.args.device)))
    return loss


def sft_step(trainer: Any, batches: Sequence[Sequence[TokenGroup]]) -> float:
    """One optimizer step's passes; the loss is the mean over all its reply tokens."""
    tokens = torch.tensor(sum(group.sequence_lengths[0] for batch in batches for group in batch))
    loss = 0.0
    for groups in batches:
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in sft_ids(groups)]
        batch = _moved(trainer.data_collator(rows), trainer.args.device)
        loss += float(trainer.training_step(trainer.model, batch, num_items_in_batch=tokens.to(trainer.args.device)))
    return loss


def _moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
