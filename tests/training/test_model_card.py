"""The card of a trained model: what the hub reads of it, and what it must not tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from huggingface_hub import ModelCard
from training_runs import DPO, SFT, make_pairs, make_replies, spec_of

from cai.models.loading import open_model
from cai.training.card import base_name, model_card
from cai.training.dpo import train_dpo
from cai.training.results import TrainingResult
from cai.training.sft import train_sft


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("machine") / "tiny-llama")


def test_the_card_is_read_by_the_hub_and_tells_no_path(llama: Path, tmp_path: Path) -> None:
    pairs = [*make_pairs(16), make_pairs(1)[0].model_copy(update={"chosen": " "})]
    settings = DPO.model_copy(update={"holdout_share": 0.4, "epochs": 2})
    result = train_dpo(spec_of(llama), pairs, make_replies(4), settings, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert {"constitutional-ai", "dpo", "sigmoid", "lora"} <= set(data["tags"])
    assert "base_model" not in data  # a folder is no name that the hub knows
    text = card.text
    assert "| base model | tiny-llama |" in text
    assert str(tmp_path) not in text
    assert str(llama.parent) not in text
    assert f"| trained on | {result.trained_rows} |" in text
    assert f"| held out | {result.held_out} |" in text
    assert "left out: empty\\_reply | 1" in text
    assert "| mean sureness of the labels (p\\_chosen) | 0.900 |" in text
    assert f"{result.last_metrics['rewards/margins']:.4g}" in text
    assert f"{result.held_out_metrics['eval/kl']:.4g}" in text
    assert all(warning[:40] in text for warning in result.warnings)
    assert 'AutoModelForCausalLM.from_pretrained("FOLDER")' in text


def test_an_adapter_alone_is_loaded_by_peft(llama: Path, tmp_path: Path) -> None:
    train_sft(spec_of(llama), make_replies(4), SFT.model_copy(update={"merge": False}), tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.to_dict()["library_name"] == "peft"
    assert 'AutoPeftModelForCausalLM.from_pretrained("FOLDER/adapter")' in card.text
    assert "rewards/" not in card.text


def test_a_model_of_the_hub_is_named_as_the_base_and_its_commit_told(llama: Path, tmp_path: Path) -> None:
    result = train_dpo(spec_of(llama), make_pairs(4), [], DPO, tmp_path / "out")
    opened: Any = open_model(spec_of(llama))
    opened.spec = opened.spec.model_copy(update={"name": "some-people/some-model"})
    opened.place = type(opened.place)(opened.place.folder, None, "some-people/some-model@abc123")
    assert base_name(opened) == "some-people/some-model"
    card = ModelCard(model_card(result, opened, DPO, label_strength=0.9))
    assert card.data.to_dict()["base_model"] == "some-people/some-model"
    assert "| revision | abc123 |" in card.text


def test_markup_in_values_stays_text(llama: Path, tmp_path: Path) -> None:
    result = train_dpo(spec_of(llama), make_pairs(4), [], DPO, tmp_path / "out")
    nasty = TrainingResult.model_validate(result.model_dump() | {"warnings": ("<script>alert(1)</script> | **x**",)})
    text = model_card(nasty, open_model(spec_of(llama)), DPO, label_strength=None)
    assert "<script>" not in text
    assert "\\*\\*x\\*\\*" in text


def test_the_card_is_there_whenever_training_is_finished(llama: Path, tmp_path: Path) -> None:
    train_dpo(spec_of(llama), make_pairs(4), [], DPO, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "training.json").read_text())
    card = tmp_path / "out" / "README.md"
    assert (tmp_path / "out" / "training.json").stat().st_mtime_ns >= card.stat().st_mtime_ns
