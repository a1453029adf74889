"""Models whose weights are spread over processes (FSDP2, DeepSpeed ZeRO): what is supported, looked at, gathered.

Tests run FSDP2 on CPUs. DeepSpeed is used through accelerate and by its documented interface; no test here runs it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from cai.errors import TrainingError


def refuse_unsupported(accelerator: Any) -> None:
    """Raise TrainingError for ways of sharing the work under which training would fail late, or compute something else."""
    fsdp = getattr(accelerator.state, "fsdp_plugin", None)
    if fsdp is not None and fsdp.fsdp_version != 2:
        raise TrainingError(
            "FSDP 1 flattens the weights that are scored with", "set fsdp_version to 2 in accelerate's settings"
        )
    deepspeed = getattr(accelerator.state, "deepspeed_plugin", None)
    if deepspeed is not None and deepspeed.zero_stage == 3:
        zero = deepspeed.deepspeed_config.get("zero_optimization", {})
        if not zero.get("stage3_gather_16bit_weights_on_model_save"):
            raise TrainingError(
                "DeepSpeed ZeRO-3 would not give the trained weights back",
                "set stage3_gather_16bit_weights_on_model_save to true in its settings",
            )
    split = getattr(accelerator, "parallelism_config", None)
    if split is not None and (split.tp_enabled or split.cp_enabled or split.sp_enabled):
        raise TrainingError(
            "tensor, context and sequence parallelism are not supported in training", "share rows and weights: use FSDP2"
        )


def broken_weight(model: nn.Module) -> str | None:
    """Name of a trained weight of which this process's share is not finite."""
    for name, weight in model.named_parameters():
        if weight.requires_grad and not bool(torch.isfinite(_own_share(weight)).all()):
            return name
    return None


def let_go_of_weights(model: nn.Module) -> None:
    """Keep of weights that FSDP2 has gathered this process's share alone, as between steps.

    Whether a weight has a gradient is a matter of the share: what is switched while the whole one is in its place is forgotten
    in the next pass. Outermost modules keep theirs whole after a pass without gradients.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _own_share(weight: Tensor) -> Tensor:
    if isinstance(weight, DTensor):
        return cast("Any", weight).to_local()
    return getattr(weight, "ds_tensor", weight)  # ZeRO-3 leaves the parameter itself empty


def gathered_weights(model: nn.Module, accelerator: Any) -> dict[str, Tensor] | None:
    """The whole weights of a sharded model, on the CPU of the first process ({} on others); None where it is not sharded.

    All processes must call it.

    Args:
        model: As the Trainer has prepared it.
        accelerator: The Trainer's.
    """
    if any(isinstance(weight, DTensor) for weight in model.parameters()):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return cast("dict[str, Tensor]", get_model_state_dict(model, options=options))
    if any(hasattr(weight, "ds_tensor") for weight in model.parameters()):
        return accelerator.get_state_dict(model) or {}
    return None
