"""The model to be trained: loading it, wrapping it in adapters, saving what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cai.errors import ModelError, TrainingError
from cai.models.checking import check_trainable
from cai.models.loading import HeadKind, LoadedModel, open_model
from cai.models.placement import processes
from cai.models.progress import no_bars
from cai.models.spec import ModelSpec
from cai.training.reward_head import is_reward_model, padding, with_reward_head
from cai.training.settings import LoraSettings, RewardSettings, TrainingSettings
from cai.training.sharding import let_go_of_weights
from cai.training.trackers import refuse_missing_trackers


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
        if self.has_adapter:  # peft also switches the gradients of its weights
            let_go_of_weights(self.model)
            with cast("Any", self.model).disable_adapter():
                yield
                let_go_of_weights(self.model)
        else:
            yield
        self.model.train(was_training)

    @property
    def has_adapter(self) -> bool:
        return hasattr(self.model, "disable_adapter")


def open_policy(spec: ModelSpec, settings: TrainingSettings, head: HeadKind | None = "language") -> LoadedModel:
    """Find model and tokenizer in the precision of the forward pass; no weights are read yet. `head`: see there.

    An adapter that the spec names is merged in: it is part of the policy before training, and so of the reference.

    Raises:
        ModelError: If the model cannot be found, or its weights are quantised, or spread over devices.
        TrainingError: If only an adapter is to be saved, which would lie on top of another one; if a tracker is missing.
    """
    refuse_missing_trackers(settings.report_to)
    if spec.adapter is not None and settings.lora is not None and not settings.merge:
        raise TrainingError(
            f"{spec}: the new adapter would only fit the model with {spec.adapter} merged in", "set merge to true"
        )
    dtype = settings.dtype if settings.dtype != "auto" else spec.dtype
    opened = open_model(spec.model_copy(update={"dtype": dtype}), head=head)
    if opened.dtype == torch.float16:  # its gradients underflow; machines that know no bfloat16 train in float32
        opened = open_model(spec.model_copy(update={"dtype": "float32"}), head=head)
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
    widened = full and opened.dtype != torch.float32
    changes = {"dtype": "float32"} if widened else {}
    if processes() > 1 and opened.device.type != "cpu":  # the Trainer places or shards it: a whole one may not fit
        changes = {"dtype": str(opened.dtype).removeprefix("torch."), **changes, "device": "cpu"}
    loaded = open_model(opened.spec.model_copy(update=changes), head=opened.head) if changes else opened
    model = cast("Any", loaded.new_model())
    rewarding = isinstance(settings, RewardSettings)
    if rewarding:
        model = with_reward_head(model, settings.heads, padding(opened.tokenizer), seed=settings.seed)
    model.config.use_cache = False
    for parameter in model.parameters():
        parameter.requires_grad_(full)
    if settings.gradient_checkpointing:
        # transformers 5.17 knows the older name only.
        name = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(model, f"{name}_enable"))
        getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
        model.enable_input_require_grads()
    cast("Any", torch).manual_seed(settings.seed)
    if settings.lora is not None:
        model = adapt(model, settings.lora, "SEQ_CLS" if rewarding else "CAUSAL_LM")
    _switch_dropout_off(model)
    return Policy(model, opened, opened.dtype if widened else None)


def whole_policy(policy: Policy, settings: TrainingSettings, weights: dict[str, Tensor]) -> Policy:
    """The policy read again, in one piece, with weights that were gathered from many processes.

    Raises:
        TrainingError: If they are not all of them.
    """
    whole = load_policy(policy.opened, settings)
    fitted = cast("Any", whole.model).load_state_dict(weights, strict=False)
    given = {id(weight) for name, weight in whole.model.named_parameters(remove_duplicate=False) if name in weights}
    absent = [name for name, weight in whole.model.named_parameters() if id(weight) not in given]  # tied ones come once
    if absent or fitted.unexpected_keys:
        raise TrainingError(
            f"the sharded model did not give its weights back as they were: {', '.join((absent + fitted.unexpected_keys)[:3])}"
        )
    return Policy(whole.model, policy.opened, policy.compute_dtype)


def adapt(model: Any, lora: LoraSettings, task: str) -> Any:
    """The model with a new adapter, an exact zero, around it.

    Args:
        model: The model.
        lora: Which adapter.
        task: peft's name for what the model does; where that is to classify, the head `score` is trained too, and kept with
            the adapter.

    Raises:
        TrainingError: If it has no such modules.
    """
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
        task_type=task,
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise TrainingError(f"lora: {error}", 'use target "all-linear", or train without lora') from error
    kept: Any = adapted.peft_config["default"]
    if not isinstance(kept.target_modules, str):  # a set is saved in the order of hashes, which is another one in every process
        kept.target_modules = sorted(kept.target_modules)
    return adapted


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
    if is_reward_model(policy.model):  # it finds the end of a text by what is no padding
        tokenizer.pad_token = padding(policy.opened.tokenizer).token
    if spec.chat_template is not None:
        try:
            tokenizer.chat_template = spec.chat_template.read_text(encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{spec.chat_template}: {error.strerror}", "put the file back") from error
    saved_adapter: Path | None = None
    if policy.has_adapter:
        if spec.adapter is None:
            saved_adapter = adapter
            # As the user names it: where its files lie is nobody's business, and would be part of the adapter's fingerprint.
            model.peft_config["default"].base_model_name_or_path = spec.name
            with no_bars():
                model.save_pretrained(adapter)
            _share_weights(adapter)
            (adapter / "README.md").unlink(missing_ok=True)  # peft's card of placeholders
        if not merge:
            tokenizer.save_pretrained(adapter)
            return saved_adapter
        _untie_adapted(model.get_base_model())
        model = model.to(torch.float32).merge_and_unload()
    model.config.use_cache = True
    model.to(policy.opened.dtype)
    with no_bars():
        model.save_pretrained(folder)
    _share_weights(folder)
    tokenizer.save_pretrained(folder)
    return saved_adapter


def _share_weights(folder: Path) -> None:
    """Let those read the weights who may read the configuration beside them: safetensors writes files for their owner alone."""
    mode = next(folder.glob("*config.json")).stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)


def _untie_adapted(model: Any) -> None:
    """Give head and embedding a matrix each, where they share one and either is adapted: its update is not the other's."""
    layers = (model.get_output_embeddings(), model.get_input_embeddings())
    head, embedding = (getattr(layer, "base_layer", layer) for layer in layers)
    if head is None or (head, embedding) == layers or head.weight is not embedding.weight:
        return
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
