"""Whole preference runs on small real checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import ARCHITECTURES, Architecture, make_checkpoint
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai.errors import ProblemList, TrainingError
from cai.models.spec import ModelSpec
from cai.records import PreferenceRecord, SFTRecord
from cai.training.dpo import train_dpo
from cai.training.results import TrainingEvent, TrainingResult
from cai.training.settings import DPOSettings, LoraSettings
from constitution.messages import user

SETTINGS = DPOSettings(epochs=1, batch_pairs=4, learning_rate=1e-3, dtype="float32", lora=LoraSettings(r=4, alpha=8))


def make_pairs(count: int, *, words: int = 6, p_chosen: float = 0.9) -> list[PreferenceRecord]:
    return [
        PreferenceRecord(
            uid=f"pair-{index}",
            prompt=(user(f"What is {index} + {index}? " + "Please. " * (index % words)),),
            chosen=f"It is {2 * index}." + " Yes." * (index % 4),
            rejected=f"It is {2 * index + 1}, of course." + " I am sure." * (index % 3),
            chosen_source="revision",
            p_chosen=p_chosen,
            margin_nats=1.0,
            method="pointwise",
            principle_ids=("plain",),
        )
        for index in range(count)
    ]


def make_anchors(count: int) -> list[SFTRecord]:
    return [SFTRecord(uid=f"kept-{i}", messages=(user(f"Say {i}."),), reply=f"{i}. Here you are.") for i in range(count)]


def spec_of(folder: Path, architecture: str = "llama") -> ModelSpec:
    return ModelSpec(name=str(folder), device="cpu", base_model_form="plain" if architecture == "gpt2" else "auto")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("adapted", [True, False], ids=["lora", "full"])
def test_every_architecture_trains_saves_reloads_and_generates(
    architecture: Architecture, adapted: bool, tmp_path: Path
) -> None:
    model = make_checkpoint(tmp_path / "model", architecture)
    settings = SETTINGS if adapted else SETTINGS.model_copy(update={"lora": None})
    result = train_dpo(spec_of(model, architecture), make_pairs(12), make_anchors(4), settings, tmp_path / "out")
    assert result.steps == 3
    assert result.first_metrics["rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert (result.adapter is not None) == adapted
    tuned: Any = AutoModelForCausalLM.from_pretrained(result.folder)
    tokenizer = AutoTokenizer.from_pretrained(result.folder)
    ids = tokenizer("What is 2 + 2?", return_tensors="pt")
    assert tuned.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] == ids.input_ids.shape[1] + 4
    before = load_file(model / "model.safetensors")
    after = load_file(result.folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (architecture == "gpt2") == (tokenizer.chat_template is None)
