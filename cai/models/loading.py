"""Loads models and tokenizers: safetensors only, no code from repositories, precision and threads chosen for the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch

from cai.errors import ModelError, ProblemList
from cai.models.chat import ChatTokenizer
from cai.models.checking import check_model
from cai.models.fingerprints import files_digest, text_digest
from cai.models.footprint import footprint
from cai.models.placement import choose_device, placement_settings
from cai.models.progress import LOGGER, no_bars, said_when_slow
from cai.models.quantization import check_quantization_device, quantization_settings, stored_quantization
from cai.models.resolving import ModelPlace, resolve, resolve_tokenizer
from cai.models.spec import ModelSpec
from constitution.messages import user

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HeadKind: TypeAlias = Literal["language", "reward"]
"""What a model ends in: logits of the next token, or rewards of the whole text (transformers' sequence classification)."""

SMALL_MODEL_PARAMETERS = 20_000_000
"""Below this a second thread costs more than it brings: a tiny model's layers take microseconds."""
_MERGE_IN_FLOAT32_BYTES = 4 * 1024**3
_THREADS = torch.get_num_threads()


@dataclass
class LoadedModel:
    """A model ready for use. Weights are read at the first use of `model`: a run whose calls are all remembered needs none.

    Args:
        spec: As it was asked for.
        place: Where the files lie.
        tokenizer: With the chat template.
        fingerprint: Identifies weights, adapter, precision, quantisation, tokenizer and template.
        device: Where the weights go.
        dtype: Their precision.
        read: Reads the weights.
        config: The model's `config.json`.
        head: With which the weights are read.
    """

    spec: ModelSpec
    place: ModelPlace
    tokenizer: ChatTokenizer
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    read: Callable[[], PreTrainedModel] = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    head: HeadKind = "language"

    @property
    def source(self) -> str:
        """Where the weights came from, in words for the manifest."""
        return self.place.source

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer the model was made for, in tokens."""
        return context_length(self.config)

    @property
    def quantization(self) -> str | None:
        """How the weights are quantised, by the checkpoint or by the spec; None for full weights."""
        stored = stored_quantization(self.config)
        return self.spec.quantization or (stored.label if stored else None)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The weights, read once; see `new_model`."""
        return self.new_model()

    def new_model(self) -> PreTrainedModel:
        """The weights read anew, in evaluation mode, and not kept here: for whoever changes them.

        What was loaded, and where to, is said on the logger `cai.models`.

        Raises:
            ModelError: If the files cannot be loaded as a causal language model.
        """
        model = self.read()
        LOGGER.info(footprint(str(self.spec), model, self.quantization))
        choose_threads(sum(weight.numel() for weight in model.parameters()), self.device)
        return model


def open_model(spec: ModelSpec, *, merge: bool = True, head: HeadKind | None = "language") -> LoadedModel:
    """Find a model, check it, load its tokenizer; its weights follow at the first use of `.model`.

    Args:
        spec: Which model, and how.
        merge: Whether an adapter is merged into the weights (for inference) or kept around them (for training).
        head: With which head the weights are read; None: the one that they have.

    Raises:
        ModelError: One problem, with what to do.
        ProblemList: Several.
    """
    if spec.server is not None:
        raise ModelError(f"model {spec.name}: is on a server; its weights are not here.", "Name the weights, without `server`.")
    problems = check_model(spec)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ProblemList(f"The model {spec} cannot be used:", problems)
    place = resolve(spec)
    # What came from the hub or a GGUF file could not be checked before it was here.
    here = {"name": str(place.folder), "adapter": str(place.adapter) if place.adapter else None}
    if problems := check_model(spec.model_copy(update=here)):
        raise ProblemList(f"The model {spec} cannot be used:", problems)
    config = json.loads((place.folder / "config.json").read_text(encoding="utf-8"))
    head = head or ("reward" if has_reward_head(config) else "language")
    if head == "reward" and not has_reward_head(config):
        made_for = ", ".join(config.get("architectures") or ()) or "nothing that it names"
        raise ModelError(
            f"model {spec}: is no reward model (its config.json says {made_for}).",
            "Train one with `cai reward`, or name a sequence classifier.",
        )
    if head == "language" and has_reward_head(config):
        raise ModelError(f"model {spec}: is a reward model: it writes no text.", "Give a language model.")
    device = choose_device(spec)
    if spec.quantization is not None:
        check_quantization_device(spec.quantization, device)
    dtype = choose_dtype(spec, device)
    tokenizer = _load_tokenizer(spec, place.folder)
    _refuse_foreign_tokenizer(place.folder, tokenizer, config)
    fingerprint = model_fingerprint(place, dtype, tokenizer, spec.quantization)

    def read() -> PreTrainedModel:
        return load_weights(spec, place, config, device, dtype, merge=merge, head=head)

    return LoadedModel(spec, place, tokenizer, fingerprint, device, dtype, read, config, head)


def load_model(spec: ModelSpec, *, merge: bool = True) -> LoadedModel:
    """As `open_model`, with the weights read now."""
    loaded = open_model(spec, merge=merge)
    _ = loaded.model
    return loaded


def load_tokenizer(spec: ModelSpec) -> ChatTokenizer:
    """Only the tokenizer, with its chat template.

    Raises:
        ModelError: If it cannot be found or read, or has no chat template though one is asked for.
    """
    return open_tokenizer(spec)[0]


def open_tokenizer(spec: ModelSpec) -> tuple[ChatTokenizer, int | None]:
    """The tokenizer with its chat template, and the context length in tokens that the model's config gives (None: no config).

    Weights are neither fetched nor looked for.

    Raises:
        ModelError: If it cannot be found or read, or has no chat template though one is asked for.
        ProblemList: Several such problems.
    """
    spec = spec.tokenizer_place
    problems = check_model(spec, weights=False)
    folder = None if problems else resolve_tokenizer(spec)
    if folder is not None:
        problems = check_model(spec.model_copy(update={"name": str(folder)}), weights=False)
    if len(problems) == 1:
        raise problems[0]
    if folder is None or problems:
        raise ProblemList(f"The tokenizer of {spec.name} cannot be used:", problems)
    config = folder / "config.json"
    context_tokens = context_length(json.loads(config.read_text(encoding="utf-8"))) if config.is_file() else None
    return _load_tokenizer(spec, folder), context_tokens


def has_reward_head(config: dict[str, Any]) -> bool:
    """Whether a `config.json` is that of a sequence classifier."""
    return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def load_weights(
    spec: ModelSpec,
    place: ModelPlace,
    config: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    *,
    merge: bool = True,
    head: HeadKind = "language",
) -> PreTrainedModel:
    """The model itself, in evaluation mode, its adapter merged in or (with `merge=False`) around it as a `PeftModel`.

    An adapter is never merged into quantised weights, which could not hold the sum, nor into weights spread over devices: its
    layers then stay beside those of the model.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto: Any = AutoModelForCausalLM if head == "language" else AutoModelForSequenceClassification
    quantisation = quantization_settings(spec.quantization, config, dtype)
    quantised = quantisation is not None or stored_quantization(config) is not None
    placed = placement_settings(spec, device, quantised=quantised)
    beside = bool(placed)
    # Adding a small update to bfloat16 weights loses most of its bits, so small models are merged in float32 and cast then.
    weights_bytes = sum(file.stat().st_size for file in place.folder.glob("*.safetensors"))
    exact = place.adapter is not None and merge and not beside and weights_bytes < _MERGE_IN_FLOAT32_BYTES
    with no_bars(), said_when_slow(f"Reading the weights of {place.folder} ({weights_bytes / 1e9:.1f} GB)."):
        try:
            model, report = auto.from_pretrained(
                str(place.folder),
                dtype=torch.float32 if exact else dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **({} if quantisation is None else {"quantization_config": quantisation}),
                **placed,
            )
            _refuse_missing(place.folder, report["missing_keys"])
            if place.adapter is not None:
                model = _add_adapter(model, place.adapter, merge=merge, beside=beside)
            if not beside:
                model = model.to(device=device, dtype=dtype) if merge or place.adapter is None else model.to(device)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"model {place.folder}: does not fit on {device}.",
                "Use a smaller model, `quantization: bnb-4bit`, or `placement: auto` with more devices.",
            ) from error
        except (ValueError, OSError, KeyError, TypeError, RuntimeError, ImportError) as error:
            raise ModelError(
                f"model {place.folder}: cannot be loaded: {_first_line(error)}",
                "It must be a model that transformers itself knows; code from repositories is never run.",
            ) from error
    return model.eval()


def model_fingerprint(place: ModelPlace, dtype: torch.dtype, tokenizer: ChatTokenizer, quantization: str | None = None) -> str:
    """SHA-256 over contents of weights, config and adapter, precision and quantisation, and the tokenizer with its template.

    Where the files lie and on which devices they run does not matter.
    """
    config = place.folder / "config.json"
    generation = place.folder / "generation_config.json"
    weights = files_digest([*place.folder.glob("*.safetensors"), config, *([generation] if generation.is_file() else [])])
    adapter = place.adapter
    added = files_digest([adapter / "adapter_model.safetensors", adapter / "adapter_config.json"]) if adapter else ""
    quantised = () if quantization is None else (quantization,)
    return text_digest(weights, added, str(dtype), tokenizer.template_fingerprint, *quantised)


def choose_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """The precision asked for; "auto" is bfloat16 on GPUs, and on CPUs that multiply it themselves (1.5 to 2 times as fast)."""
    if spec.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[spec.dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type != "cpu":
        return torch.float32
    able = cpu_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def cpu_capabilities() -> dict[str, Any]:
    """What torch says this processor can do; empty where it does not say."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return dict(ask())
    old = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return {"avx512_bf16": bool(old())} if old is not None else {}


def choose_threads(parameters: int, device: torch.device) -> None:
    """One thread for tiny models on the CPU, the process's own number for others; `OMP_NUM_THREADS` is respected."""
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if parameters < SMALL_MODEL_PARAMETERS else _THREADS)


def context_length(config: dict[str, Any]) -> int:
    """Positions the model has, from its config; 2,048 where it does not say."""
    text: dict[str, Any] = config.get("text_config") or config
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length"):
        value = text.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return 2048


def _load_tokenizer(spec: ModelSpec, folder: Path) -> ChatTokenizer:
    from transformers import AutoTokenizer

    with no_bars(), said_when_slow(f"Reading the tokenizer of {spec.name}."):
        try:
            tokenizer = cast("Any", AutoTokenizer).from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        except Exception as error:  # tokenizers raises bare Exceptions for damaged files
            raise ModelError(
                f"model {folder}: its tokenizer cannot be loaded: {_first_line(error)}", "Save or download it again."
            ) from error
    template = spec.chat_template.read_text(encoding="utf-8") if spec.chat_template else None
    return ChatTokenizer(
        tokenizer,
        name=spec.name,
        plain=spec.base_model_form == "plain",
        chat_template=template,
        thinking=spec.thinking,
        eos_ids=_end_tokens(folder),
    )


def _end_tokens(folder: Path) -> list[int]:
    """End-of-text tokens that the model's own settings name."""
    ids: list[int] = []
    for file in (folder / "generation_config.json", folder / "config.json"):
        if file.is_file():
            named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
            each = cast("list[object]", named) if isinstance(named, list) else [named]
            ids += [token for token in each if isinstance(token, int)]
    return ids


def _refuse_missing(folder: Path, missing: Iterable[str]) -> None:
    """Weights that the files lack would be random numbers; transformers only warns."""
    names = sorted(missing)
    if names:
        shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        raise ModelError(
            f"model {folder}: {len(names)} of its weights are in none of its files ({shown}).", "Download or save it again."
        )


def _refuse_foreign_tokenizer(folder: Path, tokenizer: ChatTokenizer, config: dict[str, Any]) -> None:
    """A prompt with tokens that the model has no embedding for would fail on the device, without a word of why."""
    rows = (config.get("text_config") or config).get("vocab_size")
    highest = max(tokenizer.encode_chat((user("x"),)))
    if isinstance(rows, int) and highest >= rows:
        raise ModelError(
            f"model {folder}: its tokenizer writes token {highest:,} into every prompt; the model knows {rows:,} tokens.",
            "Use the tokenizer (and chat template) that the model was trained with.",
        )


def _add_adapter(model: Any, adapter: Path, *, merge: bool, beside: bool) -> Any:
    from peft import PeftModel

    wrapped = cast("Any", PeftModel).from_pretrained(model, str(adapter), is_trainable=not merge, use_safetensors=True)
    if not merge:
        return wrapped
    return wrapped.get_base_model() if beside else wrapped.merge_and_unload()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
