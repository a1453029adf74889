"""The decoding loop: rows that end leave, waiting ones take their slots, results come out as they are ready.

Knows token ids; knows no conversations. Prompts go in by groups that share a beginning (`prefixes`), longest first. Each row's
text depends on its own ids, parameters and noise seed, up to the rounding of the kernels. With `BatchLimits.exact` their shapes
are chosen so that they round alike: the same text in any batch. Without, a near-tie may fall the other way in another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from cai.engines.base import FinishReason, SamplingParams
from cai.engines.forward import Forward, is_out_of_memory
from cai.engines.limits import BatchLimits
from cai.engines.prefixes import Forest, TokenTree, group_by_prefix, padded_width
from cai.engines.sampling import draw, position_seed, vocabulary_hash
from cai.engines.slots import SlotCache

_REFILL_SHARE = 8
"""Waiting rows are let in when an eighth of the slots is free: a prefill of a few rows is as cheap a token as one of many, and
empty slots cost more than it does."""


@dataclass(slots=True, eq=False)
class Row:
    """One text in the making.

    Args:
        index: Of its request.
        prompt: Token ids.
        params: How its tokens are drawn. Rows with equal ones are drawn together: what does not matter to it keeps its default.
        seed: Of its noise.
        max_tokens: Of the answer.
        most_tokens: Prompt plus answer may become this long.
        generated: Tokens drawn so far.
        finish: Why it ended; None while it goes on.
    """

    index: int
    prompt: list[int]
    params: SamplingParams
    seed: int
    max_tokens: int
    most_tokens: int
    generated: list[int] = field(default_factory=list[int])
    finish: FinishReason | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generated)


@dataclass(frozen=True, slots=True)
class _Admission:
    """Rows about to be let in: their trees, and where in them each row's tokens are."""

    forest: Forest
    rows: list[Row]
    trees: list[int]
    paths: list[list[int]]


class DecodingLoop:
    """Runs rows to their end.

    Args:
        forward: The model.
        limits: Shrunk when memory runs out.
        ended: Says whether a row's answer is complete with its newest token.
        vocabulary: Hashes of the vocabulary for the noise, from an earlier loop.
    """

    def __init__(
        self, forward: Forward, limits: BatchLimits, ended: Callable[[Row], bool], *, vocabulary: Tensor | None = None
    ) -> None:
        self._forward = forward
        self._limits = limits
        self._ended = ended
        self._waiting: deque[list[Row]] = deque()
        self._running: list[Row] = []
        self._attempting: list[Row] = []
        self._slots = SlotCache(int(forward.config.num_hidden_layers))
        self.vocabulary = vocabulary

    def run(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Decode all rows; each comes out when it has ended. `finish` None means that memory ran out for this row alone."""
        self._queue(rows)
        while self._waiting or self._running:
            ran_out = False
            try:
                admission = self._choose()
                if admission is not None:
                    self._admit(admission)
                else:
                    self._step()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                ran_out = True  # handled outside, where the traceback no longer holds tensors
            if ran_out:
                yield from self._go_on_with_less()
            else:
                self._limits.fitted()
                yield from self._retire()

    def _queue(self, rows: Sequence[Row]) -> None:
        sequences = [[*row.prompt, *row.generated] for row in rows]
        groups = group_by_prefix(sequences, self._limits.prefill_tokens, share=not self._limits.exact)
        self._waiting = deque([rows[position] for position in group] for group in groups)

    def _choose(self) -> _Admission | None:
        """The next rows to let in; None if there is no room, or too little to be worth a prefill."""
        limits, running = self._limits, len(self._running)
        free = limits.rows - running
        waiting = sum(map(len, self._waiting))
        if not waiting or (running and free < min(waiting, max(1, limits.rows // _REFILL_SHARE))):
            return None
        trees: list[TokenTree] = []
        chosen: list[tuple[Row, int, list[int]]] = []
        widest = max((row.most_tokens for row in self._running), default=0)
        longest_tree = 0
        for group in self._waiting:
            tree = TokenTree()
            taken: list[tuple[Row, int, list[int]]] = []
            for row in group:
                rows = running + len(chosen) + len(taken) + 1
                too_much = max(widest, row.most_tokens) * rows > limits.cache_tokens
                if rows > limits.rows or (too_much and rows > 1):
                    break
                widest = max(widest, row.most_tokens)
                taken.append((row, len(trees), tree.add([*row.prompt, *row.generated])))
            longest_tree = max(longest_tree, len(tree))
            if not taken or (trees and (len(trees) + 1) * longest_tree > limits.prefill_tokens):
                break
            if limits.exact and trees and padded_width(len(trees[0])) != padded_width(len(tree)):
                break
            trees.append(tree)
            chosen += taken
            if len(taken) < len(group):
                break
        if not chosen:
            return None
        rows, numbers, paths = zip(*chosen, strict=True)
        return _Admission(Forest(tuple(trees)), list(rows), list(numbers), list(paths))

    def _admit(self, admission: _Admission) -> None:
        """Prefill the rows' prompts, put them into slots and draw their first tokens."""
        forward, forest = self._forward, admission.forest
        self._attempting = [*self._running, *admission.rows]
        cache = DynamicCache()  # without a config: layers with a window keep all columns too, since rows differ in length
        mask = positions = None
        if not forest.is_chains:
            mask = forward.mask(forest.sees(), forest.sees(forward.window) if forward.window else None)
            positions = forest.positions()
        places = (admission.trees, [path[-1] for path in admission.paths])
        logits_NV = forward.logits(forest.ids(), places, mask=mask, positions_BQ=positions, cache=cache)
        first_slot = len(self._running)
        self._reserve(max(row.length for row in self._attempting) + 1, cache)
        for number, (tree, path) in enumerate(zip(admission.trees, admission.paths, strict=True)):
            self._slots.fill(first_slot + number, cache, tree, path)
        tokens = self._draw(logits_NV, admission.rows)
        self._running += admission.rows
        admitted = set(map(id, admission.rows))
        while self._waiting and id(self._waiting[0][0]) in admitted:
            rest = [row for row in self._waiting.popleft() if id(row) not in admitted]
            if rest:
                self._waiting.appendleft(rest)
        self._append(admission.rows, tokens)

    def _step(self) -> None:
        """Add one token to every running row."""
        forward, rows, slots = self._forward, self._running, self._slots
        self._attempting = rows
        unused = -len(rows) % forward.rows_step if self._limits.exact and not self._limits.short else 0
        stored = [row.length - 1 for row in rows]  # the newest token is this pass's input
        self._reserve(max(stored) + 1, unused=unused)
        slots.step([*stored, *[0] * unused], forward.device)
        mask = forward.mask(slots.sees(), slots.sees(forward.window) if forward.window else None)
        ids_B1 = torch.tensor([[row.generated[-1]] for row in rows] + [[0]] * unused)
        places = (range(len(rows)), [0] * len(rows))
        logits_BV = forward.logits(ids_B1, places, mask=mask, positions_BQ=slots.lengths[:, None], cache=slots)
        self._append(rows, self._draw(logits_BV, rows))

    def _reserve(self, columns: int, like: Cache | None = None, *, unused: int = 0) -> None:
        """Room for the rows at hand, and at once for as many as may come, so that the cache is seldom copied.

        `unused` rows beside them only fill up the number of rows; what they hold is never read.
        """
        rows = len(self._attempting) + unused
        coming = rows + sum(map(len, self._waiting))
        slots = max(rows, min(self._limits.rows, coming, self._limits.cache_tokens // columns))
        self._slots.reserve(slots, columns, like)

    def _draw(self, logits_NV: Tensor, rows: Sequence[Row]) -> list[int]:
        if self.vocabulary is None or len(self.vocabulary) != logits_NV.shape[-1]:
            self.vocabulary = vocabulary_hash(logits_NV.shape[-1], logits_NV.device)
        seeds = [position_seed(row.seed, len(row.generated)) for row in rows]
        kinds: dict[SamplingParams, list[int]] = {}
        for position, row in enumerate(rows):
            kinds.setdefault(row.params, []).append(position)
        tokens = [0] * len(rows)
        for params, positions in kinds.items():
            logits = logits_NV if len(positions) == len(rows) else logits_NV[positions]
            drawn = draw(logits, params, [seeds[position] for position in positions], self.vocabulary)
            for position, token in zip(positions, cast("Any", drawn).tolist(), strict=True):
                tokens[position] = token
        return tokens

    def _append(self, rows: Sequence[Row], tokens: Sequence[int]) -> None:
        for row, token in zip(rows, tokens, strict=True):
            row.generated.append(token)
            if self._ended(row):
                row.finish = FinishReason.STOP
            elif len(row.generated) >= row.max_tokens or row.length >= row.most_tokens:
                row.finish = FinishReason.LENGTH

    def _retire(self) -> Iterator[Row]:
        """Hand out the rows that have ended; the last running row moves into each slot that becomes free."""
        ended = [slot for slot, row in enumerate(self._running) if row.finish is not None]
        for slot in reversed(ended):
            row = self._running[slot]
            last = self._running.pop()
            if last is not row:
                self._slots.move(len(self._running), slot, last.length - 1)
                self._running[slot] = last
            yield row

    def _go_on_with_less(self) -> Iterator[Row]:
        """Memory ran out: put the running rows back, with what they have written, and halve the batch.

        A single row that does not fit is handed out with `finish` None.
        """
        attempted, self._attempting = self._attempting, []
        waiting = [row for group in self._waiting for row in group]
        rows = list(dict.fromkeys([*self._running, *waiting]))
        self._running = []
        self._slots = SlotCache(len(self._slots.slot_layers))
        if len(attempted) == 1:
            self._limits.restore()
            rows.remove(attempted[0])
            yield attempted[0]
        else:
            self._limits.halve(len(attempted))
        self._queue(rows)
