"""Step by step beside TRL's DPOTrainer: same model, same pairs, same order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from safetensors.torch import load_file
from training_runs import DPO, LORA, make_chains, make_pairs, metrics_of, spec_of
from trl_runs import Theirs, assert_moved_alike, pairs_in_order, their_arguments, train

from cai.models.loading import load_tokenizer
from cai.records import PreferenceRecord
from cai.training.dpo import dpo_course, train_dpo
from cai.training.policy import load_policy
from cai.training.results import TrainingResult
from cai.training.settings import DPOSettings

BATCH = 4
SETTINGS = DPO.model_copy(
    update={
        "epochs": 2,
        "batch_pairs": BATCH,
        "lora": None,
        "nll_weight": 0.0,
        "anchor_weight": 0.0,
        "weight_decay": 0.01,
        "logging_steps": 1,
    }
)
CASES: dict[str, tuple[DPOSettings, Callable[[], list[PreferenceRecord]]]] = {
    "full": (SETTINGS, lambda: make_pairs(12)),
    "lora": (SETTINGS.model_copy(update={"lora": LORA, "learning_rate": 5e-3}), lambda: make_pairs(12)),
    "chains": (SETTINGS.model_copy(update={"batch_pairs": 6}), lambda: make_chains(3)),
}
"""Pairs; pairs with an adapter, the same to begin with; all six pairs of four replies, which TRL gets one by one."""


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def sure_pairs(case: str) -> list[PreferenceRecord]:
    """TRL knows no soft labels."""
    return [pair.model_copy(update={"p_chosen": 1.0}) for pair in CASES[case][1]()]


@pytest.fixture(scope="module")
def ours(case: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_dpo(spec_of(model), sure_pairs(case), [], CASES[case][0], tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(case: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    settings = CASES[case][0]
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    pairs = {pair.uid: pair for pair in sure_pairs(case)}
    course = dpo_course(spec_of(model), pairs.values(), [], settings)
    order = pairs_in_order(course)

    def row(uid: str) -> dict[str, str]:
        turns = [{"role": m.role, "content": m.content} for m in pairs[uid].prompt]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # With the end of the turn and without the line break that the template puts between turns.
        return {
            "prompt": prompt,
            "chosen": f"{pairs[uid].chosen}<|im_end|>",
            "rejected": f"{pairs[uid].rejected}<|im_end|>",
        }

    batch = settings.batch_pairs
    steps = len(order) // batch
    assert steps == len(course.plan) >= 3
    folder = tmp_path_factory.mktemp("theirs")
    arguments = DPOConfig(beta=settings.beta, **their_arguments(settings, batch=batch, steps=steps, folder=folder))
    whole = settings.lora is None
    policy: Any = (
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32) if whole else load_policy(course.model, settings).model
    )
    trainer: Any = DPOTrainer(
        model=policy,
        ref_model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32) if whole else None,
        args=arguments,
        train_dataset=Dataset.from_list([row(uid) for uid in order]),
        processing_class=tokenizer,
    )
    coder = load_tokenizer(spec_of(model))
    for uid, tokens in zip(order, trainer.train_dataset, strict=True):
        for reply, ids in ((pairs[uid].chosen, "chosen_ids"), (pairs[uid].rejected, "rejected_ids")):
            assert coder.encode_reply(pairs[uid].prompt, reply) == (tokens["prompt_ids"], tokens[ids])
    return train(trainer)


def test_losses_margins_and_gradients_go_the_same_way(ours: TrainingResult, theirs: Theirs) -> None:
    lines = metrics_of(ours.folder)
    assert len(lines) == len(theirs[0]) == ours.steps
    assert lines[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert lines[-1]["rewards/margins"] > 0.05, "nothing was learned: the comparison would say little"
    for line, their_line in zip(lines, theirs[0], strict=True):
        for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "learning_rate"):
            assert line[name] == pytest.approx(their_line[name], abs=2e-5), (line["step"], name)
        if line["step"] > 1:  # before the first step all margins are 0, to within rounding
            assert line["rewards/accuracies"] == pytest.approx(their_line["rewards/accuracies"])
        for name in ("logps/chosen", "logps/rejected", "grad_norm"):
            assert line[name] == pytest.approx(their_line[name], rel=1e-4)


def test_the_trained_weights_are_the_same(case: str, model: Path, ours: TrainingResult, theirs: Theirs) -> None:
    settings = CASES[case][0]
    if settings.lora is None:
        before, after = load_file(model / "model.safetensors"), load_file(ours.folder / "model.safetensors")
    else:
        start = load_policy(dpo_course(spec_of(model), sure_pairs(case), [], settings).model, settings).model.state_dict()
        before = {name.replace(".default", ""): weight for name, weight in start.items()}
        after = load_file(ours.folder / "adapter" / "adapter_model.safetensors")
    found = {name.replace(".default", ""): weight for name, weight in theirs[1].items()}
    assert_moved_alike(before, after, found, within=0.002)
