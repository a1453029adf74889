"""Supervised training: only replies are learned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from safetensors.torch import load_file
from training_runs import SFT, make_replies, metrics_of, spec_of
from transformers import AutoModelForCausalLM

from cai.errors import TrainingError
from cai.models.loading import load_tokenizer
from cai.records import SFTRecord
from cai.training.logps import ReplyScorer
from cai.training.objectives import StepSize, SupervisedObjective
from cai.training.packing import PackedBatch, micro_batches, pack
from cai.training.rows import encode_replies
from cai.training.settings import SFTSettings
from cai.training.sft import sft_course, train_sft
from constitution.messages import assistant, system, user

FULL = SFT.model_copy(update={"lora": None})


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
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.peak_learning_rate, weight_decay=0.0)
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
    lines = metrics_of(result.folder)
    assert lines[-1]["nll/replies"] < 0.6 * lines[0]["nll/replies"]
    assert mean_nll(result.folder, rows) < mean_nll(llama, rows) - 1
    assert result.adapter is not None
    assert (result.reference_computed, result.path) == (0, "blocks")


def test_small_passes_train_as_one_large_pass(llama: Path, tmp_path: Path) -> None:
    """Long and short replies: a mean of means would weigh the tokens of short ones more."""
    rows = [row.model_copy(update={"reply": row.reply + " More." * (5 * (n % 3))}) for n, row in enumerate(make_replies(8))]
    results = [
        train_sft(spec_of(llama), rows, FULL.model_copy(update={"tokens_per_forward": tokens}), tmp_path / str(tokens))
        for tokens in (1, 100_000)
    ]
    for small, large in zip(*(metrics_of(each.folder) for each in results), strict=True):
        for name in ("loss", "nll/replies", "grad_norm"):
            assert small[name] == pytest.approx(large[name], rel=1e-3), name


def chain() -> list[SFTRecord]:
    """The revisions of all rounds of one item, a conversation of several turns, and rows of other prompts between them."""
    long = "Please be so kind as to tell me, in a few words and without any jokes, what the capital of France is."
    texts = ("Paris.", "It is Paris, of course.", "It is Paris, on the Seine.")
    revisions = [
        SFTRecord(uid="item", round=number, messages=(system("Be kind."), user(long)), reply=text)
        for number, text in enumerate(texts)
    ]
    return [revisions[0], *make_replies(2), revisions[1], conversation(), revisions[2]]


def nll_turn_by_turn(model: Any, coder: Any, rows: list[SFTRecord]) -> torch.Tensor:
    """Mean over learned tokens; every turn of the assistant alone in its own context, without padding, mask or sharing."""
    losses: list[torch.Tensor] = []
    tokens = 0
    for row in rows:
        whole = (*row.messages, assistant(row.reply))
        for place, message in enumerate(whole):
            if message.role == "assistant":
                prompt, reply = coder.encode_reply(whole[:place], message.content)
                logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
                losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(reply), reduction="sum"))
                tokens += len(reply)
    return torch.stack(losses).sum() / tokens


@pytest.mark.parametrize("path", ["blocks", "padded"])
@pytest.mark.parametrize("tokens_per_forward", [60, 4096])
def test_loss_and_gradient_are_those_of_one_turn_at_a_time(llama: Path, path: Any, tokens_per_forward: int) -> None:
    """In float64, over all passes of a step, with everything that rows have in common computed once."""
    rows = chain()
    coder = load_tokenizer(spec_of(llama))
    encoded, _ = encode_replies(rows, coder, FULL, 1000, kind="row", turns="all")
    models: list[Any] = [AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float64) for _ in range(2)]
    expected = nll_turn_by_turn(models[0], coder, rows)
    expected.backward()
    scorer = ReplyScorer(models[1], path=path)
    size, total = StepSize.of(encoded), 0.0
    passes = micro_batches(encoded, lambda row: row.group, scorer.layout, tokens_per_forward)
    assert (len(passes) == 1) == (tokens_per_forward == 4096)
    for some in passes:
        batch = scorer.pack([row.group for row in some], torch.device("cpu"))

        def loss_of(groups: slice, logps_R: torch.Tensor, some: Any = some, batch: PackedBatch = batch) -> torch.Tensor:
            first = batch.parts[groups][0].sequences.start
            lengths = batch.sequence_lengths[first : first + len(logps_R)]
            return SupervisedObjective()(some[groups], logps_R, lengths, size)[0]

        with scorer.at_work():
            loss = scorer.loss(models[1], batch, loss_of)
            loss.backward()
        total += float(loss.detach())
    assert total == pytest.approx(float(expected.detach()), rel=1e-9)
    for (name, ours), theirs in zip(models[1].named_parameters(), models[0].parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() <= 1e-6 * theirs.grad.norm(), name  # norms are computed in float32


def test_a_chain_of_revisions_is_trained_in_one_step_and_costs_what_is_new_in_it(llama: Path) -> None:
    rows = [row.model_copy(update={"uid": f"{row.uid}-{n}"}) for n in range(4) for row in chain()]
    for number, row in enumerate(rows):  # four items: their prompts differ at the end
        rows[number] = row.model_copy(
            update={"messages": (*row.messages[:-1], user(f"{row.messages[-1].content} {row.uid[-1]}"))}
        )
    course = sft_course(spec_of(llama), rows, FULL)
    assert sorted(at for step in course.plan for at in step.rows) == list(range(len(rows)))
    step_of = {at: number for number, step in enumerate(course.plan) for at in step.rows}
    for item in range(4):
        steps = {step_of[at] for at, row in enumerate(rows) if row.uid == f"item-{item}"}
        assert len(steps) == 1
    groups = [row.group for row in course.rows if row.uid == "item-0"]
    prompt = len(groups[0].prompt_ids)
    assert pack(groups, "tree").tokens <= prompt + sum(len(group.replies[0]) - 1 for group in groups)
    assert pack(groups, "padded").tokens > 2 * prompt


def test_all_rounds_train_as_separate_rows_would(llama: Path, tmp_path: Path) -> None:
    """One at a time in a pass of its own, or side by side: the same steps, to within rounding."""
    results = [
        train_sft(
            spec_of(llama),
            chain(),
            FULL.model_copy(update={"tokens_per_forward": tokens, "turns": "all"}),
            tmp_path / str(tokens),
        )
        for tokens in (1, 100_000)
    ]
    for small, large in zip(*(metrics_of(each.folder) for each in results), strict=True):
        for name in ("loss", "nll/replies", "grad_norm"):
            assert small[name] == pytest.approx(large[name], rel=1e-4), name
    assert [row.uid for row in results[0].dropped] == []
    assert results[0].trained_rows == len(chain())


def test_conversations_whose_earlier_turns_the_template_rewrites_are_counted(tmp_path: Path) -> None:
    """The plain form: its history has no token that ends a turn."""
    model = make_checkpoint(tmp_path / "model", "gpt2")
    settings = SFT.model_copy(update={"turns": "all"})
    result = train_sft(spec_of(model, "gpt2"), [conversation(), *make_replies(2)], settings, tmp_path / "out")
    assert any("in 1 conversations the chat template rewrites" in warning for warning in result.warnings)
    coder = load_tokenizer(spec_of(model, "gpt2"))
    with torch.no_grad():
        before = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        wanted = float(nll_turn_by_turn(before, coder, [conversation(), *make_replies(2)]))
    assert result.first_metrics["loss"] == pytest.approx(wanted, rel=1e-4)


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
