"""Trains the feedback adapter: `python -m cai.lab.train_adapter OUTPUT`, one command from nothing to a folder for peft.

Samples the plain model's drafts if they are not there yet, then learns lessons (see `teacher`) until `--steps`. The learning
rate warms up, stays, and falls to zero over the last `--decay` steps; so a run at its plateau may be stopped at any moment and
started again with other `--steps`. The state is saved every hundred steps, and the same command goes on from it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch.nn import functional

from cai.lab.drafts import draw_items, read_drafts, sample_drafts, write_drafts
from cai.lab.lesson_rows import Part, Row, pack
from cai.lab.merged_lora import LoraLlama, flatten
from cai.lab.teacher import draft_pool, lesson
from cai.lab.world import World

PART_WEIGHTS = {Part.GROUND: 2.0, Part.VERDICT: 2.0, Part.FAULT: 1.0, Part.REVISION: 1.0}
"""The ground decides ("and the reply admits it" or "but …"), so its tokens weigh double, as the verdict does."""
BETAS = (0.9, 0.98)
ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Everything the adapter's weights depend on, beside the base model, the drafts, and the adapter that it goes on from."""

    steps: int = 6000
    decay: int = 1200
    warmup: int = 50
    batch: int = 4
    lr: float = 1e-3
    rank: int = 16
    alpha: int = 32
    first_layer: int = 4
    draft_count: int = 2600
    seed: int = 0

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.lr * max(0.0, min(1.0, (step + 1) / self.warmup, (self.steps - step) / max(self.decay, 1)))


class Course:
    """A training run in a folder: `state.safetensors` and `log.jsonl` while it goes, the adapter whenever it is saved."""

    def __init__(self, recipe: Recipe, model: LoraLlama, folder: Path) -> None:
        self.recipe, self.model, self.folder = recipe, model, folder
        self.factors = model.named_factors()
        self.optimizer = torch.optim.AdamW([p for _, p in self.factors], lr=recipe.lr, betas=BETAS, weight_decay=0.0)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0

    def learn(self, rows: Sequence[Row]) -> dict[str, float]:
        """One step on a batch of rows; returns the mean loss by part and the share of verdict tokens predicted."""
        started = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self.step)
        flat = flatten(rows, torch.bfloat16)
        self.model.merge()
        logits = self.model.logits(flat)
        losses = functional.cross_entropy(logits, flat.targets, reduction="none")
        weights = torch.tensor([0.0, *(PART_WEIGHTS[part] for part in list(Part)[1:])])[flat.parts]
        loss = (losses * weights).sum() / weights.sum()
        cast("Any", loss).backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in self.factors], 1.0)
        cast("Any", self.optimizer).step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += len(flat.ids)
        self.seconds += time.monotonic() - started
        with torch.no_grad():
            parts = {
                p.name.lower(): float(losses[flat.parts == p].mean()) for p in PART_WEIGHTS if bool((flat.parts == p).any())
            }
            right = (logits.argmax(-1) == flat.targets)[flat.parts == Part.VERDICT].float().mean()
        return parts | {"verdict_right": float(right)}

    def save(self) -> None:
        """The state for going on, and the adapter as peft loads it, each replaced in one move."""
        moments: dict[str, torch.Tensor] = {}
        for name, factor in self.factors:
            state = self.optimizer.state[factor]
            moments |= {f"{name}|exp_avg": state["exp_avg"], f"{name}|exp_avg_sq": state["exp_avg_sq"], name: factor.detach()}
        progress = {"step": str(self.step), "tokens": str(self.tokens), "seconds": str(self.seconds)}
        _replace(self.folder / "state.safetensors", moments, progress)
        write_adapter(self.folder, self.model, self.recipe)

    def start_from(self, adapter: Path) -> None:
        """Take the factors of a trained adapter of the same shape; the optimizer starts afresh.

        Raises:
            ValueError: If the adapter has other layers or another rank.
        """
        found: dict[str, torch.Tensor] = cast("Any", safetensors.torch).load_file(adapter)
        shapes = {name: factor.shape for name, factor in self.factors}
        if {name: tensor.shape for name, tensor in found.items()} != shapes:
            raise ValueError(f"{adapter}: another shape of adapter than the recipe's; give its rank and first layer")
        for name, factor in self.factors:
            factor.data.copy_(found[name])

    def resume(self) -> None:
        """Go on from the folder's state, if there is one."""
        path = self.folder / "state.safetensors"
        if not path.exists():
            return
        with cast("Any", safetensors).safe_open(path, framework="pt") as file:
            progress: dict[str, str] = file.metadata()
            state: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        self.step, self.tokens, self.seconds = int(progress["step"]), int(progress["tokens"]), float(progress["seconds"])
        for name, factor in self.factors:
            factor.data.copy_(state[name])
            self.optimizer.state[factor] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": state[f"{name}|exp_avg"],
                "exp_avg_sq": state[f"{name}|exp_avg_sq"],
            }


def write_adapter(folder: Path, model: LoraLlama, recipe: Recipe) -> None:
    """`adapter_model.safetensors` in bfloat16 and `adapter_config.json`, as `peft.PeftModel.from_pretrained` reads them."""
    from peft import LoraConfig

    layers = list(range(recipe.first_layer, model.base.config.num_hidden_layers))
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    cast("Any", config).save_pretrained(str(folder))
    factors = {name: factor.detach().to(torch.bfloat16) for name, factor in model.named_factors()}
    _replace(folder / ADAPTER_FILE, factors, {"format": "pt"})


def _replace(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    partial = path.with_suffix(".partial")
    cast("Any", safetensors.torch).save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata)
    partial.replace(path)


def train(model_folder: Path, folder: Path, recipe: Recipe, start: Path | None = None, drafters: Sequence[Path] = ()) -> None:
    """Sample drafts if needed, and learn until `recipe.steps`, from the adapter in the folder `start` if there is one.

    The plain model and the `drafters`, folders of trained policies, write equal shares of the drafts: a critic that only knows
    the plain model's faults does not see those of a model that was trained by it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    drafts_path = folder / "drafts.jsonl"
    if not drafts_path.exists():
        items = draw_items(World.for_lessons(), recipe.draft_count, recipe.seed, "train")
        models = (model_folder, *drafters)
        shares = [sample_drafts(items[n :: len(models)], each, seed=recipe.seed) for n, each in enumerate(models)]
        write_drafts(drafts_path, chain.from_iterable(shares))
    pool = draft_pool(list(read_drafts(drafts_path)), "train")
    tokenizer = cast("Any", AutoTokenizer).from_pretrained(model_folder)
    base = cast("Any", AutoModelForCausalLM).from_pretrained(model_folder, dtype=torch.bfloat16)
    model = LoraLlama(base, rank=recipe.rank, alpha=recipe.alpha, first_layer=recipe.first_layer, seed=recipe.seed)
    course = Course(recipe, model, folder)
    weights = start / ADAPTER_FILE if start else None
    if weights:
        course.start_from(weights)
    course.resume()
    depends_on = asdict(recipe) | {
        "start_sha256": _hash(weights) if weights else None,
        "drafters_sha256": [_hash(each / "model.safetensors") for each in drafters],
    }
    (folder / "recipe.json").write_text(json.dumps(depends_on, indent=1) + "\n", encoding="utf-8")
    stream = (lesson(World.for_lessons(), pool, recipe.seed, index) for index in count(course.step * recipe.batch))
    sums: dict[str, float] = {}
    summed = 0
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        while course.step < recipe.steps:
            rows = [pack(tokenizer, one) for one in islice(stream, recipe.batch)]
            for name, value in course.learn(rows).items():
                sums[name] = sums.get(name, 0.0) + value
            summed += 1
            if course.step % 20 == 0:
                entry = {"step": course.step, "tokens": course.tokens, "minutes": round(course.seconds / 60, 1)}
                entry |= {name: round(value / summed, 4) for name, value in sums.items()}
                entry |= {"lr": recipe.lr_at(course.step), "tokens_per_s": round(course.tokens / course.seconds)}
                print(json.dumps(entry), file=log, flush=True)
                print(json.dumps(entry), flush=True)
                sums, summed = {}, 0
            if course.step % 100 == 0:
                course.save()
    course.save()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", type=Path, help="folder of the plain model; default: the embedded one")
    parser.add_argument("--start", type=Path, help="folder of an adapter to go on from; default: an untrained one")
    parser.add_argument(
        "--drafters", type=Path, nargs="*", default=[], help="folders of trained policies that write drafts too"
    )
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=cast("type[int | float]", type(default)), default=default)
    arguments = vars(parser.parse_args())
    output, model, start, drafters = (arguments.pop(name) for name in ("output", "model", "start", "drafters"))
    if model is None:
        from cai.models.resolving import resolve
        from cai.models.spec import ModelSpec

        model = resolve(ModelSpec(name="smollm2-135m")).folder
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    train(model, output, Recipe(**arguments), start, drafters)


if __name__ == "__main__":
    main()
