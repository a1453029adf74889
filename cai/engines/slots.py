"""The key-value cache of the slot scheduler: one slot a row, each at its own length.

A row's token at position p lies in column p of its slot, so rows need no alignment with each other, and columns beyond a row's
length are masked. Shape suffixes: S slots, B rows of one forward pass, G key-value heads, C columns, D head width, Q tokens of
each row, W columns in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, made when the first forward pass shows their shape."""

    is_sliding = False

    def __init__(self, store: SlotCache) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - its keyword arguments have no types
        self._store = store
        self.keys_SGCD: Tensor | None = None
        self.values_SGCD: Tensor | None = None
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: `update` makes the slots."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write Q tokens of each row behind its length; return the columns in use."""
        store = self._store
        if self.keys_SGCD is None or self.values_SGCD is None:
            self.keys_SGCD, self.values_SGCD = store.made_like(key_states), store.made_like(value_states)
        slots_B1, columns_BQ = store.slots_B1, store.columns_BQ
        self.keys_SGCD[slots_B1, :, columns_BQ] = key_states.transpose(1, 2)
        self.values_SGCD[slots_B1, :, columns_BQ] = value_states.transpose(1, 2)
        rows = store.rows
        return self.keys_SGCD[rows, :, : store.width], self.values_SGCD[rows, :, : store.width]

    def get_seq_length(self) -> int:
        return self._store.width - self._store.columns_BQ.shape[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:
        return -1


class SlotCache(Cache):
    """Slots for all layers.

    Args:
        layers: How many layers the model has.
    """

    def __init__(self, layers: int) -> None:
        self.slot_layers = [SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self.slot_layers))
        self.slots = 0
        self.columns = 0
        self.rows = slice(0, 0)
        self.slots_B1 = torch.empty(0, 1, dtype=torch.long)
        self.columns_BQ = torch.empty(0, 1, dtype=torch.long)
        self.width = 0

    @torch.inference_mode()
    def reserve(self, slots: int, columns: int) -> None:
        """Have exactly so many slots of so many columns; what lies in those that stay is kept.

        Either all layers change or, when memory runs out, none.
        """
        if slots == self.slots and columns == self.columns:
            return
        kept, left = min(slots, self.slots), min(columns, self.columns)
        changed: list[list[Tensor]] = []
        for layer in self.slot_layers:
            if layer.keys_SGCD is None or layer.values_SGCD is None:
                continue
            pair: list[Tensor] = []
            for old in (layer.keys_SGCD, layer.values_SGCD):
                # Zeros, not empty: a masked column's weight is 0, and 0 times what memory happened to hold may be NaN.
                new = old.new_zeros(slots, old.shape[1], columns, old.shape[3])
                new[:kept, :, :left] = old[:kept, :, :left]
                pair.append(new)
            changed.append(pair)
        for layer, (keys, values) in zip(self.slot_layers, changed, strict=False):  # all of them, or none is made yet
            layer.keys_SGCD, layer.values_SGCD = keys, values
        self.slots, self.columns = slots, columns

    @torch.inference_mode()
    def made_like(self, states_BGQD: Tensor) -> Tensor:
        """Empty slots for keys or values of this form."""
        return states_BGQD.new_zeros(self.slots, states_BGQD.shape[1], self.columns, states_BGQD.shape[3])

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first tokens of one slot into another."""
        for stored in self._stored():
            stored[target, :, :length] = stored[source, :, :length]

    @torch.inference_mode()
    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first tokens of two slots."""
        for stored in self._stored():
            aside = stored[one, :, :length].clone()
            stored[one, :, :length] = stored[other, :, :length]
            stored[other, :, :length] = aside

    def begin(self, first: int, lengths: Sequence[int], ends: Sequence[int], device: torch.device) -> None:
        """Say what the coming forward pass adds. Rows that add less than the longest are padded on the right.

        Args:
            first: Slot of its first row; the others follow.
            lengths: How many tokens each row's slot holds.
            ends: How many it will hold.
            device: Where the model is.
        """
        tokens = max(end - length for length, end in zip(lengths, ends, strict=True))
        self.rows = slice(first, first + len(lengths))
        self.slots_B1 = torch.arange(first, first + len(lengths), device=device)[:, None]
        each_BQ = torch.tensor(lengths, device=device)[:, None] + torch.arange(tokens, device=device)
        # Padding goes where the row's next token will be written before anything sees it.
        self.columns_BQ = torch.minimum(each_BQ, torch.tensor(ends, device=device)[:, None])
        self.width = max(end + (end - length < tokens) for length, end in zip(lengths, ends, strict=True))

    def sees(self, window: int | None = None) -> Tensor:
        """Boolean mask_B1QW for that forward pass: each token sees those before it in its own slot, and itself."""
        columns_W = torch.arange(self.width, device=self.columns_BQ.device)
        mask_BQW = columns_W <= self.columns_BQ[:, :, None]
        if window is not None:
            mask_BQW &= columns_W > self.columns_BQ[:, :, None] - window
        return mask_BQW[:, None]

    def _stored(self) -> list[Tensor]:
        return [stored for layer in self.slot_layers for stored in (layer.keys_SGCD, layer.values_SGCD) if stored is not None]
