"""Step by step beside TRL's DPOTrainer: same model, same pairs, same order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from safetensors.torch import load_file
from training_runs import DPO, make_pairs, spec_of

from cai.models.loading import load_tokenizer
from cai.training.dpo import train_dpo
from cai.training.plan import plan_steps
from cai.training.results import TrainingResult

PAIRS, EPOCHS, BATCH = 12, 2, 4
SETTINGS = DPO.model_copy(
    update={
        "epochs": EPOCHS,
        "batch_pairs": BATCH,
        "lora": None,
        "nll_weight": 0.0,
        "anchor_weight": 0.0,
        "weight_decay": 0.01,
        "logging_steps": 1,
    }
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def ours(model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_dpo(spec_of(model), make_pairs(PAIRS, p_chosen=1.0), [], SETTINGS, tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """TRL's log lines and trained weights."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    pairs = make_pairs(PAIRS, p_chosen=1.0)
    order = [row for step in plan_steps(PAIRS, epochs=EPOCHS, batch=BATCH, seed=SETTINGS.seed) for row in step.rows]

    def row(index: int) -> dict[str, str]:
        turns = [{"role": m.role, "content": m.content} for m in pairs[index].prompt]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # With the end of the turn and without the line break that the template puts between turns.
        return {
            "prompt": prompt,
            "chosen": f"{pairs[index].chosen}<|im_end|>",
            "rejected": f"{pairs[index].rejected}<|im_end|>",
        }

    steps = len(order) // BATCH
    arguments = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("theirs")),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=SETTINGS.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(SETTINGS.warmup_share * steps),
        weight_decay=SETTINGS.weight_decay,
        max_grad_norm=SETTINGS.max_grad_norm,
        beta=SETTINGS.beta,
        optim="adamw_torch",
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        report_to="none",
    )
    trainer: Any = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list([row(index) for index in order]),
        processing_class=tokenizer,
    )
    coder = load_tokenizer(spec_of(model))
    for index, tokens in zip(order, trainer.train_dataset, strict=True):
        for reply, ids in ((pairs[index].chosen, "chosen_ids"), (pairs[index].rejected, "rejected_ids")):
            assert coder.encode_reply(pairs[index].prompt, reply) == (tokens["prompt_ids"], tokens[ids])
    trainer.train()
    weights = {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}
    return [line for line in trainer.state.log_history if "loss" in line], weights


def test_losses_margins_and_gradients_go_the_same_way(
    ours: TrainingResult, theirs: tuple[list[dict[str, float]], dict[str, torch.Tensor]]
) -> None:
    lines = [json.loads(line) for line in (ours.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == len(theirs[0]) == EPOCHS * PAIRS // BATCH
    assert lines[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert lines[-1]["rewards/margins"] > 0.05, "nothing was learned: the comparison would say little"
    for line, their_line in zip(lines, theirs[0], strict=True):
        for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "learning_rate"):
            assert line[name] == pytest.approx(their_line[name], abs=1e-4), (line["step"], name)
        if line["step"] > 1:  # before the first step all margins are 0, to within rounding
            assert line["rewards/accuracies"] == their_line["rewards/accuracies"]
        for name in ("logps/chosen", "logps/rejected", "grad_norm"):
            assert line[name] == pytest.approx(their_line[name], rel=1e-3)


def test_the_trained_weights_are_the_same(
    model: Path, ours: TrainingResult, theirs: tuple[list[dict[str, float]], dict[str, torch.Tensor]]
) -> None:
    before = load_file(model / "model.safetensors")
    after = load_file(ours.folder / "model.safetensors")
    for name, weight in after.items():
        moved = (weight - before[name]).norm()
        assert (weight - theirs[1][name]).norm() <= 0.01 * moved, name
