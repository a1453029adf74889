"""How much disk and memory a planned run will take: from its calls, its prompts and its models' shapes. Reads no weights.

Rough by nature: how long texts will be and what an allocator keeps is not known beforehand. The constants are from runs of a
tiny model and of the embedded one; a figure is meant to be right within a half, and errs to the high side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import psutil
from safetensors import safe_open

from cai.config.settings import RunConfig
from cai.engines.opening import SLOTS
from cai.engines.scripts import is_script
from cai.models.loading import LoadedModel, open_model
from cai.pipeline.plans import Plan
from cai.pipeline.preflight import Inputs
from cai.training.settings import DPOSettings, SFTSettings, TrainingSettings

MIB = 1024**2
TEXT_BYTES_PER_TOKEN = 5.0
CALL_BYTES = 420
"""Key, its index entry and the JSON around an answer."""
RECORD_BYTES = 1500
"""Of one row, over all its records and data set rows, besides its texts."""
PROMPT_COPIES, ANSWER_COPIES = 4, 3
"""How often a text of a row is kept: input, records, data sets."""
PAGES = 1.3
"""SQLite's pages are never full."""
REPORT_BYTES = 150_000
LOG_BYTES = 4 * MIB
"""SQLite's write-ahead log, while a run is at work."""
PROCESS_BYTES = 480 * MIB
"""Python with torch and transformers."""
CPU_CACHE_BYTES = 1536 * MIB
CPU_PREFILL_TOKENS, GPU_PREFILL_TOKENS = 2048, 16384
KEPT_CHECKPOINTS = 3
"""Two, and the one that is being written."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes, estimated.

    Args:
        run_bytes: The run folder without models, once it is finished.
        models_bytes: The trained models in it.
        peak_bytes: All of it at its largest, with checkpoints.
        free_bytes: On that disk now.
        memory_bytes: Of the process at its largest.
        machine_bytes: Memory of this machine that is free.
        gpu_bytes: Of the GPU's memory; None where the models run on the CPU.
    """

    run_bytes: int
    models_bytes: int
    peak_bytes: int
    free_bytes: int
    memory_bytes: int
    machine_bytes: int
    gpu_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What counts of a model: its parameters, the widths of its linear layers (in + out), its configuration."""

    parameters: int
    linear_widths: int
    config: dict[str, Any]
    item_bytes: int
    on_gpu: bool

    @classmethod
    def of(cls, opened: LoadedModel) -> _Shape:
        parameters = widths = 0
        for file in opened.place.folder.glob("*.safetensors"):
            with cast("Any", safe_open)(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - no mapping: it has only this method
                    shape = tensors.get_slice(name).get_shape()
                    parameters += math.prod(shape)
                    inner = len(shape) == 2 and "embed" not in name and "lm_head" not in name
                    widths += sum(shape) if inner else 0
        config: dict[str, Any] = opened.config.get("text_config") or opened.config
        return cls(parameters, widths, config, opened.dtype.itemsize, opened.device.type == "cuda")

    def number(self, name: str, otherwise: int) -> int:
        value = self.config.get(name)
        return value if isinstance(value, int) and value > 0 else otherwise

    @property
    def layers(self) -> int:
        return self.number("num_hidden_layers", self.number("n_layer", 1))

    @property
    def width(self) -> int:
        return self.number("hidden_size", self.number("n_embd", 1))

    @property
    def cache_bytes_per_token(self) -> int:
        heads = self.number("num_attention_heads", self.number("n_head", 1))
        kept = self.number("num_key_value_heads", heads)
        return 2 * self.layers * kept * self.number("head_dim", self.width // heads) * self.item_bytes

    @property
    def logits_bytes_per_token(self) -> int:
        return 4 * self.number("vocab_size", 1)

    def trainable(self, settings: TrainingSettings) -> int:
        return self.parameters if settings.lora is None else settings.lora.r * self.linear_widths


def footprint(plan: Plan, inputs: Inputs) -> Footprint:
    """Estimate it for a plan.

    Raises:
        ModelError: If a model cannot be used after all.
    """
    config = inputs.config
    specs = list(dict.fromkeys(config.models.values()))
    # A script or a model on a server takes nothing here; it is not the policy where anything is trained.
    opened = [open_model(spec) for spec in specs if spec.server is None and not is_script(spec.name)]
    shapes = [_Shape.of(each) for each in opened]
    run_bytes = _run_bytes(plan, inputs)
    trainings = [(each, _settings(config, each.stage.value)) for each in plan.stages if each.trains]
    models = peak = 0
    for planned, settings in trainings:
        trained = shapes[0].trainable(settings)
        whole = shapes[0].parameters * shapes[0].item_bytes if settings.lora is None or settings.merge else 0
        models += whole + (trained * 4 if settings.lora is not None else 0)
        models += _kept_checkpoints(settings, inputs) * trained * 4
        # Weights, and AdamW's two moments.
        peak = max(peak, KEPT_CHECKPOINTS * trained * 12 if planned.state == "to do" else 0)
    generating = sum(_generating(shape, plan, config) for shape in shapes)
    training = max((_training(opened[0], settings) for planned, settings in trainings if planned.state == "to do"), default=0)
    largest = max(generating, training)
    existing = next(each for each in (config.run.absolute(), *config.run.absolute().parents) if each.exists())
    on_gpu = any(shape.on_gpu for shape in shapes)
    return Footprint(
        run_bytes=run_bytes,
        models_bytes=models,
        peak_bytes=run_bytes + models + peak + LOG_BYTES,
        free_bytes=psutil.disk_usage(str(existing)).free,
        memory_bytes=PROCESS_BYTES + (0 if on_gpu else largest),
        machine_bytes=psutil.virtual_memory().available,
        gpu_bytes=largest if on_gpu else None,
    )


def _settings(config: RunConfig, stage: str) -> SFTSettings | DPOSettings:
    settings = config.sft if stage == "sft" else config.dpo
    assert settings is not None, "it was planned"
    return settings


def _kept_checkpoints(settings: SFTSettings | DPOSettings, inputs: Inputs) -> int:
    """How many stay after training, if every prompt gives a row."""
    if not (settings.keep_checkpoints and settings.save_every_steps):
        return 0
    rows = len(inputs.items) * inputs.config.loop.replicas * settings.epochs
    batch = settings.batch_pairs if isinstance(settings, DPOSettings) else settings.batch_rows
    return math.ceil(rows / batch) // settings.save_every_steps


def _run_bytes(plan: Plan, inputs: Inputs) -> int:
    calls = sum(each.calls + each.reused for each in plan.calls)
    # Of stored calls only their number is known here: they are taken to be as long as those to come.
    tokens = sum(each.new_tokens * (1 + (each.reused / each.calls if each.calls else 0)) for each in plan.calls)
    texts = tokens * TEXT_BYTES_PER_TOKEN
    prompts = sum(len(item.model_dump_json()) for item in inputs.items)
    rows = len(inputs.items) * inputs.config.loop.replicas
    kept = rows * RECORD_BYTES + prompts * PROMPT_COPIES * inputs.config.loop.replicas + texts * ANSWER_COPIES
    return round(PAGES * (calls * CALL_BYTES + texts) + kept + REPORT_BYTES)


def _generating(shape: _Shape, plan: Plan, config: RunConfig) -> int:
    """Weights, cache, and the largest pass of one engine."""
    if not any(each.calls for each in plan.calls):
        return 0
    prefill = config.engine.batch_tokens or (GPU_PREFILL_TOKENS if shape.on_gpu else CPU_PREFILL_TOKENS)
    rows = min(config.engine.max_batch or SLOTS, max(each.calls for each in plan.calls))
    longest = max(
        each.prompt_tokens / each.calls * 1.5 + each.most_new_tokens / each.calls for each in plan.calls if each.calls
    )
    cache = rows * longest * shape.cache_bytes_per_token
    cache = cache if shape.on_gpu else min(cache, CPU_CACHE_BYTES)
    activations = prefill * (6 * shape.width + 3 * shape.number("intermediate_size", 4 * shape.width)) * 4
    logits = 2 * rows * shape.logits_bytes_per_token
    return round(shape.parameters * shape.item_bytes + cache + activations + logits)


def _training(opened: LoadedModel, settings: TrainingSettings) -> int:
    """Of a pass that is full to the brim, all of it replies: rows are not known yet."""
    from cai.training.memory import training_memory
    from cai.training.skeleton import Skeleton

    full = settings.tokens_per_forward
    return training_memory(Skeleton(opened, settings), settings, opened.device, tokens=full, slots=full).device_bytes


def shortage(found: Footprint) -> Sequence[str]:
    """What this machine has too little of, in words."""
    lacking: list[str] = []
    if found.peak_bytes > found.free_bytes:
        lacking.append("disk")
    if found.memory_bytes > found.machine_bytes:
        lacking.append("memory")
    return lacking
