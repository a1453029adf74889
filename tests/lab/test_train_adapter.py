"""Training the adapter: an interrupted run goes on exactly as a straight one, and peft loads what comes out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai.lab.drafts import draw_items, read_drafts, sample_drafts
from cai.lab.lesson_rows import Row, pack
from cai.lab.merged_lora import LoraLlama, flatten
from cai.lab.teacher import lesson
from cai.lab.train_adapter import Course, Recipe, train
from cai.lab.world import World
from tests.checkpoints import make_checkpoint

RECIPE = Recipe(steps=4, decay=2, warmup=1, batch=1, rank=4, alpha=8, first_layer=1, draft_count=6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), "llama", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def rows(checkpoint: Path) -> list[Row]:
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    return [pack(tokenizer, lesson(World.load(), {}, 0, index)) for index in range(RECIPE.steps)]


def start(checkpoint: Path, folder: Path) -> Course:
    folder.mkdir(exist_ok=True)
    base: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    model = LoraLlama(base, rank=RECIPE.rank, alpha=RECIPE.alpha, first_layer=RECIPE.first_layer, seed=RECIPE.seed)
    return Course(RECIPE, model, folder)


def test_interrupted_course_ends_with_the_same_weights_as_a_straight_one(
    checkpoint: Path, rows: list[Row], tmp_path: Path
) -> None:
    straight = start(checkpoint, tmp_path / "straight")
    for row in rows:
        straight.learn([row])
    first = start(checkpoint, tmp_path / "parts")
    for row in rows[:2]:
        first.learn([row])
    first.save()
    second = start(checkpoint, tmp_path / "parts")
    second.resume()
    assert second.step == 2
    for row in rows[2:]:
        second.learn([row])
    assert second.tokens == straight.tokens
    for (name, one), (_, other) in zip(straight.factors, second.factors, strict=True):
        assert torch.equal(one, other), name


def test_learning_the_same_row_again_and_again_lowers_its_loss(checkpoint: Path, rows: list[Row], tmp_path: Path) -> None:
    course = start(checkpoint, tmp_path)
    course.recipe = Recipe(steps=1000, warmup=1, lr=1e-2)
    losses = [course.learn(rows[:1])["ground"] for _ in range(12)]
    assert losses[-1] < losses[0] - 0.2


def test_peft_loads_the_saved_adapter_and_gives_the_same_logits(checkpoint: Path, rows: list[Row], tmp_path: Path) -> None:
    course = start(checkpoint, tmp_path)
    for row in rows:
        course.learn([row])
    course.save()
    for _, factor in course.factors:
        factor.data = factor.data.bfloat16().float()  # as it was saved
    course.model.base.float()
    for lora in course.model.loras.values():
        lora.frozen, lora.merged = lora.frozen.float(), lora.merged.float()  # type: ignore[union-attr, assignment]
    course.model.merge()
    base: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    loaded: Any = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    row = rows[0]
    end = row.prefix + row.lengths[0]  # the first branch is a plain conversation
    flat = flatten([row], torch.float32)
    with torch.no_grad():
        alone = loaded(input_ids=row.ids[None, :end]).logits[0]
        packed = course.model.logits(flat)
    inside = flat.predictors < end
    torch.testing.assert_close(packed[inside], alone[flat.predictors[inside]], rtol=1e-3, atol=1e-3)


def test_one_command_samples_drafts_trains_and_does_nothing_when_run_again(checkpoint: Path, tmp_path: Path) -> None:
    recipe = Recipe(**{**asdict(RECIPE), "steps": 2, "draft_count": 4})
    train(checkpoint, tmp_path, recipe)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name)
    assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == 2
    assert len((tmp_path / "drafts.jsonl").read_text().splitlines()) == 4
    train(checkpoint, tmp_path, recipe)
    again = load_file(tmp_path / "adapter_model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_training_goes_on_from_another_adapter_whose_hash_the_recipe_keeps(checkpoint: Path, tmp_path: Path) -> None:
    recipe = Recipe(**{**asdict(RECIPE), "steps": 1, "draft_count": 4})
    first, second = tmp_path / "first", tmp_path / "second"
    train(checkpoint, first, recipe)
    train(checkpoint, second, Recipe(**{**asdict(recipe), "lr": 0.0}), first)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    assert all(torch.equal(before[name], after[name]) for name in before)
    shipped = hashlib.sha256((first / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert json.loads((second / "recipe.json").read_text())["start_sha256"] == shipped
    with pytest.raises(ValueError, match="another shape of adapter"):
        train(checkpoint, tmp_path / "third", Recipe(**{**asdict(recipe), "rank": 2}), first)


def test_trained_policies_write_equal_shares_of_the_drafts_and_are_kept_by_their_hash(checkpoint: Path, tmp_path: Path) -> None:
    """In turn: each answers its own items as it would if it were the only one asked."""
    other = make_checkpoint(tmp_path / "other", seed=5, dtype=torch.bfloat16)
    train(checkpoint, tmp_path / "run", Recipe(**{**asdict(RECIPE), "steps": 1, "draft_count": 6}), drafters=[other])
    items = draw_items(World.for_lessons(), 6, RECIPE.seed, "train")
    expected = [*sample_drafts(items[::2], checkpoint), *sample_drafts(items[1::2], other)]
    assert list(read_drafts(tmp_path / "run" / "drafts.jsonl")) == expected
    hashes = [hashlib.sha256((other / "model.safetensors").read_bytes()).hexdigest()]
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["drafters_sha256"] == hashes


def test_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    recipe = Recipe(steps=100, decay=20, warmup=10, lr=1.0)
    rates = [recipe.lr_at(step) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:81] == [1.0] * 71
    assert rates[80:] == pytest.approx([1.0 - step / 20 for step in range(21)])
