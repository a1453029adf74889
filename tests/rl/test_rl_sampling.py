"""Samples come from the weights as they are now, and are what the policy drew, token by token."""

from __future__ import annotations

import torch

from cai.engines.base import GenerationRequest, SamplingParams
from cai.engines.local import LocalEngine, SampledTokens
from cai.models.loading import open_model
from cai.models.spec import ModelSpec
from cai.records import Item
from cai.rl.sampling import Sampler, items_of_step, policy_engine
from cai.training.policy import load_policy
from cai.training.settings import LoraSettings, TrainingSettings
from constitution.messages import user

PARAMS = SamplingParams(max_tokens=6)


def requests(count: int) -> list[GenerationRequest]:
    return [GenerationRequest((user(f"Say {n}"),), PARAMS, f"key/{n}") for n in range(count)]


def test_sampled_tokens_are_those_of_the_text_and_the_text_is_generate_s(tiny: ModelSpec) -> None:
    engine = LocalEngine(open_model(tiny))
    texts = dict(engine.generate(requests(5)))
    sampled = dict(engine.sample(requests(5)))
    tokenizer = open_model(tiny).tokenizer
    for at, each in sampled.items():
        assert isinstance(each, SampledTokens)
        assert each.generation == texts[at]
        assert list(each.prompt_ids) == tokenizer.encode_chat(requests(5)[at].messages)
        assert len(each.completion_ids) == each.generation.completion_tokens
        ids = [token for token in each.completion_ids if token not in tokenizer.stop_ids]
        assert tokenizer.decode(ids) == each.generation.text


def test_samples_follow_the_weights_without_anything_being_read_again(tiny: ModelSpec) -> None:
    """The policy's engine keeps no key or value of older weights: its samples are those of a fresh engine on the new ones."""
    opened = open_model(tiny)
    policy = load_policy(opened, TrainingSettings(epochs=1, lora=LoraSettings(r=2), dtype="float32"))
    policy.model.eval()
    items = [Item(uid=f"i{n}", messages=(user(f"Say {n}"),)) for n in range(3)]
    sampler = Sampler(policy_engine(opened, policy.model), samples=2, max_tokens=6, seed=0)
    before = sampler.draw(items, 1)
    assert before == sampler.draw(items, 1)
    plain = Sampler(LocalEngine(open_model(tiny)), samples=2, max_tokens=6, seed=0)
    assert before == plain.draw(items, 1)  # an adapter of zeros
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(len(name)))
    after = sampler.draw(items, 1)
    assert after != before
    fresh = Sampler(policy_engine(opened, policy.model), samples=2, max_tokens=6, seed=0)
    assert after == fresh.draw(items, 1)


def test_a_reply_depends_on_its_own_seed_and_step_and_not_on_its_neighbours(tiny: ModelSpec) -> None:
    items = [Item(uid=f"i{n}", messages=(user(f"Say {n}"),)) for n in range(3)]
    sampler = Sampler(LocalEngine(open_model(tiny)), samples=2, max_tokens=6, seed=0)
    together, alone = sampler.draw(items, 4), sampler.draw(items[1:2], 4)
    assert together[1] == alone[0]
    assert sampler.draw(items[1:2], 5) != alone


def test_all_prompts_come_before_one_comes_again_and_orders_differ() -> None:
    items = [Item(uid=f"i{n}", messages=(user("x"),)) for n in range(6)]
    rounds = [[item.uid for step in (2 * r + 1, 2 * r + 2) for item in items_of_step(items, step, 3, seed=0)] for r in range(3)]
    assert all(sorted(each) == [item.uid for item in items] for each in rounds)
    assert rounds[0] != rounds[1]
    assert [each.uid for each in items_of_step(items, 1, 3, seed=1)] != rounds[0][:3]
    assert len(items_of_step(items, 9, 100, seed=0)) == 6
    assert items_of_step(items, 7, 4, seed=0) == items_of_step(items, 7, 4, seed=0)
