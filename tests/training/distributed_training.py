"""Training in several processes that are forked from this one, on gloo.

Usage: distributed_training.py WORLD KIND MODEL FOLDER. What process R found is written into FOLDER/R.json.

- train: whole runs of `train_dpo`, with an adapter, without, and on chains.
- rewards: whole runs of `train_reward`, with an adapter and without.
- shard, shard-rewards: weights sharded by FSDP2 over the processes, around the parts of a run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# What training imports at its first need: once for all.
import accelerate
import peft  # noqa: F401
import torch
import transformers.models.llama.modeling_llama  # noqa: F401
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from training_runs import DPO, make_chains, make_pairs, make_replies, spec_of
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.distributed.configuration_utils import DistributedConfig

from cai.records import PreferenceRecord
from cai.training import processes
from cai.training.checkpoint_files import refuse_broken_weights
from cai.training.course import Course
from cai.training.dpo import dpo_course, train_dpo
from cai.training.head import Head
from cai.training.held_out import Evaluating, HeldOut
from cai.training.opening import Opening
from cai.training.policy import Policy, load_policy, save_policy, whole_policy
from cai.training.reward import reward_course, train_reward
from cai.training.reward_scorer import RewardScorer
from cai.training.scorer import inner_model
from cai.training.settings import DPOSettings, LoraSettings, RewardSettings
from cai.training.sharding import gathered_weights
from cai.training.trainer import StepTrainer
from cai.training.trainer_arguments import training_arguments

SETTINGS = DPO.model_copy(update={"batch_pairs": 5, "epochs": 2, "tokens_per_forward": 150, "save_every_steps": 2})
RUNS: dict[str, tuple[DPOSettings, Callable[[], list[PreferenceRecord]]]] = {
    "lora": (SETTINGS.model_copy(update={"holdout_share": 0.3}), lambda: make_pairs(14)),
    "full": (SETTINGS.model_copy(update={"lora": None}), lambda: make_pairs(9)),
    "chains": (SETTINGS.model_copy(update={"batch_pairs": 6, "tokens_per_forward": 50}), lambda: make_chains(3)),
    "adapted head": (
        SETTINGS.model_copy(update={"lora": LoraSettings(r=4, alpha=8, target=("lm_head", "q_proj")), "holdout_share": 0.3}),
        lambda: make_pairs(14),
    ),
    "single": (SETTINGS.model_copy(update={"batch_pairs": 1, "anchor_weight": 0.0}), lambda: make_pairs(3)),
}
"""With an adapter there are held-out rows too. Processes have unequal shares of a step, in the last run one has none at all."""
SHARDED = [("full", "accelerate"), ("full", "transformers"), ("lora", "accelerate"), ("lora", "transformers")]
SHARDED += [("adapted head", "accelerate")]
_REWARD = RewardSettings.model_validate(
    {name: value for name, value in SETTINGS.model_dump().items() if name in RewardSettings.model_fields} | {"heads": 2}
)
REWARDS: dict[str, tuple[RewardSettings, Callable[[], list[PreferenceRecord]]]] = {
    "reward": (_REWARD.model_copy(update={"holdout_share": 0.3}), lambda: make_pairs(14)),
    "full reward": (
        _REWARD.model_copy(update={"lora": None, "batch_pairs": 6, "tokens_per_forward": 50}),
        lambda: make_chains(3),
    ),
}
"""Of two heads, each with its own sample of the pairs."""


class Passes(TrainerCallback):
    """Counts forward passes of the model, those of the reference included."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        model.register_forward_pre_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


def train(model: Path, folder: Path, names: Iterable[str] = tuple(RUNS)) -> dict[str, Any]:
    """Runs of these names, into FOLDER/name."""
    found: dict[str, Any] = {}
    for name in names:
        settings, rows = RUNS[name]
        passes = Passes()
        result = train_dpo(spec_of(model), rows(), make_replies(3), settings, folder / name, callbacks=[passes])
        found[name] = {"passes": passes.count, "result": result.as_json()}
    return found


def rewards(model: Path, folder: Path) -> dict[str, Any]:
    """Runs of `REWARDS`, into FOLDER/name."""
    found: dict[str, Any] = {}
    for name, (settings, rows) in REWARDS.items():
        passes = Passes()
        result = train_reward(spec_of(model), rows(), settings, folder / name, callbacks=[passes])
        quality = result.quality and result.quality.model_dump(mode="json")
        found[name] = {"passes": passes.count, "result": result.training.as_json(), "quality": quality}
    return found


def shard(model: Path, folder: Path) -> dict[str, Any]:
    """The runs with weights sharded by FSDP2, in units as transformers makes them and as accelerate does (which itself shards
    nothing on CPUs). As `run_course`, but without checkpoints: transformers writes none of models that were sharded before.
    """
    accelerate.PartialState(cpu=True)
    found: dict[str, Any] = {}
    for name, units in SHARDED:
        settings, rows = RUNS[name]
        course = dpo_course(spec_of(model), rows(), make_replies(3), settings)
        opened = replace(course.model)
        if units == "transformers":
            config = DistributedConfig(fsdp_size=distributed.get_world_size())
            opened.read = partial(AutoModelForCausalLM.from_pretrained, model, dtype=torch.float32, distributed_config=config)
        policy = replace(load_policy(opened, settings), opened=course.model)
        if units == "accelerate":
            _shard_in_units_of_accelerate(policy.model)
        found[f"{name}-{units}"] = _train_sharded(course, policy, folder / f"{name}-{units}")
    return found


def shard_rewards(model: Path, folder: Path) -> dict[str, Any]:
    """The runs of `REWARDS` with weights sharded as accelerate does it: their head is none that transformers shards."""
    accelerate.PartialState(cpu=True)
    found: dict[str, Any] = {}
    for name, (settings, rows) in REWARDS.items():
        course = reward_course(spec_of(model), rows(), settings)
        policy = load_policy(course.model, settings)
        _shard_in_units_of_accelerate(policy.model)
        found[name] = _train_sharded(course, policy, folder / name)
    return found


def _shard_in_units_of_accelerate(policy: Any) -> None:
    model = inner_model(policy)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # a reward model's head is with the rest
    if head is not None and model.config.tie_word_embeddings:
        tail = [model.model.norm, embedding, head]
    else:
        fully_shard(embedding, mesh=mesh)
        tail = [model.model.norm, head] if head is not None else [model.model.norm]
    fully_shard(tail, mesh=mesh, reshard_after_forward=False)
    fully_shard(policy, mesh=mesh)
    model._is_distributed_loading_by_transformers = True  # the Trainer then takes it as it is


def _train_sharded(course: Course, policy: Policy, folder: Path) -> dict[str, Any]:
    settings = course.settings
    arguments: Any = training_arguments(settings, len(course.plan), folder, course.model.device)
    arguments.save_strategy = "no"
    scorer = course.scorer(policy)
    passes = Passes()
    objective = course.held_out_objective or course.objective
    held_out = HeldOut(course.held_out, scorer, objective, settings.tokens_per_forward, policy.as_reference)
    evaluation = Evaluating(held_out, len(course.plan) // settings.epochs, None)
    lines: list[dict[str, float]] = []
    opening = Opening(course.rows, course.held_out, settings, policy, folder, scorer, arguments.device, None)
    trainer: Any = StepTrainer(
        policy.model,
        arguments,
        make_rows=opening,
        anchors=course.anchors,
        plan=course.plan,
        epochs=settings.epochs,
        scorer=scorer,
        objective=course.objective,
        tokens_per_forward=settings.tokens_per_forward,
        evaluation=evaluation if course.held_out else None,
        on_metrics=lines.append,
        on_event=None,
        measure=opening.measure,
        callbacks=[passes],
    )
    trainer.train()
    assert any(isinstance(weight, DTensor) for weight in policy.model.parameters())
    refuse_broken_weights(policy.model, len(course.plan))
    weights = gathered_weights(trainer.model_wrapped, trainer.accelerator)
    assert weights is not None
    if processes.is_first():
        save_policy(whole_policy(policy, settings, weights), folder, folder / "adapter", merge=True)
    plain_head = scorer.plain_head and (isinstance(scorer, RewardScorer) or Head.of(scorer.inner) is not None)
    return {"passes": passes.count, "plain_head": plain_head, "path": scorer.path, "lines": processes.from_first(lines)}


def fork(world: int, work: Callable[[], dict[str, Any]], folder: Path) -> int:
    """Run `work` in so many processes that know of each other. Returns how many failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_one_of, args=(rank, world, port, work, folder)) for rank in range(world)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return sum(child.exitcode != 0 for child in children)


def _one_of(rank: int, world: int, port: int, work: Callable[[], dict[str, Any]], folder: Path) -> None:
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in here.items()} | {"MASTER_ADDR": "127.0.0.1"}
    (folder / f"{rank}.json").write_text(json.dumps(work()))
    distributed.destroy_process_group()


if __name__ == "__main__":
    world, kind, model, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    kinds = {"train": train, "rewards": rewards, "shard": shard, "shard-rewards": shard_rewards}
    sys.exit(fork(world, partial(kinds[kind], model, folder), folder))
