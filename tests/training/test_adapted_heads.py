"""Adapters on the output head and on the embedding, tied to each other or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from peft import PeftModel
from token_groups import make_groups
from torch.nn.functional import logsigmoid
from training_runs import DPO, make_pairs, spec_of
from transformers import AutoModelForCausalLM

from cai.training.dpo import train_dpo
from cai.training.head import Head
from cai.training.logps import ReplyScorer
from cai.training.policy import load_policy, open_policy
from cai.training.probing import choose_path
from cai.training.settings import DPOSettings, LoraSettings

TARGETS = {"head": ("lm_head", "q_proj"), "embedding": ("embed_tokens", "q_proj")}


def settings_for(target: str) -> DPOSettings:
    return DPO.model_copy(update={"lora": LoraSettings(r=4, alpha=8, target=TARGETS[target]), "learning_rate": 1e-2})


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"), tie_word_embeddings=request.param)


@pytest.mark.parametrize("target", TARGETS)
def test_gradients_of_adapted_heads_are_those_of_autograd(target: str, llama: Path) -> None:
    settings = settings_for(target)
    policy: Any = load_policy(open_policy(spec_of(llama), settings), settings).model
    trained = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
    for weight in trained.values():
        torch.nn.init.normal_(weight, std=0.05)  # as after some steps: at the start half of the factors are 0
    groups = [group for group in make_groups() if len(group.replies) == 2]
    scorer = ReplyScorer(policy)
    device = torch.device("cpu")
    assert choose_path(policy, scorer, groups, device) == ""
    assert (Head.of(scorer.inner) is None) == (target == "head")
    batch = scorer.pack(groups, device)
    with scorer.at_work():
        loss = scorer.loss(policy, batch, lambda _, logps_R: -logsigmoid(logps_R[0::2] - logps_R[1::2]).sum())
        loss.backward()
    found = {name: weight.grad for name, weight in trained.items()}
    policy.zero_grad()

    def logp(prompt: tuple[int, ...], reply: tuple[int, ...]) -> torch.Tensor:
        logps = policy(input_ids=torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1)
        return sum((logps[len(prompt) + at - 1, token] for at, token in enumerate(reply)), torch.zeros(()))

    naive = torch.zeros(())
    for group in groups:
        chosen, rejected = (logp(group.prompt_ids, reply) for reply in group.replies)
        naive = naive - logsigmoid(chosen - rejected)
    naive.backward()
    assert float(loss) == pytest.approx(float(naive), rel=1e-4)
    for name, weight in trained.items():
        assert weight.grad is not None
        assert float(weight.grad.norm()) > 0, name
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-3, atol=1e-3 * float(weight.grad.abs().max()))


@pytest.mark.parametrize("target", TARGETS)
def test_a_merged_model_says_what_the_adapted_one_says(target: str, llama: Path, tmp_path: Path) -> None:
    """Where head and embedding are one matrix, an update of the head merged into it would move the embedding too."""
    result = train_dpo(spec_of(llama), make_pairs(8), [], settings_for(target), tmp_path / "out")
    assert result.adapter is not None
    ids = torch.tensor([[3, 50, 99, 12, 200]])
    base: Any = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    merged: Any = AutoModelForCausalLM.from_pretrained(result.folder, dtype=torch.float32)
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        adapted: Any = PeftModel.from_pretrained(base, str(result.adapter))
        wanted, found = adapted(input_ids=ids).logits, merged(input_ids=ids).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 100 * (found - wanted).abs().max(), "the adapter did nothing"
