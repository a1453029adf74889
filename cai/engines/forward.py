"""One forward pass of a causal language model over packed tokens, with logits only where they are asked for.

Knows masks, layer kinds and caches of transformers; knows no requests. Shape suffixes: B rows, Q query tokens, K key tokens,
N asked-for places, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from cai.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

_FULL, _SLIDING = "full_attention", "sliding_attention"


class Forward:
    """A model as the engine uses it.

    Args:
        model: Any causal language model whose layers attend to all earlier tokens or to a window of them.

    Raises:
        EngineError: For other kinds of layers (recurrent, chunked, …), whose state cannot be shared or refilled row by row.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model: Any = model
        self.config: Any = cast("Any", model).config.get_text_config()
        window = getattr(self.config, "sliding_window", None)
        kinds = set(getattr(self.config, "layer_types", None) or [_SLIDING if window else _FULL])
        if not kinds <= {_FULL, _SLIDING}:
            raise EngineError(
                f"The local engine cannot run layers of the kind {', '.join(sorted(kinds - {_FULL, _SLIDING}))}.",
                "Serve the model (vLLM, SGLang, llama.cpp) and use it over HTTP.",
            )
        self._kinds: frozenset[str] = frozenset(kinds)
        self.window: int | None = int(window) if window and _SLIDING in kinds else None
        # float32 kernels of CPUs treat the last one to three rows that do not fill a tile of four on a path of their own.
        self.rows_step = 4 if self.dtype is torch.float32 and self.device.type == "cpu" else 1
        """Numbers of rows that are a multiple of this are all multiplied alike, to the last bit."""
        self._boolean_masks = getattr(self.config, "_attn_implementation", "eager") == "sdpa"

    @property
    def device(self) -> torch.device:
        return cast("torch.device", self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        return cast("torch.dtype", self.model.dtype)

    @property
    def kv_bytes_per_token(self) -> int:
        """What one token of one row takes in the key-value cache."""
        config = self.config
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        return 2 * int(config.num_hidden_layers) * heads * width * self.dtype.itemsize

    def mask(self, full: Tensor, windowed: Tensor | None) -> Any:
        """Masks in the form this model takes.

        Args:
            full: Boolean mask_B1QK: who sees whom in layers that see everything.
            windowed: The same for layers with a window; None for models without one.
        """
        forms = {_FULL: full, _SLIDING: full if windowed is None else windowed}
        made = {kind: self._prepared(forms[kind]) for kind in self._kinds}
        return made if len(made) > 1 else next(iter(made.values()))

    def logits(
        self,
        ids_BQ: Tensor,
        places: tuple[Sequence[int], Sequence[int]],
        *,
        mask: Any = None,
        positions_BQ: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits of the next token at the asked-for places.

        The hidden states are picked out before the output head, so that a prompt of a thousand tokens costs one row of the
        vocabulary and not a thousand; what a model does to its logits (scaling, soft caps) is kept.

        Args:
            ids_BQ: Input tokens.
            places: Row and column of each asked-for place.
            mask: From `mask`; None for plain causal attention.
            positions_BQ: None for 0, 1, 2, …
            cache: Keys and values go there.

        Returns:
            logits_NV, in the model's precision.
        """
        asked = len(places[0])
        repeated = [asked - 1] * (-asked % self.rows_step)
        rows = torch.tensor([*places[0], *(places[0][each] for each in repeated)], device=self.device)
        columns = torch.tensor([*places[1], *(places[1][each] for each in repeated)], device=self.device)

        def pick(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden_BQH, *others = inputs  # on the device of the last layers, where the model lies on several
            return (hidden_BQH[rows.to(hidden_BQH.device), columns.to(hidden_BQH.device)][None], *others)

        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(pick)
        try:
            with torch.inference_mode():
                output = self.model(
                    input_ids=ids_BQ.to(self.device),
                    attention_mask=mask,
                    position_ids=None if positions_BQ is None else positions_BQ.to(self.device),
                    past_key_values=cache,
                    use_cache=cache is not None,
                )
        finally:
            hook.remove()
        logits: Tensor = output.logits
        if logits.shape[0] != 1 or logits.shape[1] != len(rows):
            logits = logits[rows, columns][None]  # a head that is not called as a module
        return logits[0, :asked]

    def _prepared(self, mask_B1QK: Tensor) -> Tensor:
        mask_B1QK = mask_B1QK.to(self.device)
        if self._boolean_masks:
            return mask_B1QK
        empty = torch.zeros(mask_B1QK.shape, dtype=self.dtype, device=self.device)
        return empty.masked_fill_(~mask_B1QK, torch.finfo(self.dtype).min)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU (where torch raises a plain RuntimeError)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("not enough memory", "can't allocate memory", "out of memory")
    )
