"""On which devices a model's weights go: one, all that are there, or split over the processes of a `torchrun`.

`placement_problems` needs no torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cai.errors import ModelError
from cai.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch


def placement_problems(spec: ModelSpec) -> list[ModelError]:
    """Settings of device and placement that do not go together, or not with how this process was started."""
    problems: list[ModelError] = []
    if spec.placement != "one" and spec.device not in {"auto", "cpu"}:
        problems.append(
            ModelError(
                f"device {spec.device}: placement {spec.placement} chooses the devices itself.",
                "Leave `device` out (CUDA_VISIBLE_DEVICES hides devices), or use `placement: one`.",
            )
        )
    if spec.placement == "tensor_parallel" and processes() < 2:
        problems.append(
            ModelError(
                "placement tensor_parallel: this is one process; each device needs its own.",
                "Start it with torchrun --nproc-per-node N (see examples/tensor_parallel.py), or use `placement: auto`.",
            )
        )
    if spec.placement == "auto" and processes() > 1:
        problems.append(
            ModelError(
                f"placement auto: {processes()} processes were started, and each would take all devices.",
                "Use `placement: tensor_parallel`, or start one process.",
            )
        )
    if spec.placement == "tensor_parallel" and (spec.quantization is not None or spec.adapter is not None):
        setting = "quantization" if spec.quantization is not None else "adapter"
        problems.append(
            ModelError(
                f"{setting}: placement tensor_parallel splits full weights only.",
                f"Leave `{setting}` out, or merge the adapter and save the model first, or use `placement: auto`.",
            )
        )
    return problems


def processes() -> int:
    """How many processes `torchrun` started together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def choose_device(spec: ModelSpec) -> torch.device:
    """The device asked for; "auto" is the first GPU (under `torchrun` that of this process), else the CPU.

    Raises:
        ModelError: If a device is asked for that is not there.
    """
    import torch

    if spec.device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if processes() > 1 else torch.device("cuda")
    device = torch.device(spec.device)
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "xpu": torch.xpu.device_count() if torch.xpu.is_available() else 0,
    }
    if not there[device.type]:
        raise ModelError(
            f"device {spec.device}: this machine (or this build of torch) has none.", "Use `device: auto` or `cpu`."
        )
    if (device.index or 0) >= there[device.type]:
        raise ModelError(
            f"device {spec.device}: this machine has {there[device.type]} of them, counted from 0.",
            f"Use `device: {device.type}` or a lower number.",
        )
    return device


def placement_settings(spec: ModelSpec, device: torch.device, *, quantised: bool) -> dict[str, Any]:
    """What `from_pretrained` is told about devices; empty where the model is moved to its one device afterwards.

    Args:
        spec: What was asked for; `placement_problems` found nothing wrong with it.
        device: From `choose_device`.
        quantised: Quantised weights are made on their device and cannot be moved as others can.
    """
    if spec.placement == "tensor_parallel":
        from transformers.distributed.configuration_utils import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    if spec.placement == "auto" and spec.device == "auto":
        return {"device_map": "auto"}
    return {"device_map": {"": device}} if quantised or spec.placement == "auto" else {}


def devices_of(model: Any) -> list[str]:
    """Where the weights are, each device once, in the order of the layers. `disk` stands for layers that memory cannot hold."""
    placed: dict[str, object] = getattr(model, "hf_device_map", None) or {}
    if len(placed) < 2:
        return [str(next(model.parameters()).device)]
    return list(dict.fromkeys(f"cuda:{place}" if isinstance(place, int) else str(place) for place in placed.values()))
