"""The model to be trained: loading it, wrapping it in adapters, saving what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cai.errors import ModelError, TrainingError
from cai.models.checking import check_trainable
from cai.models.loading import LoadedModel, open_model
from cai.models.progress import no_bars
from cai.models.spec import ModelSpec
from cai.training.settings import LoraSettings, TrainingSettings


@dataclass(frozen=True, slots=True)
class Policy:
    """A model ready to be trained.

    Args:
        model: With LoRA a peft model, its new adapter still an exact zero.
        opened: What it was made from: tokenizer, fingerprint before training, precision of the forward pass.
        compute_dtype: Autocast to this; None where weights have the precision of the forward pass already.
    """

    model: nn.Module
    opened: LoadedModel
    compute_dtype: torch.dtype | None

    @contextlib.contextmanager
    def as_reference(self) -> Generator[None]:
        """The model as it was before training: adapter off, no dropout."""
        was_training = self.model.training
        self.model.eval()
        with cast("Any", self.model).disable_adapter() if self.has_adapter else contextlib.nullcontext():
            yield
        self.model.train(was_training)

    @property
    def has_adapter(self) -> bool:
        return hasattr(self.model, "disable_adapter")


def open_policy(spec: ModelSpec, settings: TrainingSettings) -> LoadedModel:
    """Find model and tokenizer in the precision of the forward pass; no weights are read yet.

    An adapter that the spec names is merged in: it is part of the policy before training, and so of the reference.

    Raises:
        ModelError: If the model cannot be found, or its weights are quantised, or spread over devices.
        TrainingError: If only an adapter is to be saved, which would lie on top of another one.
    """
    if spec.adapter is not None and settings.lora is not None and not settings.merge:
        raise TrainingError(
            f"{spec}: the new adapter would only fit the model with {spec.adapter} merged in", "set merge to true"
        )
    opened = open_model(spec.model_copy(update={"dtype": settings.dtype if settings.dtype != "auto" else spec.dtype}))
    if opened.dtype == torch.float16:  # its gradients underflow; machines that know no bfloat16 train in float32
        opened = open_model(spec.model_copy(update={"dtype": "float32"}))
    if problems := check_trainable(spec):
        raise problems[0]
    return opened


def load_policy(opened: LoadedModel, settings: TrainingSettings) -> Policy:
    """Read the weights and make them trainable.

    With LoRA, the frozen weights are kept in the precision of the forward pass and the adapter in float32. Without, weights
    are float32 and the forward pass is autocast: AdamW's steps are smaller than bfloat16's resolution.

    Raises:
        ModelError: If the model cannot be loaded.
        TrainingError: If its modules cannot be adapted as asked.
    """
    full = settings.lora is None
    loaded = opened
    if full and opened.dtype != torch.float32:
        loaded = open_model(opened.spec.model_copy(update={"dtype": "float32"}))
    model = cast("Any", loaded.model)
    model.config.use_cache = False
    for parameter in model.parameters():
        parameter.requires_grad_(full)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    cast("Any", torch).manual_seed(settings.seed)
    if settings.lora is not None:
        model = _with_adapter(model, settings.lora)
    _switch_dropout_off(model)
    return Policy(model, opened, None if loaded is opened else opened.dtype)


def _with_adapter(model: Any, lora: LoraSettings) -> Any:
    from peft import LoraConfig, get_peft_model

    target: str | list[str] = lora.target if isinstance(lora.target, str) else list(lora.target)
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if isinstance(target, list) and (absent := sorted(set(target) - names)):
        raise TrainingError(f"lora.target: the model has no modules named {', '.join(absent)}", 'use "all-linear"')
    config = LoraConfig(
        r=lora.r,
        lora_alpha=cast("int", lora.alpha),
        target_modules=target,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise TrainingError(f"lora: {error}", 'use target "all-linear", or train without lora') from error


def _switch_dropout_off(model: nn.Module) -> None:
    """Log-probabilities of policy and reference must differ by weights alone, and runs be reproducible."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "attn_dropout", "dropout", "dropout_p"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def save_policy(policy: Policy, folder: Path, adapter: Path, *, merge: bool) -> Path | None:
    """Save the trained model into `folder`, safetensors only, with tokenizer and chat template.

    With LoRA the adapter goes into `adapter`; with `merge` it is also added to the weights, in float32 before they are
    rounded to the model's precision, and the whole model saved. The policy cannot be used afterwards.

    Returns:
        The adapter's folder; None without LoRA, or where the adapter alone would not fit the model it started from.
    """
    model = cast("Any", policy.model)
    spec, tokenizer = policy.opened.spec, policy.opened.tokenizer.tokenizer
    if spec.chat_template is not None:
        try:
            tokenizer.chat_template = spec.chat_template.read_text(encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{spec.chat_template}: {error.strerror}", "put the file back") from error
    saved_adapter: Path | None = None
    if policy.has_adapter:
        if spec.adapter is None:
            saved_adapter = adapter
            with no_bars():
                model.save_pretrained(adapter)
            (adapter / "README.md").unlink(missing_ok=True)  # peft's card of placeholders
        if not merge:
            tokenizer.save_pretrained(adapter)
            return saved_adapter
        model = model.to(torch.float32).merge_and_unload()
    model.config.use_cache = True
    model.to(policy.opened.dtype)
    with no_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return saved_adapter
