"""At a temperature, what is drawn, measured and moved is the policy at that temperature: against naive float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from cai.models.loading import open_model
from cai.models.spec import ModelSpec
from cai.records import Item
from cai.rl.experience import Batch, batch_of, targets_of
from cai.rl.learner import Learner, Reference
from cai.rl.sampling import Rollout, Sampler, policy_engine
from cai.rl.settings import RLSettings
from cai.training.logps import ReplyScorer
from cai.training.policy import load_policy
from constitution.messages import user
from tests.checkpoints import make_checkpoint
from tests.rl.conftest import Course

SETTINGS: dict[str, Any] = {"reward": "a:b", "lora": {"r": 2}, "dtype": "float32", "max_tokens": 6, "warmup_steps": 0}


@dataclass(frozen=True)
class Made:
    """A policy in float64 that is no longer its reference, and replies that it has drawn."""

    policy: Any
    learner: Learner
    rollouts: list[Rollout]
    batch: Batch


def make(spec: ModelSpec, items: Sequence[Item], settings: RLSettings, *, plain_head: bool) -> Made:
    opened = open_model(spec)
    policy = load_policy(opened, settings.training)
    policy.model.eval()
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    engine = policy_engine(opened, policy.model)
    sampler = Sampler(engine, samples=3, max_tokens=settings.max_tokens, seed=1, temperature=settings.temperature)
    rollouts = sampler.draw(items, 1)
    policy.model.double()
    scorer = ReplyScorer(policy.model, path="mask", plain_head=plain_head, temperature=settings.temperature)
    learner = Learner(policy, scorer, Reference.of(policy, scorer, opened), settings, torch.device("cpu"))
    rewards = [float(n % 5) for n in range(sum(len(each.samples) for each in rollouts))]
    return Made(policy, learner, rollouts, batch_of(rollouts, rewards, scorer.layout, 4096, least=1))


def naive_logps(model: Any, rollouts: Sequence[Rollout], temperature: float) -> torch.Tensor:
    found: list[torch.Tensor] = []
    for rollout in rollouts:
        for sample in rollout.samples:
            ids = torch.tensor([[*rollout.prompt_ids, *sample.ids]])
            logits = model(input_ids=ids).logits[0] / temperature
            predicted = logits.log_softmax(-1)[len(rollout.prompt_ids) - 1 : -1]
            found.append(predicted.gather(1, torch.tensor(sample.ids)[:, None])[:, 0])
    return torch.cat(found)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("plain_head", [True, False])
def test_log_probabilities_and_gradients_are_those_of_the_tempered_distribution(
    temperature: float, tiny: ModelSpec, items: list[Item], *, plain_head: bool
) -> None:
    settings = RLSettings(**SETTINGS, temperature=temperature, beta=0.3, max_grad_norm=1e9)
    made = make(tiny, items, settings, plain_head=plain_head)
    known = made.learner.know(made.batch)
    expected = naive_logps(made.policy.model, made.rollouts, temperature)
    torch.testing.assert_close(known.logps, expected.detach(), rtol=0, atol=1e-10)
    with torch.no_grad(), made.policy.as_reference():
        of_reference = naive_logps(made.policy.model, made.rollouts, temperature)
    torch.testing.assert_close(known.ref_logps, of_reference, rtol=0, atol=1e-10)
    assert float((known.logps - known.ref_logps).abs().max()) > 0.1

    targets = targets_of(made.batch, known, settings)
    loss = -(targets.advantages * expected).sum() / len(made.batch.lengths)  # REINFORCE; the ratio is 1
    weights = list(made.learner.trained.values())
    wanted = torch.autograd.grad(loss, weights)
    found: list[torch.Tensor] = []

    def keep(*_: object, **__: object) -> None:
        found.extend(weight.grad.clone() for weight in weights if weight.grad is not None)

    made.learner.optimizer.register_step_pre_hook(keep)
    made.learner.update(made.batch, known, targets, 1)
    assert len(found) == len(weights)
    for ours, theirs in zip(found, wanted, strict=True):
        # Llama's norms are float32 whatever the weights are; `tests/training/test_head.py` holds the head to float64.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("temperature", [0.4, 2.0])
def test_tokens_are_drawn_as_often_as_that_distribution_says(temperature: float, tiny: ModelSpec) -> None:
    """A sharp policy: its entropy at the temperature, over the vocabulary, is what the drawn tokens' own estimate comes to."""
    opened = open_model(tiny)
    model: Any = opened.new_model().eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2)
    sampler = Sampler(policy_engine(opened, model), samples=400, max_tokens=1, seed=0, temperature=temperature)
    (rollout,) = sampler.draw([Item(uid="i", messages=(user("Say one"),))], 1)
    with torch.no_grad():
        logps = (model(input_ids=torch.tensor([rollout.prompt_ids])).logits[0, -1].double() / temperature).log_softmax(-1)
    drawn = -logps[[sample.ids[0] for sample in rollout.samples]]
    entropy = -float((logps.exp() * logps).sum())
    deviation = float((logps.exp() * (logps + entropy).square()).sum()) ** 0.5
    assert abs(float(drawn.mean()) - entropy) < 4 * deviation / len(drawn) ** 0.5
    with torch.no_grad():
        plain = model(input_ids=torch.tensor([rollout.prompt_ids])).logits[0, -1].double().log_softmax(-1)
    assert abs(entropy + float((plain.exp() * plain).sum())) > 0.3


def test_a_model_whose_logits_are_capped_is_tempered_after_the_cap(items: list[Item], tmp_path: Any) -> None:
    spec = ModelSpec(name=str(make_checkpoint(tmp_path / "gemma", "gemma3", final_logit_softcapping=2.0)), dtype="float32")
    settings = RLSettings(**SETTINGS, temperature=0.6)
    made = make(spec, items[:2], settings, plain_head=True)
    found = made.learner.know(made.batch).logps
    torch.testing.assert_close(found, naive_logps(made.policy.model, made.rollouts, 0.6).detach(), rtol=0, atol=1e-9)


def test_a_run_at_another_temperature_is_another_run(course: Course) -> None:
    assert course().fingerprint != course(temperature=1.3).fingerprint
