"""How large transformers' continuous batches are, what their rows need, and what is counted of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import ContinuousBatchingConfig

from cai.engines.base import SamplingParams

PAGE_TOKENS = 32
"""Of a page: what prompts have in common is shared in whole pages, and each page costs some Python in every step."""
_QUERY_STEP = 256


@dataclass(frozen=True, slots=True)
class Features:
    """What the sampling of some rows needs, and costs when nobody does."""

    nucleus: bool = False
    """Top-k or top-p: the vocabulary is sorted."""
    penalty: bool = False
    """A repetition penalty: a table of the tokens each row has seen."""

    @classmethod
    def of(cls, params: SamplingParams) -> Features:
        return cls(nucleus=params.top_k > 0 or params.top_p < 1.0, penalty=params.repetition_penalty != 1.0)

    def __or__(self, other: Features) -> Features:
        return Features(self.nucleus or other.nucleus, self.penalty or other.penalty)


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the batches are.

    Args:
        rows: Computed together.
        outstanding: Handed in and not ended.
        batch_tokens: Of one forward pass: prompts, or parts of them, and one for each row that is being written.
        cache_tokens: Of all rows together; None: by memory.
        memory_share: Of the memory that is free.
        graphs: Record CUDA graphs, and prepare a batch while the one before it is computed.
        share: Share the pages of equal beginnings.
    """

    rows: int
    outstanding: int
    batch_tokens: int
    cache_tokens: int | None
    memory_share: float
    graphs: bool
    share: bool


@dataclass(slots=True)
class Counters:
    """Counted by the thread, read by anyone."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    row_steps: int = 0
    slot_steps: int = 0


def batching_config(shape: Shape, attention: str, *, graphs: bool) -> ContinuousBatchingConfig:
    """In the names of the installed version."""
    fields: Iterable[str] = ContinuousBatchingConfig.__dataclass_fields__
    asynchronous = "flash" in attention and torch.cuda.is_available()
    settings: dict[str, Any] = {
        ("page_size" if "page_size" in fields else "block_size"): PAGE_TOKENS,  # up to 5.17
        "num_blocks": None if shape.cache_tokens is None else max(1, shape.cache_tokens // PAGE_TOKENS),
        "max_batch_tokens": shape.batch_tokens,
        "max_requests_per_batch": shape.rows,
        "max_memory_percent": shape.memory_share,
        "max_blocks_per_request": 0,  # the way by block tables is for pages of the flash-attn package
        "allow_block_sharing": shape.share,
        "use_async_batching": asynchronous,
        "use_cuda_graph": graphs,
        "q_padding_interval_size": _QUERY_STEP if graphs else 0,
    }
    if "auto_switch_to_flash" in fields:
        settings["auto_switch_to_flash"] = False
    return ContinuousBatchingConfig(**settings)
