"""How much goes into one forward pass, and what happens when memory runs out."""

from __future__ import annotations

from dataclasses import dataclass, field

import psutil
import torch

from cai.engines.forward import Forward

_CPU_PREFILL_TOKENS = 2048
_CPU_TREE_TOKENS = 8192
_GPU_PREFILL_TOKENS = 16384
_CPU_CACHE_BYTES = 3 * 512 * 1024**2
_CPU_LOGITS_BYTES = 1024**3
_GPU_LOGITS_BYTES = 4 * 1024**3


@dataclass(slots=True)
class BatchLimits:
    """Limits of one engine. They become smaller when memory has run out and less of it then was enough.

    Args:
        rows: Rows decoded together.
        prefill_tokens: Prompt tokens in one forward pass, padding included (one prompt may be longer).
        cache_tokens: Tokens kept in the key-value cache, all rows together (one row may be longer).
        exact: A text does not depend on what else is computed: draws that rounding could decide are decided alone. Only in
            float32, whose rounding is small enough.
        tree_tokens: Tokens of one tree of scored prompts, where that may be more than of other forward passes: to cut it is
            to compute its beginning twice.
    """

    rows: int
    prefill_tokens: int
    cache_tokens: int
    exact: bool = False
    tree_tokens: int = 0
    exact_scores: bool = False
    logits_rows: int = 2**31
    _before: tuple[int, int, int, int] | None = field(default=None, repr=False)
    """As they were before memory ran out, until a smaller batch has fitted."""

    @classmethod
    def for_device(cls, forward: Forward, rows: int, prefill_tokens: int | None, *, exact: bool | None = None) -> BatchLimits:
        """By what the device has free now: half of a GPU's, a quarter of the machine's memory (at most 1.5 GiB) otherwise.

        `exact` None: texts in float32, and no scores.
        """
        if forward.device.type == "cuda":
            free_bytes = torch.cuda.mem_get_info(forward.device)[0] // 2
            default_prefill = default_tree = _GPU_PREFILL_TOKENS
            logits_bytes = _GPU_LOGITS_BYTES
        else:
            free_bytes = min(psutil.virtual_memory().available // 4, _CPU_CACHE_BYTES)
            default_prefill, default_tree = _CPU_PREFILL_TOKENS, _CPU_TREE_TOKENS
            logits_bytes = _CPU_LOGITS_BYTES
        cache_tokens = max(1, free_bytes // forward.kv_bytes_per_token)
        chosen = forward.dtype is torch.float32 if exact is None else exact
        tokens = (default_prefill, default_tree) if prefill_tokens is None else (prefill_tokens, prefill_tokens)
        # Not by what is free now: how scores are batched must not change from one start to the next.
        logits_rows = max(1, logits_bytes // (int(forward.config.vocab_size) * forward.dtype.itemsize))
        return cls(rows, tokens[0], int(cache_tokens), chosen, tokens[1], exact_scores=exact is True, logits_rows=logits_rows)

    def halve(self, rows: int) -> None:
        """Go on with half of the rows that were too many."""
        self._before = self._before or (self.rows, self.prefill_tokens, self.cache_tokens, self.tree_tokens)
        self.rows = max(1, min(self.rows, rows) // 2)
        self.prefill_tokens = max(1, self.prefill_tokens // 2)
        self.cache_tokens = max(1, self.cache_tokens // 2)
        self.tree_tokens //= 2
        _free_memory()

    def fitted(self) -> None:
        """A batch fitted into memory: the limits stay as they are now."""
        self._before = None

    def restore(self) -> None:
        """One row alone did not fit: it was too large, not the limits, so the others go on as before it."""
        if self._before is not None:
            self.rows, self.prefill_tokens, self.cache_tokens, self.tree_tokens = self._before
            self._before = None
        _free_memory()


def _free_memory() -> None:
    """Give back what the allocator holds in pieces too small for what has just failed."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
