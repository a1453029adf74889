"""Tokenizers, templates and heads that other trainers stumble over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import CHATML_TEMPLATE, make_checkpoint
from peft import PeftModel
from training_runs import DPO, make_pairs, spec_of
from transformers import AutoModelForCausalLM

from cai.models.loading import load_tokenizer
from cai.training.dpo import dpo_course, train_dpo
from cai.training.settings import LoraSettings
from constitution.messages import assistant, user


def test_a_tokenizer_without_a_pad_token_trains_the_same(tmp_path: Path) -> None:
    with_pad, without = (make_checkpoint(tmp_path / name) for name in ("with", "without"))
    for name in ("tokenizer_config.json", "special_tokens_map.json", "config.json", "generation_config.json"):
        file = without / name
        if file.is_file():
            content = {key: value for key, value in json.loads(file.read_text()).items() if not key.startswith("pad_token")}
            file.write_text(json.dumps(content))
    assert load_tokenizer(spec_of(without)).tokenizer.pad_token is None
    assert load_tokenizer(spec_of(with_pad)).tokenizer.pad_token is not None
    trained = [
        train_dpo(spec_of(model), make_pairs(6), [], DPO, tmp_path / f"{model.name}-out") for model in (with_pad, without)
    ]
    first, second = ((result.folder / "model.safetensors").read_bytes() for result in trained)
    assert first == second


REWRITING = CHATML_TEMPLATE.replace(
    "{{ m['content'] }}",
    "{{ m['content'].split('</think>')[-1] | trim if m['role'] == 'assistant' else m['content'] | trim | replace('h', 'H') }}",
)
"""Trims every turn, forgets thoughts of earlier turns, and changes letters of users'."""


def test_a_template_that_rewrites_what_it_is_given_leaves_the_prompt_a_prefix_of_both(tmp_path: Path) -> None:
    model, template = make_checkpoint(tmp_path / "model"), tmp_path / "rewriting.jinja"
    assert REWRITING != CHATML_TEMPLATE
    template.write_text(REWRITING)
    spec = spec_of(model).model_copy(update={"chat_template": template})
    prompt = (user(" hi "), assistant("<think>hm</think> Hello! "), user("2 + 2?"))
    pairs = [pair.model_copy(update={"prompt": prompt, "chosen": "  4.  "}) for pair in make_pairs(1)]
    course = dpo_course(spec, pairs, [], DPO)
    (row,) = course.rows
    decode = course.model.tokenizer.tokenizer.decode
    shown = decode(list(row.group.prompt_ids))
    assert "Hi<|im_end|>" in shown
    assert "hm" not in shown
    assert list(row.group.prompt_ids) == course.model.tokenizer.encode_chat(prompt)
    assert decode(list(row.group.replies[0])) == "4.<|im_end|>"
    assert not train_dpo(spec, pairs, [], DPO, tmp_path / "out").dropped


ON_THE_HEAD = DPO.model_copy(update={"lora": LoraSettings(r=4, alpha=8, target=("q_proj", "lm_head")), "epochs": 4})


def test_an_adapter_on_a_head_of_its_own_is_trained_and_merged_as_it_was_trained(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", tie_word_embeddings=False)
    result = train_dpo(spec_of(model), make_pairs(6), [], ON_THE_HEAD, tmp_path / "out")
    assert result.first_metrics["rewards/margins"] == 0
    assert result.last_metrics["rewards/margins"] > 0
    ids = torch.arange(4, 60)[None]
    merged = AutoModelForCausalLM.from_pretrained(result.folder)
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(result.adapter))
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, beside(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_a_tied_matrix_is_merged_into_the_place_it_was_trained_in(target: str, tmp_path: Path) -> None:
    """Merged into one matrix for both places, it would change the other as well: not the model that was trained."""
    model = make_checkpoint(tmp_path / "model", tie_word_embeddings=True)
    settings = ON_THE_HEAD.model_copy(update={"lora": LoraSettings(r=4, alpha=8, target=("q_proj", target))})
    result = train_dpo(spec_of(model), make_pairs(6), [], settings, tmp_path / "out")
    ids = torch.arange(4, 60)[None]
    merged = AutoModelForCausalLM.from_pretrained(result.folder)
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(result.adapter))
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, beside(ids).logits, rtol=1e-4, atol=1e-4)
    alone = settings.model_copy(update={"merge": False})
    assert train_dpo(spec_of(model), make_pairs(6), [], alone, tmp_path / "alone").adapter is not None
