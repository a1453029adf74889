"""Quantised weights: which packages they need, which devices can hold them, and what transformers is told.

Two cases: full weights that are to be made smaller while they are read (`ModelSpec.quantization`), and checkpoints whose
`config.json` says that they are quantised already. Importing this module costs nothing: no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cai.errors import ModelError
from cai.models.spec import Quantization

if TYPE_CHECKING:
    import torch

_DEQUANTISABLE = frozenset({"fp8", "mxfp8", "mxfp4"})
"""Formats that transformers can turn into ordinary weights on any machine."""
_STORED_PACKAGES: dict[str, tuple[str, ...]] = {
    "bitsandbytes": ("bitsandbytes",),
    "torchao": ("torchao",),
    "awq": ("gptqmodel",),
    "gptq": ("optimum", "gptqmodel"),
    "compressed-tensors": ("compressed_tensors",),
    "hqq": ("hqq",),
    "quanto": ("optimum.quanto",),
    "aqlm": ("aqlm",),
    "eetq": ("kernels",),
    "fbgemm_fp8": ("fbgemm_gpu",),
    "auto-round": ("auto_round",),
    "quark": ("quark",),
}
_DISTRIBUTIONS = {
    "compressed_tensors": "compressed-tensors",
    "optimum.quanto": "optimum-quanto",
    "fbgemm_gpu": "fbgemm-gpu",
    "auto_round": "auto-round",
    "quark": "amd-quark",
}
"""Where a package is installed by another name than it is imported by."""


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """What a checkpoint's config says about its weights: the method, and how to say it in one word (`bitsandbytes 4 bit`)."""

    method: str
    label: str


def stored_quantization(config: dict[str, Any]) -> StoredQuantization | None:
    """How the weights of a checkpoint are quantised, by its `config.json`; None if they are not."""
    settings = _stored_settings(config)
    if settings is None:
        return None
    bits = "4" if settings.get("load_in_4bit") else "8" if settings.get("load_in_8bit") else ""
    method = str(settings.get("quant_method") or ("bitsandbytes" if bits else "unknown"))
    return StoredQuantization(method, f"{method} {bits} bit" if bits else method)


def quantization_problems(name: str, wanted: Quantization | None, config: dict[str, Any] | None) -> list[ModelError]:
    """What can be seen to be wrong before anything is loaded: a package that is missing, or weights quantised twice.

    Args:
        name: What to call the model.
        wanted: From `ModelSpec.quantization`.
        config: The checkpoint's `config.json`; None where it is not known.
    """
    stored = stored_quantization(config or {})
    if wanted is not None and stored is not None:
        return [
            ModelError(
                f"model {name}: its weights are quantised already ({stored.label}); they cannot be quantised again ({wanted}).",
                "Leave `quantization` out, or take the checkpoint with full weights.",
            )
        ]
    if wanted is not None:
        return _missing(f"quantization {wanted}", (_package(wanted),))
    if stored is None or stored.method in _DEQUANTISABLE:
        return []
    if stored.method not in _STORED_PACKAGES and stored.method not in _known_methods():
        return [
            ModelError(
                f"model {name}: its weights are quantised by `{stored.method}`, unknown to this version of transformers.",
                "Take the checkpoint with full weights, or serve this one and use it over HTTP.",
            )
        ]
    return _missing(f"model {name}: its weights are quantised ({stored.label}); that", _STORED_PACKAGES.get(stored.method, ()))


def check_quantization_device(wanted: Quantization, device: torch.device) -> None:
    """Refuse a device for which the package has no kernels.

    Raises:
        ModelError: With what to use instead.
    """
    import torch

    if wanted.startswith("bnb-"):
        known: set[str] = getattr(importlib.import_module("bitsandbytes"), "supported_torch_devices", {"cuda"})
        if device.type not in known:
            raise ModelError(
                f"quantization {wanted}: this version of bitsandbytes cannot use {device}, only {', '.join(sorted(known))}.",
                "Use another device or a newer bitsandbytes, or leave `quantization` out.",
            )
    if wanted == "torchao-fp8" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise ModelError(
            f"quantization {wanted}: {torch.cuda.get_device_name(device)} has no 8-bit floating point.",
            "Use `torchao-int8` or `bnb-8bit` there.",
        )


def quantization_settings(wanted: Quantization | None, config: dict[str, Any], dtype: torch.dtype) -> Any:
    """The `quantization_config` that `from_pretrained` is to be given; None where it needs none.

    Formats that run on kernels from a repository are turned into ordinary weights instead, unless the `kernels` package, which
    fetches such kernels, was installed by whoever set up this machine.

    Args:
        wanted: From `ModelSpec.quantization`.
        config: The checkpoint's `config.json`.
        dtype: Precision of the arithmetic.
    """
    from transformers.utils.quantization_config import BitsAndBytesConfig, FineGrainedFP8Config, Mxfp4Config, TorchAoConfig

    match wanted:
        case "bnb-4bit":
            return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        case "bnb-8bit":
            logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)  # it warns of float16 in every layer
            return BitsAndBytesConfig(load_in_8bit=True)
        case "torchao-int8" | "torchao-fp8":
            ways = cast("Any", importlib.import_module("torchao.quantization"))
            return TorchAoConfig(ways.Int8WeightOnlyConfig() if wanted == "torchao-int8" else ways.Float8WeightOnlyConfig())
        case None:
            pass
    stored = stored_quantization(config)
    if stored is None or stored.method not in _DEQUANTISABLE or importlib.util.find_spec("kernels") is not None:
        return None
    if stored.method == "mxfp4":
        return Mxfp4Config(dequantize=True)
    whole = (_stored_settings(config) or {}).get("modules_to_not_convert")
    return FineGrainedFP8Config(dequantize=True, modules_to_not_convert=whole)


def _stored_settings(config: dict[str, Any]) -> dict[str, Any] | None:
    text = cast("dict[str, Any]", config.get("text_config") or {})
    found: object = config.get("quantization_config") or text.get("quantization_config")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _package(wanted: Quantization) -> str:
    return "bitsandbytes" if wanted.startswith("bnb-") else "torchao"


def _known_methods() -> frozenset[str]:
    """Of this version of transformers; imports torch, so it is asked last."""
    from transformers.utils.quantization_config import QuantizationMethod

    return frozenset(method.value for method in QuantizationMethod)


def _missing(what: str, packages: tuple[str, ...]) -> list[ModelError]:
    missing = [package for package in packages if not _is_installed(package)]
    if not missing:
        return []
    names = " ".join(_DISTRIBUTIONS.get(package, package) for package in missing)
    plural = "packages" if len(missing) > 1 else "package"
    return [ModelError(f"{what} needs the {plural} `{names}`.", f"Install: pip install {names}")]


def _is_installed(package: str) -> bool:
    parent = package.partition(".")[0]
    return importlib.util.find_spec(parent) is not None and importlib.util.find_spec(package) is not None
