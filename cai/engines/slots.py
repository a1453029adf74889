"""The key-value cache of the decoding loop: one slot a row, each at its own length.

A row's token at position p lies in column p of its slot, so a new row needs no alignment with the others, and columns beyond a
row's length are masked. Shape suffixes: S slots, B rows in use, G key-value heads, C columns, D head width, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from cai.engines.prefixes import padded_width


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer. `window` says what the coming forward pass writes and sees."""

    is_sliding = False

    def __init__(self, store: SlotCache) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - its keyword arguments have no types
        self._store = store
        self.keys_SGCD: Tensor | None = None
        self.values_SGCD: Tensor | None = None
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: slots are reserved by `SlotCache.reserve`."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one token a row at that row's length; return the columns in use."""
        assert self.keys_SGCD is not None
        assert self.values_SGCD is not None
        rows, lengths, width = self._store.rows, self._store.lengths, self._store.width
        self.keys_SGCD[rows, :, lengths] = key_states[:, :, 0]
        self.values_SGCD[rows, :, lengths] = value_states[:, :, 0]
        count = len(rows)
        return self.keys_SGCD[:count, :, :width], self.values_SGCD[:count, :, :width]

    def get_seq_length(self) -> int:
        return self._store.width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._store.width - 1 + query_length, 0

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
        self.rows = torch.empty(0, dtype=torch.long)
        self.lengths = torch.empty(0, dtype=torch.long)
        self.width = 0

    def reserve(self, slots: int, columns: int, like: Cache | None = None) -> None:
        """Make room for so many slots and columns; what is there is kept.

        Either all layers grow or, when memory runs out, none.

        Args:
            slots: Rows at the same time.
            columns: Longest row.
            like: A cache of the same model, filled by a prefill; needed the first time.
        """
        first = self.slot_layers[0].keys_SGCD
        have_slots, have_columns = (0, 0) if first is None else (first.shape[0], first.shape[2])
        if slots <= have_slots and columns <= have_columns:
            return
        slots = max(slots, have_slots)
        if columns > have_columns:
            columns = padded_width(columns)
        columns = max(columns, have_columns)
        grown: list[list[Tensor]] = []
        for number, mine in enumerate(self.slot_layers):
            examples = (mine.keys_SGCD, mine.values_SGCD) if like is None else _stored(like, number)
            pair: list[Tensor] = []
            for old, example in zip((mine.keys_SGCD, mine.values_SGCD), examples, strict=True):
                assert example is not None
                # Zeros, not empty: a masked column's weight is 0, and 0 times what memory happened to hold may be NaN.
                new = example.new_zeros(slots, example.shape[1], columns, example.shape[3])
                if old is not None:
                    new[:have_slots, :, :have_columns] = old
                pair.append(new)
            grown.append(pair)
        for mine, (keys, values) in zip(self.slot_layers, grown, strict=True):
            mine.keys_SGCD, mine.values_SGCD = keys, values

    def fill(self, slot: int, source: Cache, row: int, path: Sequence[int]) -> None:
        """Copy the tokens at `path` of one row of a prefill's cache into a slot."""
        length = len(path)
        straight = path[-1] == length - 1
        index = None if straight else torch.tensor(path, device=_stored(source, 0)[0].device)
        for number, mine in enumerate(self.slot_layers):
            for target, given in zip((mine.keys_SGCD, mine.values_SGCD), _stored(source, number), strict=True):
                assert target is not None
                target[slot, :, :length] = given[row, :, :length] if index is None else given[row].index_select(1, index)

    def move(self, source: int, target: int, length: int) -> None:
        """Move a row's tokens into another slot."""
        for layer in self.slot_layers:
            for stored in (layer.keys_SGCD, layer.values_SGCD):
                assert stored is not None
                stored[target, :, :length] = stored[source, :, :length]

    def step(self, lengths: Sequence[int], device: torch.device) -> None:
        """Say how long the rows in slots 0, 1, 2 … are, before the forward pass that adds a token to each."""
        self.lengths = torch.tensor(lengths, device=device)
        self.rows = torch.arange(len(lengths), device=device)
        self.width = padded_width(max(lengths) + 1)

    def sees(self, window: int | None = None) -> Tensor:
        """Boolean mask_B11C for that forward pass: each row sees its own tokens and the one being added."""
        columns_C = torch.arange(self.width, device=self.lengths.device)
        mask_BC = columns_C[None] <= self.lengths[:, None]
        if window is not None:
            mask_BC &= columns_C[None] > self.lengths[:, None] - window
        return mask_BC[:, None, None]


def _stored(cache: Cache, layer: int) -> tuple[Tensor, Tensor]:
    """Keys and values that a forward pass left in one layer."""
    filled: Any = cache.layers[layer]
    keys, values = filled.keys, filled.values
    assert isinstance(keys, Tensor)
    assert isinstance(values, Tensor)
    return keys, values
