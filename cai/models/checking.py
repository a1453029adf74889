"""What can be seen to be wrong with a model before anything is loaded. Reads file names, small JSON files and headers only."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from cai.errors import CaiError, ModelError
from cai.models.embedded import EMBEDDED_HUB_ID, EMBEDDED_NAME, INSTALL_HINT, gguf_support, packaged_gguf
from cai.models.placement import placement_problems
from cai.models.quantization import quantization_problems, stored_quantization
from cai.models.resolving import (
    FEEDBACK_ADAPTER,
    cached_embedded,
    hub_offline,
    hub_problem,
    is_path,
    shipped_adapter,
    similar_name,
    unreachable,
    unreachable_hint,
)
from cai.models.spec import ModelSpec

_SENTENCE_PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_TOKENIZER_FILES = ("tokenizer.json", *_SENTENCE_PIECES, "vocab.json", "vocab.txt", "tekken.json")
_WITHOUT_FILES = frozenset({"ByT5Tokenizer"})
"""Tokenizers whose vocabulary is all bytes."""
_LONGEST_HEADER_BYTES = 100_000_000


def check_model(spec: ModelSpec, *, weights: bool = True) -> list[CaiError]:
    """Everything that is plainly wrong with a model, found in milliseconds and without torch; empty if it looks usable.

    A hub id that is not in the local hub cache is asked for over the network (files' names only), unless offline.

    Args:
        spec: Which model, and how.
        weights: Whether weights, adapter and config are needed; without them only what turns conversations into tokens is.

    A model on a server has no weights here: its server is asked for it; without `weights` its tokenizer is looked for.
    """
    if spec.server is not None and weights:
        from cai.models.served import check_served

        return check_served(spec)
    spec = spec.tokenizer_place
    problems: list[CaiError] = [*placement_problems(spec)] if weights else []
    folder = _place(spec, problems, weights=weights)
    if weights:
        config = _read_json(folder / "config.json", []) if folder is not None else None
        problems += quantization_problems(spec.name, spec.quantization, config)
    if folder is not None:
        _check_folder(folder, spec, problems, weights=weights)
    adapter = _adapter_place(spec, problems) if weights else None
    if adapter is not None:
        _check_adapter(adapter, folder, spec, problems)
    if spec.chat_template is not None:
        _check_template_file(spec.chat_template, problems)
    return problems


def check_trainable(spec: ModelSpec) -> list[CaiError]:
    """Why a model that can be used cannot be trained; empty if it can. What `check_model` finds is not repeated."""
    folder = _place(spec, [], weights=True)
    config = _read_json(folder / "config.json", []) if folder is not None else None
    stored = stored_quantization(config or {})
    quantised = spec.quantization or (stored.label if stored else None)
    problems: list[CaiError] = []
    if quantised is not None:
        problems.append(
            ModelError(
                f"model {spec}: its weights are quantised ({quantised}) and cannot hold the small steps of training.",
                "Train the checkpoint with full weights (`lora` where memory is short), or leave training out (`dpo: null`).",
            )
        )
    if spec.placement != "one":
        problems.append(ModelError(f"model {spec}: training takes one device, not placement {spec.placement}.", "Use `one`."))
    return problems


def _place(spec: ModelSpec, problems: list[CaiError], *, weights: bool) -> Path | None:
    path = Path(spec.name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists() and any(path.glob("*.gguf")):
            problems.append(ModelError(f"model {spec.name}: is a folder of GGUF files.", "Give the path of one of them."))
            return None
        return path
    if path.is_file():
        if path.suffix != ".gguf":
            problems.append(ModelError(f"model {spec.name}: is a file.", "Give the folder it lies in."))
        elif not gguf_support():
            problems.append(
                ModelError(f"model {spec.name}: GGUF files need the `gguf` package.", "Install it: pip install gguf")
            )
        return None
    if spec.name.lower() == EMBEDDED_NAME:
        cached = cached_embedded()
        if cached is None:
            _check_embedded(problems)
        return cached
    if is_path(spec.name):
        hint = f"Give a model folder, a hub id or `{EMBEDDED_NAME}`.{similar_name(spec.name)}"
        problems.append(ModelError(f"model {spec.name}: there is no such folder.", hint))
        return None
    return _hub_place(spec.name, spec.revision, problems, weights=weights)


def _check_embedded(problems: list[CaiError]) -> None:
    if packaged_gguf() is not None:
        if not gguf_support():
            problems.append(
                ModelError(f"model {EMBEDDED_NAME}: its file needs the `gguf` package.", "Install it: pip install gguf")
            )
        return
    missing: list[CaiError] = []
    _hub_place(EMBEDDED_HUB_ID, None, missing)
    if missing:
        problems.append(
            ModelError(f"model {EMBEDDED_NAME}: not in the cache, not installed, and the hub cannot be reached.", INSTALL_HINT)
        )


def _hub_place(
    name: str, revision: str | None, problems: list[CaiError], *, weights: bool = True, kind: str = "model"
) -> Path | None:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    settings = "adapter_config.json" if kind == "adapter" else "config.json"
    try:
        cached = try_to_load_from_cache(name, settings, revision=revision)
        # A preview fetches the tokenizer without the weights: then the rest has still to come.
        if isinstance(cached, str) and (not weights or any(Path(cached).parent.glob("*.safetensors"))):
            return Path(cached).parent
        if hub_offline():
            problems.append(ModelError(f"{kind} {name}: {unreachable()}", unreachable_hint(name)))
            return None
        names = HfApi().list_repo_files(name, revision=revision)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        problems.append(hub_problem(kind, name, revision, error))
        return None
    if weights and not any(each.endswith(".safetensors") for each in names):
        problems.append(_no_weights_on_hub(kind, name, names))
    return None


def _no_weights_on_hub(kind: str, name: str, names: Sequence[str]) -> ModelError:
    if any(each.endswith(".gguf") for each in names):
        return ModelError(
            f"{kind} {name}: has GGUF files only.",
            f"Fetch one of them, then give its path: hf download {name} FILE.gguf --local-dir DIR",
        )
    pickled = any(each.endswith((".bin", ".pt", ".pth")) for each in names)
    return _no_safetensors(f"{kind} {name}", pickled=pickled)


def _check_folder(folder: Path, spec: ModelSpec, problems: list[CaiError], *, weights: bool) -> None:
    config = _read_json(folder / "config.json", problems)
    if config is None:
        if (folder / "adapter_config.json").is_file():
            problems.append(
                ModelError(
                    f"model {folder}: is an adapter, not a model.",
                    "Give the model it was trained on as `name`, and this as `adapter`.",
                )
            )
            return
        if weights and not (folder / "config.json").exists():
            problems.append(ModelError(f"model {folder}: has no config.json.", "Give the folder that `save_pretrained` wrote."))
    elif config.get("is_encoder_decoder"):
        problems.append(
            ModelError(f"model {folder}: is an encoder-decoder.", "Use a model that writes on (a causal language model).")
        )
    elif config.get("auto_map") and not _known_to_transformers(str(config.get("model_type"))):
        problems.append(
            ModelError(
                f"model {folder}: brings code of its own, and code from repositories is never run.",
                "Use a model that transformers itself knows, or serve it and use it over HTTP.",
            )
        )
    if weights:
        _check_weights(folder, problems)
    if not _check_tokenizer(folder, problems):
        return
    known = len(problems)
    templated = _has_chat_template(folder, problems)
    if not templated and len(problems) == known and spec.base_model_form != "plain" and spec.chat_template is None:
        problems.append(no_chat_template(str(folder)))


def _check_tokenizer(folder: Path, problems: list[CaiError]) -> bool:
    """Whether there is a tokenizer that can be read here."""
    if (folder / "tokenizer.json").is_file():
        return True
    pieces = [name for name in _SENTENCE_PIECES if (folder / name).is_file()]
    if pieces and importlib.util.find_spec("sentencepiece") is None:
        problems.append(
            ModelError(
                f"model {folder}: its tokenizer ({pieces[0]}) is in SentencePiece's format; there is no tokenizer.json.",
                "Install what reads it: pip install sentencepiece protobuf",
            )
        )
        return False
    settings = _read_json(folder / "tokenizer_config.json", []) or {}
    if settings.get("tokenizer_class") in _WITHOUT_FILES or any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return True
    problems.append(
        ModelError(f"model {folder}: has no tokenizer.", "Save the tokenizer beside the model: tokenizer.save_pretrained(DIR)")
    )
    return False


def _known_to_transformers(model_type: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def no_chat_template(name: str) -> ModelError:
    return ModelError(
        f"model {name}: has no chat template; it looks like a base model.",
        "Take its chat variant, or give `chat_template: FILE`, or write `base_model_form: plain` for Human/Assistant text.",
    )


def _has_chat_template(folder: Path, problems: list[CaiError]) -> bool:
    settings = _read_json(folder / "tokenizer_config.json", problems)
    beside = any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json"))
    return beside or bool(settings and settings.get("chat_template"))


def _check_weights(folder: Path, problems: list[CaiError]) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        problems.append(_no_safetensors(f"model {folder}", pickled=any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))))
        return
    for file in files:
        _safetensors_header(file, problems)
    index = _read_json(folder / "model.safetensors.index.json", problems)
    weight_map = cast("dict[str, str]", (index or {}).get("weight_map", {}))
    missing = sorted(set(weight_map.values()) - {file.name for file in files})
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        problems.append(ModelError(f"model {folder}: {len(missing)} weight files are missing ({shown}).", "Download it again."))


def _no_safetensors(what: str, *, pickled: bool) -> ModelError:
    if pickled:
        return ModelError(
            f"{what}: its weights are pickles (.bin), which can run code when they are read.",
            "Take a revision with .safetensors files, or convert it where you trust it: model.save_pretrained(DIR)",
        )
    return ModelError(f"{what}: has no .safetensors weights.", "Give the folder that `save_pretrained` wrote.")


def _safetensors_header(file: Path, problems: list[CaiError]) -> dict[str, Any] | None:
    """Names and shapes of a safetensors file's tensors; None, and a problem, if the file is not whole."""
    try:
        with file.open("rb") as opened:
            start = opened.read(8)
            length = int.from_bytes(start, "little")
            text = opened.read(length) if length < _LONGEST_HEADER_BYTES else b""
        size = file.stat().st_size
    except OSError as error:
        problems.append(ModelError(f"{file}: cannot be read: {error.strerror}.", "Check the file's permissions."))
        return None
    if start.startswith(b"version "):
        problems.append(ModelError(f"{file}: is a Git LFS pointer, not the weights.", "Fetch them: git lfs pull"))
        return None
    try:
        header: dict[str, Any] = json.loads(text)
        end = (
            8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        header, end = {}, size + 1
    if size < end:
        problems.append(ModelError(f"{file}: is cut off or damaged ({size:,} bytes).", "Download or save it again."))
        return None
    return header


def _adapter_place(spec: ModelSpec, problems: list[CaiError]) -> Path | None:
    if spec.adapter is None:
        return None
    path = Path(spec.adapter).expanduser()
    if path.is_dir():
        return path
    if spec.adapter == FEEDBACK_ADAPTER:
        if shipped_adapter().is_dir():
            return shipped_adapter()
        problems.append(
            ModelError("adapter feedback: this installation comes without it.", "Install the package again, or train one.")
        )
    elif is_path(spec.adapter):
        hint = f"Give an adapter folder, a hub id or `{FEEDBACK_ADAPTER}`, the shipped one."
        problems.append(ModelError(f"adapter {spec.adapter}: there is no such folder.", hint))
    else:
        return _hub_place(spec.adapter, None, problems, kind="adapter")
    return None


def _check_adapter(adapter: Path, model: Path | None, spec: ModelSpec, problems: list[CaiError]) -> None:
    if _read_json(adapter / "adapter_config.json", problems) is None:
        if not (adapter / "adapter_config.json").exists():
            problems.append(
                ModelError(
                    f"adapter {adapter}: has no adapter_config.json.", "Give the folder that peft's `save_pretrained` wrote."
                )
            )
        return
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        problems.append(_no_safetensors(f"adapter {adapter}", pickled=(adapter / "adapter_model.bin").is_file()))
        return
    header = _safetensors_header(weights, problems)
    config = _read_json(model / "config.json", []) if model else None
    if header is None or config is None:
        return
    hidden = config.get("hidden_size")
    for name, entry in header.items():
        # The input of a query projection is as wide as the model, whatever the family.
        if re.search(r"q_proj\.lora_A", name) and isinstance(hidden, int) and entry["shape"][1] != hidden:
            problems.append(
                ModelError(
                    f"adapter {adapter}: was trained on a model {entry['shape'][1]} wide; {spec.name} is {hidden} wide.",
                    "Use the adapter with the model it was trained on (adapter_config.json names it).",
                )
            )
            return


def _check_template_file(file: Path, problems: list[CaiError]) -> None:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        # Parsed, not rendered; the extension lets transformers' {% generation %} blocks through.
        text = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", file.read_text(encoding="utf-8"))
        Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False).parse(text)  # noqa: S701 - not HTML
    except OSError as error:
        problems.append(ModelError(f"{file}: the chat template cannot be read: {error.strerror}.", "Check `chat_template`."))
    except UnicodeDecodeError:
        problems.append(ModelError(f"{file}: the chat template is not UTF-8 text.", "Save it as UTF-8."))
    except TemplateSyntaxError as error:
        problems.append(ModelError(f"{file}:{error.lineno}: not a jinja template: {error.message}.", "Mend the template."))


def _read_json(file: Path, problems: list[CaiError]) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        problems.append(ModelError(f"{file}: is not JSON: {error}.", "Download or save the model again."))
        return None
    if not isinstance(content, dict):
        problems.append(ModelError(f"{file}: is JSON, but not an object.", "Download or save the model again."))
        return None
    return cast("dict[str, Any]", content)
