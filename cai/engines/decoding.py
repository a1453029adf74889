"""The slot scheduler: rows that end leave, waiting ones take their slots, results come out as they are ready.

Knows token ids; knows no conversations. What a new row has in common with one that runs, or has just ended, is copied from its
slot and not computed again: a critique goes on where its own draft ended, and all prompts share their system text. Each row's
text depends on its own ids, parameters and noise seed, up to the rounding of the kernels; with `BatchLimits.exact` on nothing
else at all (`drawing`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cai.engines.base import EngineStatistics, FinishReason
from cai.engines.beginnings import common_prefix, group_by_prefix
from cai.engines.drawing import Drawing
from cai.engines.forward import Forward, is_out_of_memory
from cai.engines.limits import BatchLimits
from cai.engines.rows import Row
from cai.engines.slots import SlotCache

_REFILL_SHARE = 8
"""Waiting rows are let in when an eighth of the slots is free: a prefill of a few rows is as cheap a token as one of many, and
empty slots cost more than it does."""

COLUMN_STEP = 64
"""Slots grow by a multiple of so many columns, so that the cache is seldom copied."""

_LOOK_AHEAD = 4
"""Waiting rows looked at for one prefill, in multiples of the rows that run together."""

_LEAST_SHARED_TOKENS = 16
"""Copying fewer tokens than this from another slot is not worth a second look."""

_MOST_PADDING = 1.25
"""Rows of one prefill are chosen so that padding adds at most a quarter: on a CPU a padded token costs what a real one does."""


@dataclass(eq=False, slots=True)
class _Kept:
    """Tokens whose keys and values lie in a slot behind the running ones."""

    tokens: list[int]
    claimed: bool = False


_Donor = Row | _Kept


@dataclass(eq=False, slots=True)
class _Entrant:
    """A row about to be let in, and where the beginning of its tokens lies already."""

    row: Row
    tokens: list[int]
    donor: _Donor | None
    shared: int

    @property
    def suffix(self) -> int:
        """How many tokens are to be computed."""
        return len(self.tokens) - self.shared


class SlotScheduler:
    """Runs rows to their end; implements `cai.engines.rows.Scheduler`.

    Slots 0, 1, 2 … hold the running rows; the slots behind them keep what ended rows left, newest first, until they are needed.

    Args:
        forward: The model.
        limits: Shrunk when memory runs out.
        ended: Says whether a row's answer is complete with its newest token.
    """

    def __init__(self, forward: Forward, limits: BatchLimits, ended: Callable[[Row], bool]) -> None:
        self._forward = forward
        self._limits = limits
        self._has_ended = ended
        self._waiting: list[Row] = []
        self._ordered = True
        self._claims: dict[Row, _Kept] = {}
        self._running: list[Row] = []
        self._kept: list[_Kept] = []
        self._attempting: list[Row] = []
        self._ended: deque[Row] = deque()
        self._slots = self._empty_slots()
        self.drawing = Drawing(forward, exact=limits.exact)
        self._prompt_tokens = self._reused_tokens = self._completion_tokens = 0
        self._row_steps = self._slot_steps = self._smaller_batches = 0

    def add(self, row: Row) -> None:
        """Queue a row. If a row that has just ended left most of its beginning in a slot, it goes first."""
        tokens = [*row.prompt, *row.generated]
        found = max(
            ((common_prefix(kept.tokens, tokens), kept) for kept in self._kept if not kept.claimed),
            key=lambda each: each[0],
            default=None,
        )
        if found is not None and 2 * found[0] >= len(found[1].tokens) and found[0] >= _LEAST_SHARED_TOKENS:
            found[1].claimed = True
            self._claims[row] = found[1]
        else:
            self._ordered = False
        self._waiting.append(row)

    def run(self) -> Iterator[Row]:
        """Rows as they end. `finish` None means that memory ran out for this row alone."""
        while True:
            while self._ended:
                yield self._ended.popleft()
            if not (self._waiting or self._running):
                return
            ran_out = False
            try:
                entrants = self._choose()
                if entrants:
                    self._admit(entrants)
                else:
                    self._step()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                ran_out = True  # handled outside, where the traceback no longer holds tensors
            if ran_out:
                self._go_on_with_less()
            else:
                self._limits.fitted()
                self._retire()

    def drop(self, rows: Iterable[Row]) -> None:
        """Forget rows that nobody waits for any more."""
        dropped = set(rows)
        self._waiting = [row for row in self._waiting if row not in dropped]
        for row in dropped & self._claims.keys():
            self._claims.pop(row).claimed = False
        self._leave([slot for slot, row in enumerate(self._running) if row in dropped])
        self._ended = deque(row for row in self._ended if row not in dropped)

    def close(self) -> None:
        """Free the slots. Rows that have not ended wait again, with what they have written."""
        self._start_over([*self._running, *self._waiting])

    def statistics(self) -> EngineStatistics:
        """Counters since the scheduler was made. May be asked from another thread."""
        return EngineStatistics(
            prompt_tokens=self._prompt_tokens + self.drawing.computed_tokens,
            reused_tokens=self._reused_tokens,
            completion_tokens=self._completion_tokens,
            row_steps=self._row_steps,
            slot_steps=self._slot_steps,
            waiting=len(self._waiting),
            running=len(self._running),
            smaller_batches=self._smaller_batches,
        )

    # ---- who goes in

    def _choose(self) -> list[_Entrant]:
        """The next rows to let in; none if there is no room, or too little to be worth a prefill."""
        limits, running = self._limits, len(self._running)
        free = limits.rows - running
        if not self._waiting or (running and free < min(len(self._waiting), max(1, limits.rows // _REFILL_SHARE))):
            return []
        self._order()
        widest = max((row.most_tokens for row in self._running), default=0)
        candidates: list[_Entrant] = []
        for row in self._waiting[: _LOOK_AHEAD * limits.rows]:
            rows = running + len(candidates) + 1
            too_much = max(widest, row.most_tokens) * rows > limits.cache_tokens
            if rows > limits.rows or (too_much and rows > 1):
                break
            entrant = self._entrant(row)
            if not self._comes_later(entrant, candidates):
                widest = max(widest, row.most_tokens)
                candidates.append(entrant)
        return self._of_like_length(candidates)

    def _order(self) -> None:
        """Rows that go on from a kept slot first, as they came; then the others, those with a common beginning together."""
        if self._ordered:
            return
        going_on = [row for row in self._waiting if row in self._claims]
        others = [row for row in self._waiting if row not in self._claims]
        groups = group_by_prefix([row.prompt for row in others], self._limits.prefill_tokens)
        self._waiting = going_on + [others[position] for group in groups for position in group]
        self._ordered = True

    def _entrant(self, row: Row) -> _Entrant:
        tokens = [*row.prompt, *row.generated]
        claim = self._claims.get(row)
        donors: list[_Donor] = (
            [*self._running, *(each for each in self._kept if not each.claimed)] if claim is None else [claim]
        )
        best, shared = None, 0
        for donor in donors:
            common = min(common_prefix(_tokens(donor), tokens), len(tokens) - 1)
            if common > shared:
                best, shared = donor, common
        if shared < _LEAST_SHARED_TOKENS:
            best, shared = None, 0
        return _Entrant(row, tokens, best, shared)

    @staticmethod
    def _comes_later(entrant: _Entrant, chosen: Sequence[_Entrant]) -> bool:
        """Whether a row had better wait for one of the chosen to be in its slot, to copy their common beginning from there."""
        if isinstance(entrant.donor, _Kept) and entrant.donor.claimed:
            return False  # it would lose its own slot
        common = max((common_prefix(each.tokens, entrant.tokens) for each in chosen), default=0)
        gain = min(common, len(entrant.tokens) - 1) - entrant.shared
        return gain >= _LEAST_SHARED_TOKENS and (entrant.donor is None or 2 * gain >= entrant.suffix)

    def _of_like_length(self, candidates: Sequence[_Entrant]) -> list[_Entrant]:
        """The first of the candidates and those that fill a forward pass with it without much padding."""
        by_length = sorted(candidates, key=lambda each: -each.suffix)
        chosen: list[_Entrant] = []
        real = 0
        for each in by_length:
            padded = by_length[0].suffix * (len(chosen) + 1)
            if chosen and (padded > self._limits.prefill_tokens or padded > _MOST_PADDING * (real + each.suffix)):
                break
            chosen.append(each)
            real += each.suffix
        return chosen

    # ---- forward passes

    def _admit(self, entrants: Sequence[_Entrant]) -> None:
        """Compute what is new of the rows' prompts in slots of their own, and draw their first tokens."""
        forward, first = self._forward, len(self._running)
        # Those that take over a slot come first: what is pushed out to make room for the others is then nobody's beginning.
        entrants = sorted(entrants, key=lambda each: not isinstance(each.donor, _Kept))
        rows = [each.row for each in entrants]
        self._attempting = [*self._running, *rows]
        ends = [len(each.tokens) for each in entrants]
        self._reserve(max([*ends, *(row.length for row in self._running)]) + 1)
        admitted = set(rows)
        self._waiting = [row for row in self._waiting if row not in admitted]
        heirs: dict[_Kept, Row] = {}
        for number, each in enumerate(entrants):
            self._place(each, heirs, entrants[:number])
        lengths = [each.shared for each in entrants]
        self._slots.begin(first, lengths, ends, forward.device)
        longest = max(each.suffix for each in entrants)
        ids_BQ = torch.tensor([each.tokens[each.shared :] + [0] * (longest - each.suffix) for each in entrants])
        places = (range(len(entrants)), [each.suffix - 1 for each in entrants])
        plain = not any(lengths) and forward.window is None
        logits_BV = forward.logits(
            ids_BQ,
            places,
            mask=None if plain else self._mask(),
            positions_BQ=None if plain else self._slots.columns_BQ,
            cache=self._slots,
        )
        self._prompt_tokens += sum(each.suffix for each in entrants)
        self._reused_tokens += sum(lengths)
        self._append(rows, self.drawing.next_tokens(logits_BV, rows))

    def _place(self, entrant: _Entrant, heirs: dict[_Kept, Row], placed: Sequence[_Entrant]) -> None:
        """Give a row the first slot behind the running ones, with what its donor holds of it.

        The first row that goes on from kept tokens takes their slot; others that do copy from it. Where they had to make room
        meanwhile, a row placed before may hold the same beginning.
        """
        slot, kept = len(self._running), self._kept
        self._claims.pop(entrant.row, None)
        donor = heirs.get(entrant.donor, entrant.donor) if isinstance(entrant.donor, _Kept) else entrant.donor
        if isinstance(donor, _Kept) and donor in kept:
            place = kept.index(donor)
            if place:
                self._slots.swap(slot, slot + place, max(len(kept[0].tokens), entrant.shared))
                kept[place] = kept[0]
            del kept[0]
            heirs[donor] = entrant.row
        else:
            if kept:
                self._vacate(slot)
            if not isinstance(donor, Row):  # there was none, or its slot had to go for want of memory
                donor, entrant.shared = self._other_donor(entrant, placed)
            if donor is not None:
                self._slots.copy(self._running.index(donor), slot, entrant.shared)
        self._running.append(entrant.row)

    @staticmethod
    def _other_donor(entrant: _Entrant, placed: Sequence[_Entrant]) -> tuple[Row | None, int]:
        """Of the rows just placed, whose new tokens are still to be computed, the one that holds most; and how much."""
        held = (
            (min(common_prefix(each.tokens, entrant.tokens), each.shared, len(entrant.tokens) - 1), each) for each in placed
        )
        shared, found = max(held, key=lambda each: each[0], default=(0, None))
        return (found.row, shared) if found is not None and shared >= _LEAST_SHARED_TOKENS else (None, 0)

    def _vacate(self, slot: int) -> None:
        """Free the slot of the newest kept tokens: they move behind the others, or where the oldest that nobody needs lay."""
        kept = self._kept
        if slot + len(kept) < self._slots.slots:
            place = len(kept)
        else:
            place = next((at for at in reversed(range(len(kept))) if not kept[at].claimed), len(kept) - 1)
            self._forget(kept[place])
        if place:
            self._slots.copy(slot, slot + place, len(kept[0].tokens))
            kept[place : place + 1] = [kept[0]]
        del kept[0]

    def _forget(self, lost: _Kept) -> None:
        """The row that was to go on from these tokens has to compute them again."""
        for row in [row for row, claim in self._claims.items() if claim is lost]:
            del self._claims[row]
            self._ordered = False

    def _step(self) -> None:
        """Add one token to every running row."""
        forward, rows = self._forward, self._running
        self._attempting = rows
        stored = [row.length - 1 for row in rows]  # the newest token is this pass's input
        self._reserve(max(stored) + 1)
        self._slots.begin(0, stored, [length + 1 for length in stored], forward.device)
        ids_B1 = torch.tensor([[row.generated[-1]] for row in rows])
        places = (range(len(rows)), [0] * len(rows))
        logits_BV = forward.logits(ids_B1, places, mask=self._mask(), positions_BQ=self._slots.columns_BQ, cache=self._slots)
        self._row_steps += len(rows)
        self._slot_steps += self._limits.rows
        self._append(rows, self.drawing.next_tokens(logits_BV, rows))

    def _mask(self) -> Any:
        forward = self._forward
        return forward.mask(self._slots.sees(), self._slots.sees(forward.window) if forward.window else None)

    def _reserve(self, columns: int) -> None:
        """Room for the rows at hand, and at once for as many as may come, so that the cache is seldom copied."""
        rows, most = len(self._attempting), self._limits.cache_tokens
        needed = -(-columns // COLUMN_STEP) * COLUMN_STEP
        columns = max(needed, self._slots.columns)
        if rows * columns > most:  # wider than need be, since some longer row was here
            columns = needed
        slots = max(rows, self._slots.slots, min(self._limits.rows, rows + len(self._waiting)))
        if slots * columns > most:
            slots = max(rows, most // columns)
        room = max(0, slots - len(self._running))
        for lost in [each for place, each in enumerate(self._kept) if place >= room or len(each.tokens) > columns]:
            self._forget(lost)
            self._kept.remove(lost)
        self._slots.reserve(slots, columns)

    # ---- tokens

    def _append(self, rows: Sequence[Row], tokens: Sequence[int]) -> None:
        self._completion_tokens += len(rows)
        for row, token in zip(rows, tokens, strict=True):
            row.generated.append(token)
            if self._has_ended(row):
                row.finish = FinishReason.STOP
            elif len(row.generated) >= row.max_tokens or row.length >= row.most_tokens:
                row.finish = FinishReason.LENGTH

    # ---- who goes out

    def _retire(self) -> None:
        slots = [slot for slot, row in enumerate(self._running) if row.finish is not None]
        self._ended += [self._running[slot] for slot in slots]
        self._leave(slots)

    def _leave(self, slots: Sequence[int]) -> None:
        """Rows leave these slots; what they hold is kept behind the running ones."""
        for slot in reversed(slots):
            row, last = self._running[slot], self._running.pop()
            if last is not row:
                self._slots.swap(slot, len(self._running), max(row.length, last.length) - 1)
                self._running[slot] = last
            self._kept.insert(0, _Kept(_tokens(row)))

    def _go_on_with_less(self) -> None:
        """Memory ran out: put the running rows back, with what they have written, and halve the batch.

        A single row that does not fit ends with `finish` None.
        """
        attempted, self._attempting = self._attempting, []
        rows = list(dict.fromkeys([*self._running, *attempted, *self._waiting]))
        self._smaller_batches += 1
        if len(attempted) == 1:
            self._limits.restore()
            rows.remove(attempted[0])
            self._ended.append(attempted[0])
        else:
            self._limits.halve(len(attempted))
        self._start_over(rows)

    def _start_over(self, rows: list[Row]) -> None:
        self._running, self._kept = [], []
        self._claims.clear()
        self._slots = self._empty_slots()
        self._waiting, self._ordered = rows, False

    def _empty_slots(self) -> SlotCache:
        return SlotCache(int(self._forward.config.num_hidden_layers))


def _tokens(donor: _Donor) -> list[int]:
    """The tokens whose keys and values lie in a slot: a row's newest has not gone through the model."""
    return donor.tokens if isinstance(donor, _Kept) else [*donor.prompt, *donor.generated[:-1]]
