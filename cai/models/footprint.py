"""What a loaded model is and takes: parameters, precision, devices, bytes; in one line for whoever is watching."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from cai.models.placement import devices_of, processes

_COUNTS = ("", "k", "M", "B")
_BYTES = (" B", " kB", " MB", " GB")


def footprint(name: str, model: Any, quantization: str | None) -> str:
    """`NAME: 135M parameters, bfloat16, cuda:0, 269 MB of weights.`

    Args:
        name: What the user calls the model.
        model: A transformers model, with or without peft around it.
        quantization: From `LoadedModel`.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
    precision = str(base.dtype).removeprefix("torch.")
    if quantization is not None:
        kept = getattr(base, "is_quantized", False)
        precision = f"{quantization}, computing in {precision}" if kept else f"{precision} from {quantization}"
    where = " + ".join(devices_of(base))
    parts = (
        f"{_short(base.num_parameters(), _COUNTS)} parameters",
        precision,
        f"{where}, process {os.environ.get('RANK', '0')} of {processes()}" if processes() > 1 else where,
        f"{_short(stored_bytes(base), _BYTES)} of weights",
    )
    return f"{name}: {', '.join(parts)}."


def stored_bytes(model: Any) -> int:
    """What the weights and buffers of a model take in this process."""
    return sum(map(_tensor_bytes, [*model.parameters(), *model.buffers()]))


def _tensor_bytes(tensor: Tensor) -> int:
    """Of a quantised or split tensor, what its inner tensors take; its own size is that of the whole, unquantised one."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return tensor.nbytes
    inner = (getattr(tensor, name) for name in flatten()[0])
    return sum(_tensor_bytes(each) for each in inner if isinstance(each, Tensor))


def _short(count: float, units: tuple[str, str, str, str]) -> str:
    """Three digits and a unit of a thousand, a million or a billion: 135M, 7.62B; 269 MB."""
    power = next((power for power in (3, 2, 1) if count >= 1000**power), 0)
    return f"{count / 1000**power:.3g}{units[power]}"
