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
from cai.models.chat import ChatTokenizer
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from cai.training.settings import LoraSettings, TrainingSettings


@dataclass(frozen=True, slots=True)
class Policy:
    """A model ready to be trained.

    Args:
        model: With LoRA a peft model, its new adapter still an exact zero.
        chat: Its tokenizer and chat form.
        fingerprint: Of the weights before training (an adapter named in the spec is part of them) and of the tokenizer.
        device: Where it is.
        dtype: Of the forward pass.
        compute_dtype: Autocast to this; None where weights have the dtype of the forward pass already.
        stored_dtype: In which the whole model is saved.
    """

    model: nn.Module
    chat: ChatTokenizer
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    compute_dtype: torch.dtype | None
    stored_dtype: torch.dtype

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


def load_policy(spec: ModelSpec, settings: TrainingSettings) -> Policy:
    """Load the model and make it trainable.

    With LoRA, the frozen weights are kept in the precision of the forward pass and the adapter in float32. Without, weights
    are float32 and the forward pass is autocast: AdamW steps are smaller than bfloat16's resolution. An adapter that the spec
    names is merged first: it is part of the reference.

    Raises:
        ModelError: If the model cannot be found or loaded.
        TrainingError: If its modules cannot be adapted as asked.
    """
    dtype = settings.dtype if settings.dtype != "auto" else spec.dtype
    wanted = spec.model_copy(update={"dtype": dtype})
    loaded = load_model(wanted, merge=True)
    forward_dtype = loaded.dtype
    stored_dtype = loaded.dtype
    if settings.lora is None and loaded.dtype != torch.float32:
        loaded = load_model(spec.model_copy(update={"dtype": "float32"}), merge=True)
    model = cast("Any", loaded.model)
    model.config.use_cache = False
    for parameter in model.parameters():
        parameter.requires_grad_(settings.lora is None)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    torch.manual_seed(settings.seed)
    if settings.lora is not None:
        model = _with_adapter(model, settings.lora)
    _switch_dropout_off(model)
    compute_dtype = forward_dtype if settings.lora is None and forward_dtype != torch.float32 else None
    return Policy(
        model, loaded.tokenizer, loaded.fingerprint, torch.device(loaded.device), forward_dtype, compute_dtype, stored_dtype
    )


def _with_adapter(model: Any, lora: LoraSettings) -> Any:
    from peft import LoraConfig, get_peft_model

    target: str | list[str] = lora.target if isinstance(lora.target, str) else list(lora.target)
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if isinstance(target, list) and (absent := sorted(set(target) - names)):
        raise TrainingError(f"lora.target: the model has no modules named {', '.join(absent)}", 'use "all-linear"')
    config = LoraConfig(
        r=lora.r, lora_alpha=cast("int", lora.alpha), target_modules=target, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"
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


def save_policy(policy: Policy, spec: ModelSpec, folder: Path, adapter: Path, *, merge: bool) -> Path | None:
    """Save the trained model into `folder`, safetensors only, with tokenizer and chat template.

    With LoRA the adapter goes into `adapter`; with `merge` it is also added to the weights, in float32 before they are
    rounded to the model's precision, and the whole model saved. The policy cannot be used afterwards.

    Returns:
        The adapter's folder, or None without LoRA.
    """
    model = cast("Any", policy.model)
    saved_adapter = adapter if policy.has_adapter else None
    tokenizer = policy.chat.tokenizer
    if saved_adapter is not None:
        model.save_pretrained(adapter)
        # peft writes a model card of placeholders and our temporary base name.
        (adapter / "README.md").unlink(missing_ok=True)
        if not merge:
            tokenizer.save_pretrained(adapter)
            return saved_adapter
        model = model.to(torch.float32).merge_and_unload()
    model.config.use_cache = True
    model.to(policy.stored_dtype)
    if spec.chat_template is not None:
        try:
            tokenizer.chat_template = spec.chat_template.read_text(encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{spec.chat_template}: {error.strerror}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return saved_adapter
