"""The merged training model computes what peft's LoRA computes: the same logits, and the same gradients for every A and B."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from cai.lab.lesson_rows import Row, encode_branch, pack
from cai.lab.merged_lora import LoraLlama, flatten
from cai.lab.teacher import Lesson, lesson
from cai.lab.world import World
from tests.checkpoints import make_config, make_tokenizer

RANK, ALPHA, FIRST_LAYER = 4, 8, 1
LESSONS = [lesson(World.load(), {}, 1, index) for index in range(2)]
TOKENIZER = make_tokenizer("llama")


def make_base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(make_config("llama", len(TOKENIZER)))  # type: ignore[arg-type]
    return model.float().eval()


@pytest.fixture(scope="module")
def ours() -> LoraLlama:
    model = LoraLlama(make_base(), rank=RANK, alpha=ALPHA, first_layer=FIRST_LAYER, seed=3)
    generator = torch.Generator().manual_seed(4)
    for name, factor in model.named_factors():
        if "lora_B" in name:
            factor.data = torch.randn(factor.shape, generator=generator) * 0.05
    model.merge()
    return model


@pytest.fixture(scope="module")
def theirs(ours: LoraLlama) -> Any:
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=[FIRST_LAYER],
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(make_base(), config)
    named = dict(model.named_parameters())
    for name, factor in ours.named_factors():
        named[name.replace(".weight", ".default.weight")].data.copy_(factor.data)
    return model.eval()


def peft_logits(model: Any, one: Lesson, row: Row) -> torch.Tensor:
    """Logits that predict the row's learned tokens, branch by branch, each in its own plain conversation."""
    found: list[torch.Tensor] = []
    shared = row.parts[: row.prefix].bool()
    assert not shared.any(), "nothing in the prefix is learned"
    for branch in one.branches:
        ids, parts = encode_branch(TOKENIZER, one.messages, branch)
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        learned = [place for place, part in enumerate(parts) if part]
        found.append(logits[[place - 1 for place in learned]])
    return torch.cat(found)


def test_logits_of_packed_rows_equal_those_of_peft_on_each_conversation(ours: LoraLlama, theirs: Any) -> None:
    rows = [pack(TOKENIZER, one) for one in LESSONS]
    with torch.no_grad():
        packed = ours.logits(flatten(rows, torch.float32))
        alone = torch.cat([peft_logits(theirs, one, row) for one, row in zip(LESSONS, rows, strict=True)])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_gradients_of_every_factor_equal_those_of_peft(ours: LoraLlama, theirs: Any) -> None:
    row = pack(TOKENIZER, LESSONS[0])
    flat = flatten([row], torch.float32)
    ours.zero_grad()
    theirs.zero_grad()
    loss: Any = torch.nn.functional.cross_entropy(ours.logits(flat), flat.targets)
    loss.backward()
    torch.nn.functional.cross_entropy(peft_logits(theirs, LESSONS[0], row), flat.targets).backward()
    named = dict(theirs.named_parameters())
    for name, factor in ours.named_factors():
        expected = named[name.replace(".weight", ".default.weight")].grad
        assert factor.grad is not None
        assert factor.grad.abs().max() > 0
        torch.testing.assert_close(factor.grad, expected, rtol=1e-3, atol=1e-6)


def test_fresh_adapter_changes_nothing() -> None:
    base = make_base()
    model = LoraLlama(base, rank=RANK, alpha=ALPHA, first_layer=0, seed=0)
    model.merge()
    ids, _ = encode_branch(TOKENIZER, LESSONS[0].messages, LESSONS[0].branches[0])
    single = Lesson(LESSONS[0].item, LESSONS[0].messages, LESSONS[0].branches[:1])
    flat = flatten([pack(TOKENIZER, single)], torch.float32)
    with torch.no_grad():
        plain: Any = base(input_ids=torch.tensor([ids]))
        torch.testing.assert_close(model.logits(flat), plain.logits[0][flat.predictors], rtol=1e-4, atol=1e-4)


def test_layers_below_the_adapter_get_no_graph(ours: LoraLlama) -> None:
    names = {name.split(".layers.")[1].split(".")[0] for name, _ in ours.named_factors()}
    assert names == {str(FIRST_LAYER)}
    assert not any(weight.requires_grad for weight in ours.base.parameters())
