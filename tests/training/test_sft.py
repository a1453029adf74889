"""Supervised training: only replies are learned."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from safetensors.torch import load_file
from training_runs import SFT, make_replies, spec_of
from transformers import AutoModelForCausalLM

from cai.errors import TrainingError
from cai.models.loading import load_tokenizer
from cai.records import SFTRecord
from cai.training.results import TrainingResult
from cai.training.settings import SFTSettings
from cai.training.sft import train_sft
from constitution.messages import assistant, system, user

FULL = SFT.model_copy(update={"lora": None})


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def metrics(result: TrainingResult) -> list[dict[str, float]]:
    return [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]


def conversation() -> SFTRecord:
    """Several turns: the assistant's earlier ones are no targets either."""
    turns = (system("Be kind."), user("What is 2 + 2?"), assistant("5."), user("Are you sure? I think it is 4."))
    return SFTRecord(uid="turns", messages=turns, reply="You are right: it is 4.")


def mean_nll(folder: Path, rows: list[SFTRecord]) -> float:
    """Per reply token, from the model's plain logits."""
    coder = load_tokenizer(spec_of(folder))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total, tokens = 0.0, 0
    for row in rows:
        prompt, reply = coder.encode_reply(row.messages, row.reply)
        with torch.no_grad():
            logps = model(input_ids=torch.tensor([prompt + reply])).logits[0].double().log_softmax(-1)
        total -= sum(float(logps[len(prompt) + at - 1, token]) for at, token in enumerate(reply))
        tokens += len(reply)
    return total / tokens


def test_the_loss_is_that_of_the_reply_tokens_and_no_others(llama: Path, tmp_path: Path) -> None:
    rows = [conversation(), *make_replies(3)]
    result = train_sft(spec_of(llama), rows, FULL, tmp_path / "out")
    assert result.steps == 1
    assert result.first_metrics["loss"] == pytest.approx(mean_nll(llama, rows), rel=1e-4)
    assert result.first_metrics["nll/replies"] == pytest.approx(result.first_metrics["loss"], rel=1e-5)


def test_one_step_moves_the_weights_as_plain_descent_on_the_replies_would(llama: Path, tmp_path: Path) -> None:
    """An optimizer step by hand, labels set by slicing: a prompt token among the targets would turn the gradient."""
    rows = [conversation(), *make_replies(3)]
    settings = FULL.model_copy(update={"warmup_share": 0.0, "max_grad_norm": 1e9, "schedule": "constant"})
    result = train_sft(spec_of(llama), rows, settings, tmp_path / "out")
    coder = load_tokenizer(spec_of(llama))
    model: Any = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    losses: list[torch.Tensor] = []
    for row in rows:
        prompt, reply = coder.encode_reply(row.messages, row.reply)
        logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(reply), reduction="sum"))
    tokens = sum(len(coder.encode_reply(row.messages, row.reply)[1]) for row in rows)
    (torch.stack(losses).sum() / tokens).backward()
    optimizer.step()
    before, after = load_file(llama / "model.safetensors"), load_file(result.folder / "model.safetensors")
    by_hand = model.state_dict()
    for name, weight in after.items():
        moved = (by_hand[name] - before[name]).norm()
        assert (weight - by_hand[name]).norm() <= 0.02 * moved, name


def test_replies_are_learned(llama: Path, tmp_path: Path) -> None:
    rows = make_replies(8)
    settings = SFT.model_copy(update={"epochs": 8, "learning_rate": 1e-2})
    result = train_sft(spec_of(llama), rows, settings, tmp_path / "out")
    lines = metrics(result)
    assert lines[-1]["nll/replies"] < 0.6 * lines[0]["nll/replies"]
    assert mean_nll(result.folder, rows) < mean_nll(llama, rows) - 1
    assert result.adapter is not None
    assert (result.reference_computed, result.layout) == (0, "padded")


def test_small_passes_train_as_one_large_pass(llama: Path, tmp_path: Path) -> None:
    """Long and short replies: a mean of means would weigh the tokens of short ones more."""
    rows = [row.model_copy(update={"reply": row.reply + " More." * (5 * (n % 3))}) for n, row in enumerate(make_replies(8))]
    results = [
        train_sft(spec_of(llama), rows, FULL.model_copy(update={"tokens_per_forward": tokens}), tmp_path / str(tokens))
        for tokens in (1, 100_000)
    ]
    for small, large in zip(*map(metrics, results), strict=True):
        for name in ("loss", "nll/replies", "grad_norm"):
            assert small[name] == pytest.approx(large[name], rel=1e-3), name


def test_nothing_to_train_on_is_said(llama: Path, tmp_path: Path) -> None:
    empty = [row.model_copy(update={"reply": " "}) for row in make_replies(2)]
    with pytest.raises(TrainingError, match="2 empty_reply"):
        train_sft(spec_of(llama), empty, SFT, tmp_path / "out")


def test_a_model_without_chat_template_learns_in_plain_form(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", "gpt2")
    result = train_sft(spec_of(model, "gpt2"), make_replies(4), SFT, tmp_path / "out")
    assert math.isfinite(result.last_metrics["loss"])
    assert result.trained_rows == 4


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_rows": 0}, {"learning_rate": 0}, {"warmup_share": 1.0}, {"unknown": 1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SFTSettings(**wrong)
