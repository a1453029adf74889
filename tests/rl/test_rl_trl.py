"""The same samples, the same steps: our GRPO and RLOO against TRL's trainers, whose weights must come out alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai.models.loading import open_model
from cai.models.spec import ModelSpec
from cai.records import Item
from cai.rl.run import train_rl
from cai.rl.sampling import Sampler, policy_engine
from constitution.messages import user
from tests.rl.conftest import Course, TextReward, count_e

PROMPTS, SAMPLES, TOKENS, RATE, SEED = 6, 3, 6, 0.05, 0

ours_and_theirs = [
    pytest.param("grpo", {"average": "token", "beta": 0.3}, {"loss_type": "dapo", "beta": 0.3}, 1, id="grpo, all tokens alike"),
    pytest.param(
        "grpo",
        {"average": "reply", "beta": 0.3, "clip": 0.01, "scale_groups": False},
        {"loss_type": "grpo", "beta": 0.3, "epsilon": 0.01, "scale_rewards": "none"},
        2,
        id="grpo, two passes with a clip that bites",
    ),
    pytest.param("rloo", {"beta": 0.3}, {"beta": 0.3}, 1, id="rloo with KL in the reward"),
    pytest.param(
        "grpo",
        {"average": "token", "beta": 0.3, "temperature": 0.7},
        {"loss_type": "dapo", "beta": 0.3, "temperature": 0.7},
        2,
        id="grpo at a temperature, two passes",
    ),
    pytest.param("rloo", {"beta": 0.3, "temperature": 1.5}, {"beta": 0.3, "temperature": 1.5}, 1, id="rloo at a temperature"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "ours", "theirs", "passes"), ours_and_theirs)
def test_two_steps_of_ours_move_the_weights_as_trl_s(
    algorithm: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    passes: int,
    tiny: ModelSpec,
    items: list[Item],
    course: Course,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By plain gradient descent on both sides: Adam's first steps are as long where a gradient is nothing but rounding."""
    common = {"steps": 2, "prompts_per_step": PROMPTS, "samples_per_prompt": SAMPLES, "max_tokens": TOKENS, "lora": None}
    made = course(TextReward(count_e), algorithm=algorithm, learning_rate=RATE, epochs=passes, seed=SEED, **common, **ours)
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", torch.optim.SGD)
        train_rl(made, tmp_path / "ours")
    trained = _trl(algorithm, tiny, items, theirs, passes, tmp_path / "theirs", ours.get("temperature", 1.0))
    before = load_file(Path(tiny.name) / "model.safetensors")
    after = load_file(tmp_path / "ours" / "model.safetensors")
    moved = 0.0
    for name, weight in trained.items():
        if name in after:
            moved = max(moved, float((weight - before[name]).abs().max()))
            torch.testing.assert_close(after[name], weight, rtol=0, atol=5e-7, msg=lambda text, name=name: f"{name}: {text}")
    assert moved > RATE / 20


def _trl(
    algorithm: str,
    spec: ModelSpec,
    items: list[Item],
    options: dict[str, Any],
    passes: int,
    folder: Path,
    temperature: float,
) -> dict[str, torch.Tensor]:
    trl: Any = import_module("trl")
    opened = open_model(spec)
    model = AutoModelForCausalLM.from_pretrained(spec.name, dtype=torch.float32)
    engine = policy_engine(opened, model)
    sampler = Sampler(engine, samples=SAMPLES, max_tokens=TOKENS, seed=SEED, temperature=temperature)
    step = 0

    def completions_of_step() -> list[list[int]]:
        nonlocal step
        step += 1
        model.eval()
        rollouts = sampler.draw(items, step)
        model.train()
        return [list(sample.ids) for each in rollouts for sample in each.samples]

    def reward(completions: list[Any], **_columns: Any) -> list[float]:
        return [count_e(each[0]["content"] if isinstance(each, list) else each) for each in completions]

    config: Callable[..., Any] = trl.GRPOConfig if algorithm == "grpo" else trl.RLOOConfig
    trainer_class: Any = trl.GRPOTrainer if algorithm == "grpo" else trl.RLOOTrainer
    arguments = config(
        output_dir=str(folder),
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=TOKENS,
        max_steps=2 * passes,
        num_iterations=passes,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        optim="sgd",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        shuffle_dataset=False,
        disable_tqdm=True,
        **options,
    )
    rows = [{"prompt": [message.model_dump(mode="json") for message in item.messages]} for item in items]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer: Any = trainer_class(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(spec.name),
        )
        # The samples are to be ours. RLOO's trainer has no rollout function, so both get them where they generate.
        if algorithm == "grpo":
            trainer._generate_single_turn = lambda *_: (completions_of_step(), None)
        else:
            trainer._generate_single_turn = lambda *_: completions_of_step()
        trainer.train()
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def test_the_prompts_are_those_that_the_items_render_to(tiny: ModelSpec) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.name)
    message = user("Say 1 + 2")
    ids = tokenizer.apply_chat_template([message.model_dump(mode="json")], add_generation_prompt=True, return_dict=False)
    assert open_model(tiny).tokenizer.encode_chat((message,)) == ids
