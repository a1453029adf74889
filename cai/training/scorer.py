"""Forward passes of packed batches under a transformers model whose head is given only the positions that are asked of.

Works with any transformers model, bare, LoRA-wrapped, or under DDP or FSDP. What the head's values mean, subclasses say:
log-probabilities of replies (`logps`), or rewards (`reward_scorer`).
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn

from cai.errors import TrainingError
from cai.models.products import fast_linear_layers
from cai.training.attention import FLEX_MULTIPLE, Path, attending, attention_inputs
from cai.training.head import LossOf
from cai.training.packing import Layout, PackedBatch, TokenGroup, pack


class Scorer(ABC):
    """Values of sequences, and losses of them, under one model.

    Args:
        model: Bare or wrapped by peft.
        head: Its output head.
        compute_dtype: Autocast to this dtype; None: compute in the dtype of the weights.
        path: How sequences are kept apart; see `probing.choose_path` for which one is right.
        plain_head: Whether a head that is one plain matrix is used as such.
    """

    def __init__(
        self, model: nn.Module, head: object, compute_dtype: torch.dtype | None, *, path: Path, plain_head: bool
    ) -> None:
        self.compute_dtype = compute_dtype
        self.path: Path = path
        self.plain_head = plain_head
        self._inner = inner_model(model)
        if not isinstance(head, nn.Module):
            raise TrainingError(f"{type(self._inner).__name__} has no output head", "use a causal language model")
        self._module: Any = head
        self._dtype: torch.dtype = next(iter(self._inner.parameters())).dtype

    @abstractmethod
    def values(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """Of every sequence of the batch [R, …], float64, with gradients if they are enabled.

        `model` is the one given to `__init__`, or a wrapper around it (DDP, FSDP).
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: PackedBatch, loss_of: LossOf) -> Tensor:
        """A loss of the batch, to be called `backward` on.

        Args:
            model: As for `values`.
            batch: The batch.
            loss_of: See `head.LossOf`. It may be called for some groups at a time, and must not depend on other groups.
        """

    @property
    def inner(self) -> Any:
        """The transformers model itself."""
        return self._inner

    @property
    def layout(self) -> Layout:
        return "padded" if self.path == "padded" else "tree"

    @property
    def attention_dtype(self) -> torch.dtype:
        return self.compute_dtype or self._dtype

    def pack(self, groups: list[TokenGroup], device: torch.device) -> PackedBatch:
        """Lay groups out for one pass of this scorer, on `device`."""
        return pack(groups, self.layout, multiple=FLEX_MULTIPLE if self.path == "flex" else 1).to(device)

    @contextlib.contextmanager
    def at_work(self) -> Generator[None]:
        """Forward passes happen in here, with their backward passes: layers that are checkpointed run again in those."""
        with attending(self._inner, self.path), fast_linear_layers(self._inner.device):
            yield

    def _forward(self, model: nn.Module, batch: PackedBatch, head: Callable[[Tensor], Tensor]) -> Tensor:
        """What the model returns as logits when its head is this function of all hidden states [B, T, D]."""
        dtype, device = self.compute_dtype, batch.input_ids.device.type
        autocast = contextlib.nullcontext() if dtype is None else torch.autocast(device_type=device, dtype=dtype)
        # The method and not a hook: what gathers a sharded head's weights hooks into the call around it.
        self._module.forward = head
        try:
            with autocast:
                output = model(
                    input_ids=batch.input_ids,
                    position_ids=batch.position_ids,
                    use_cache=False,
                    **attention_inputs(self._inner, self.path, batch, self.attention_dtype),
                )
        finally:
            del self._module.forward
        return output.logits


def inner_model(model: nn.Module) -> Any:
    """The transformers model inside a peft wrapper, or the model itself."""
    unwrap: Callable[[], Any] | None = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def at_slots(hidden_BTD: Tensor, batch: PackedBatch) -> Tensor:
    """hidden_SD of the batch's slots."""
    return hidden_BTD.flatten(0, 1).index_select(0, batch.slots)
