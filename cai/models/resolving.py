"""From the name of a model to the folder that holds it: a folder, a GGUF file, the embedded model, or a hub repository."""

from __future__ import annotations

import difflib
import importlib.resources
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cai.errors import ModelError
from cai.models.embedded import (
    EMBEDDED_HUB_ID,
    EMBEDDED_NAME,
    EMBEDDED_SHA256,
    INSTALL_HINT,
    converted_folder,
    folder_from_gguf,
    packaged_gguf,
    source_of,
)
from cai.models.spec import ModelSpec

FEEDBACK_ADAPTER = "feedback"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
# What a text model needs; nothing that could hold code or pickles.
TOKENIZER_PATTERNS = ("*.json", "*.jinja", "merges.txt", "vocab.txt", "*.model", "*.tiktoken")
HUB_PATTERNS = ("*.safetensors", *TOKENIZER_PATTERNS)


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where a model lies.

    Args:
        folder: Config, safetensors weights and tokenizer.
        adapter: Folder of the adapter, if one was asked for.
        source: Where it came from, in words for the manifest: `folder …`, `SmolLM2….gguf (GGUF)`, `hub id@commit`.
    """

    folder: Path
    adapter: Path | None
    source: str


def resolve(spec: ModelSpec) -> ModelPlace:
    """Find the model's files, downloading from the hub or converting a GGUF file if need be.

    Raises:
        ModelError: If it cannot be found, with what to do.
    """
    folder, source = _resolve_name(spec)
    return ModelPlace(folder, _resolve_adapter(spec.adapter), source)


def resolve_tokenizer(spec: ModelSpec) -> Path:
    """The folder with a model's tokenizer and config; from the hub, without its weights.

    Raises:
        ModelError: If it cannot be found, with what to do.
    """
    return _resolve_name(spec, TOKENIZER_PATTERNS)[0]


def shipped_adapter() -> Path:
    """The feedback adapter that comes with this package, for `smollm2-135m`. Not necessarily there."""
    return Path(str(importlib.resources.files("cai"))) / "lab" / "adapter"


def is_path(name: str) -> bool:
    """Whether a name means something on this disk, rather than a hub repository."""
    return Path(name).expanduser().exists() or name.startswith((".", "~", "/", os.sep)) or not _HUB_ID.match(name)


def hub_offline() -> bool:
    return any(
        os.environ.get(name, "").upper() in {"1", "TRUE", "YES", "ON"} for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def similar_name(name: str) -> str:
    """A hint for a name that was not found, or ""."""
    near = difflib.get_close_matches(name.lower(), [EMBEDDED_NAME], n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else ""


def cached_embedded() -> Path | None:
    folder = converted_folder(EMBEDDED_SHA256)
    return folder if folder.is_dir() else None


def _resolve_name(spec: ModelSpec, patterns: Sequence[str] = HUB_PATTERNS) -> tuple[Path, str]:
    path = Path(spec.name).expanduser()
    if path.is_dir():
        return path, source_of(path) or f"folder {path.resolve()}"
    if path.is_file() and path.suffix == ".gguf":
        folder = folder_from_gguf(path)
        return folder, source_of(folder) or str(path)
    if spec.name.lower() == EMBEDDED_NAME:
        return _resolve_embedded(patterns)
    if is_path(spec.name):
        raise ModelError(
            f"model {spec.name}: there is no such folder.",
            f"Give a model folder, a hub id or `{EMBEDDED_NAME}`.{similar_name(spec.name)}",
        )
    return _download(spec.name, spec.revision, patterns)


def _resolve_embedded(patterns: Sequence[str]) -> tuple[Path, str]:
    cached = cached_embedded()
    if cached is None and (file := packaged_gguf()) is not None:
        cached = folder_from_gguf(file, expected=EMBEDDED_SHA256)
    if cached is not None:
        return cached, source_of(cached) or EMBEDDED_NAME
    try:
        # Not the same bits: the hub has the bfloat16 weights from which the 4-bit file was made. Fingerprints differ.
        return _download(EMBEDDED_HUB_ID, None, patterns)
    except ModelError as error:
        raise ModelError(
            f"model {EMBEDDED_NAME}: not in the cache, not installed, and the hub cannot be reached.", INSTALL_HINT
        ) from error


def _resolve_adapter(name: str | None) -> Path | None:
    if name is None:
        return None
    if name == FEEDBACK_ADAPTER and not Path(name).exists():
        folder = shipped_adapter()
        if not folder.is_dir():
            raise ModelError(f"adapter {name}: this installation comes without it.", "Install the package again, or train one.")
        return folder
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if is_path(name):
        raise ModelError(
            f"adapter {name}: there is no such folder.",
            f"Give an adapter folder, a hub id or `{FEEDBACK_ADAPTER}`, the shipped one.",
        )
    return _download(name, None, kind="adapter")[0]


def hub_problem(kind: str, name: str, revision: str | None, error: Exception) -> ModelError:
    """What went wrong with a repository of the hub, in our words.

    Args:
        kind: `model` or `adapter`.
        name: The hub id.
        revision: As it was asked for.
        error: What `huggingface_hub` raised.
    """
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    what = f"{kind} {name}"
    if isinstance(error, GatedRepoError):
        return ModelError(f"{what}: its owner asks for consent first.", "Accept its terms on its page, then `hf auth login`.")
    if isinstance(error, RepositoryNotFoundError):
        hint = f"Check the spelling, or `hf auth login` if it is private.{similar_name(name)}"
        return ModelError(f"{what}: there is no such folder here and no such repository on the hub.", hint)
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"{what}: has no branch, tag or commit `{revision}`.", "See its page for those it has.")
    if isinstance(error, HFValidationError):
        return ModelError(f"{what}: is neither a folder here nor a possible hub id.", "Hub ids look like `owner/name`.")
    return ModelError(f"{what}: {unreachable()}", unreachable_hint(name))


def _download(name: str, revision: str | None, patterns: Sequence[str] = HUB_PATTERNS, kind: str = "model") -> tuple[Path, str]:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(cast("Any", huggingface_hub).snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise hub_problem(kind, name, revision, error) from error
    return folder, f"hub {name}@{folder.name}"


def unreachable() -> str:
    if hub_offline():
        return "no such folder here, not in the local hub cache, and HF_HUB_OFFLINE is set."
    return "no such folder here, not in the local hub cache, and the hub cannot be reached."


def unreachable_hint(name: str) -> str:
    fetch = f"On a machine with a network: hf download {name} --local-dir DIR, then give DIR"
    return f"{fetch}; or unset HF_HUB_OFFLINE.{similar_name(name)}" if hub_offline() else f"{fetch}.{similar_name(name)}"
