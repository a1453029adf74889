"""Rows on a GPU: transformers' continuous batching, with a paged cache whose pages equal beginnings share.

A row enters as soon as there is room, beside rows in the middle of their answers: a critique starts when its draft has ended,
and finds the draft's pages still there. Which row enters next is decided here, so that beginnings are computed once.
"""

from __future__ import annotations

import bisect
import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import torch

from cai.engines.base import EngineStatistics
from cai.engines.continuous import ContinuousBatches, Stopped
from cai.engines.continuous_shape import PAGE_TOKENS, Counters, Features, Shape
from cai.engines.forward import Forward, is_out_of_memory
from cai.engines.pages import PageIndex
from cai.engines.rows import Row
from cai.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_FULL, _SLIDING = "full_attention", "sliding_attention"
_SLOTS = "Set engine.scheduler: slots, which runs this model with its own cache."
_MOST_ROWS = 512
_ROW_TOKENS = 1024
"""What a row may take of the cache when memory decides how many there are: a conversation with few-shots, and its answer."""
_GPU_BATCH_TOKENS = 2048
_CPU_ROWS, _CPU_BATCH_TOKENS, _CPU_CACHE_TOKENS = 16, 512, 16384
_LEAST_SHARE = 0.02
_LOOKED_AT = 256
"""Waiting rows looked at for one that need not wait for a beginning under way."""
_SPARE_TOKENS = 2 * PAGE_TOKENS
"""What a row may need of the cache beyond its length."""
_LEAST_BATCH_TOKENS = 64
_SMALLER = "Use a smaller model, a lower precision, or free memory of the device."
_MEMORY, _FULL_CACHE, _CAPTURE = "memory", "full cache", "capture"


@dataclass(slots=True, eq=False)
class _Waiting:
    row: Row
    pages: list[int]


class PagedScheduler:
    """`cai.engines.rows.Scheduler` by transformers' continuous batching (5.17 or later); for GPUs, and slow on a CPU.

    The model's attention is another while a thread of transformers runs, from the first `run` to `close`: whoever wants to
    make a forward pass of the same model calls `close` before; `run` starts the thread again.

    On a GPU, kernels round differently for batches of other shapes, so where two tokens are all but equally likely, a text
    can depend on what else is computed; noise and all else do not.

    Args:
        model: A causal language model whose layers attend to all earlier tokens or to a window of them.
        ended: Whether a row's answer is complete with its newest token. It is called on another thread.
        rows: Computed together; None: by the memory that is free.
        batch_tokens: Of one forward pass; a longer prompt is computed in parts.
        cache_tokens: In the cache, all rows together; None: by memory.
        memory_share: Of the memory that is free, for the cache and what belongs to it.
        share: Whether rows share the pages of equal beginnings, and are ordered for it.
        graphs: Whether CUDA graphs are recorded; where that fails, it goes on without.

    Raises:
        EngineError: If transformers cannot run this model so.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ended: Callable[[Row], bool],
        *,
        rows: int | None = None,
        batch_tokens: int | None = None,
        cache_tokens: int | None = None,
        memory_share: float = 0.8,
        share: bool = True,
        graphs: bool = True,
    ) -> None:
        kinds = _layer_kinds(model)
        self._model = model
        self._ended_with = ended
        on_gpu = cast("Any", model).device.type == "cuda"
        chosen = rows or (_rows_by_memory(model, memory_share) if on_gpu else _CPU_ROWS)
        tokens = max(batch_tokens or (_GPU_BATCH_TOKENS if on_gpu else _CPU_BATCH_TOKENS), chosen)
        cached = cache_tokens or (None if on_gpu else _CPU_CACHE_TOKENS)
        self._shape = Shape(chosen, chosen + chosen // 4, tokens, cached, memory_share, graphs, share and not kinds - {_FULL})
        self._before: Shape | None = None
        """The shape before memory ran out, until a row has ended in the smaller one."""
        self._batches: ContinuousBatches | None = None
        self._pages = PageIndex(PAGE_TOKENS, 1)
        self._counters = Counters()
        self._smaller_batches = 0
        self._ahead: deque[_Waiting] = deque()
        self._behind: list[_Waiting] = []
        self._inside: dict[Row, _Waiting] = {}
        self._ready: deque[Row] = deque()
        self._computed: deque[_Waiting] = deque()
        """Rows whose prompt the thread has computed."""
        self._held = False
        self._features = Features()

    @property
    def rows(self) -> int:
        """Rows computed together at present."""
        return self._shape.rows

    def add(self, row: Row) -> None:
        """Queue a row; computes nothing. One that goes on from what lies in the cache enters before those that do not."""
        waiting = _Waiting(row, self._pages.pages(row.prompt) if self._shape.share else [])
        self._features |= Features.of(row.params)
        if 2 * self._pages.shared(waiting.pages) > len(waiting.pages):
            self._ahead.append(waiting)
        else:
            # In the order of their tokens, so that equal beginnings come together; the last is the next.
            bisect.insort_left(self._behind, waiting, key=lambda each: each.row.prompt)

    def run(self) -> Iterator[Row]:
        """Rows as they end. `finish` None means that memory ran out for this row alone.

        Raises:
            EngineError: If the thread that computes has died of something else than memory.
        """
        while True:
            while self._ready:
                yield self._ready.popleft()
            if not (self._ahead or self._behind or self._inside):
                return
            stopped: tuple[str, str] | None = None
            try:
                self._feed()
                self._take()
            except Stopped as end:
                stopped = _kind_of(end.__cause__), _told(end)
                _forget_frames(end)
            except BaseException:
                self.close()
                raise
            if stopped is not None:  # handled here, where no traceback holds tensors any more
                self._go_on(*stopped)

    def drop(self, rows: Iterable[Row]) -> None:
        """Forget rows that nobody waits for any more."""
        dropped = set(rows)
        self._ahead = deque(each for each in self._ahead if each.row not in dropped)
        self._behind = [each for each in self._behind if each.row not in dropped]
        self._ready = deque(row for row in self._ready if row not in dropped)
        for row in dropped & self._inside.keys():
            gone = self._inside.pop(row)
            self._pages.give_up(gone.pages, gone)
        if self._batches is not None:
            self._batches.drop(dropped)

    def close(self) -> None:
        """Stop the thread, free the cache and give the model its own attention back. Rows that have not ended wait again.

        Safe to call twice.
        """
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.stop()
        self._put_back()

    def statistics(self) -> EngineStatistics:
        """Counters since the scheduler was made. May be asked from another thread."""
        counters = self._counters
        return EngineStatistics(
            prompt_tokens=counters.prompt_tokens,
            reused_tokens=counters.reused_tokens,
            completion_tokens=counters.completion_tokens,
            row_steps=counters.row_steps,
            slot_steps=counters.slot_steps,
            waiting=len(self._ahead) + len(self._behind),
            running=len(self._inside),
            smaller_batches=self._smaller_batches,
        )

    # ---- into the thread

    def _feed(self) -> None:
        while self._computed:
            each = self._computed.popleft()
            self._pages.finish(each.pages, each)
        if self._batches is not None and self._batches.features != self._features:
            self.close()
        self._held = False
        while len(self._inside) < self._shape.outstanding and (self._ahead or self._behind):
            batches = self._batches or self._start()
            waiting = self._next()
            if waiting is None:
                self._held = True  # until a beginning is computed
                return
            if waiting.row.length + _SPARE_TOKENS > batches.cache_tokens:
                self._ready.append(waiting.row)
                continue
            self._inside[waiting.row] = waiting
            self._pages.begin(waiting.pages, waiting)
            batches.submit(waiting.row, partial(self._note_computed, batches, waiting))

    def _note_computed(self, batches: ContinuousBatches, waiting: _Waiting) -> None:
        self._computed.append(waiting)
        if self._held:
            batches.wake()

    def _next(self) -> _Waiting | None:
        """The next row that need not wait for a beginning under way."""
        for place, waiting in enumerate(islice(self._ahead, _LOOKED_AT)):
            if not self._pages.is_begun(waiting.pages):
                del self._ahead[place]
                return waiting
        for place in range(len(self._behind) - 1, max(-1, len(self._behind) - 1 - _LOOKED_AT), -1):
            if not self._pages.is_begun(self._behind[place].pages):
                return self._behind.pop(place)
        return None

    def _start(self) -> ContinuousBatches:
        while True:
            problem = ""
            try:
                batches = ContinuousBatches(self._model, self._shape, self._features, self._ended_with, self._counters)
            except (RuntimeError, MemoryError, ValueError) as error:
                if not is_out_of_memory(error) and not str(error).startswith("Invalid values"):
                    raise
                problem = str(error)
                _forget_frames(error)
            else:
                self._batches = batches
                self._pages = PageIndex(PAGE_TOKENS, batches.cache_tokens // PAGE_TOKENS)
                return batches
            smaller = _with_half_the_memory(self._shape)
            if smaller is None:
                raise EngineError(f"There is no room for a key-value cache beside the model: {problem}", _SMALLER)
            self._smaller_batches += 1
            self._shape = smaller

    # ---- out of the thread

    def _take(self) -> None:
        if self._batches is None:
            return
        row = self._batches.next()
        waiting = None if row is None else self._inside.pop(row, None)
        if row is not None and waiting is not None:
            self._pages.give_up(waiting.pages, waiting)
            if self._shape.share:
                self._pages.finish(self._pages.pages([*row.prompt, *row.generated[:-1]]), waiting)
            self._before = None  # what is large now has fitted
            self._ready.append(row)

    def _go_on(self, kind: str, told: str) -> None:
        """The thread has died: start again with what the rows have written, in a way that avoids what killed it."""
        inside = list(self._inside)
        cache_tokens = 0 if self._batches is None else self._batches.cache_tokens
        self.close()
        open_rows = [row for row in inside if row.finish is None]
        if kind == _MEMORY:
            self._smaller_batches += 1
            if len(open_rows) == 1 and self._before is not None:
                self._end_alone(open_rows)
            else:
                self._before = self._before or self._shape
                rows = max(1, min(self._shape.rows, len(open_rows)) // 2)
                smaller = _with_half_the_memory(self._shape) or self._shape
                self._shape = replace(smaller, rows=rows, outstanding=rows + rows // 4)
        elif kind == _FULL_CACHE and (large := [row for row in open_rows if row.length + _SPARE_TOKENS > cache_tokens]):
            self._end_alone(large)
        elif kind == _CAPTURE and self._shape.graphs:
            _log.warning("CUDA graphs cannot be recorded here, going on without: %s", told)
            self._shape = replace(self._shape, graphs=False)
        else:
            raise EngineError(f"Continuous batching has stopped: {told}", _SLOTS)

    def _end_alone(self, rows: Sequence[Row]) -> None:
        """These rows do not fit into memory, whatever else is there."""
        ended = set(rows)
        self._ahead = deque(each for each in self._ahead if each.row not in ended)
        self._ready.extend(rows)
        self._shape, self._before = self._before or self._shape, None

    def _put_back(self) -> None:
        """Rows that were inside wait before all others; those that ended without being fetched are ready."""
        inside, self._inside = list(self._inside.values()), {}
        self._computed.clear()
        self._pages = PageIndex(PAGE_TOKENS, 1)
        self._ready.extend(each.row for each in inside if each.row.finish is not None)
        self._ahead.extendleft(each for each in reversed(inside) if each.row.finish is None)


def _layer_kinds(model: PreTrainedModel) -> frozenset[str]:
    """The kinds of a model's layers.

    Raises:
        EngineError: If continuous batching would compute something else than the model does, or cannot run it.
    """
    typed: Any = model
    config = typed.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    devices: dict[str, object] = getattr(typed, "hf_device_map", None) or {}
    kinds = frozenset(getattr(config, "layer_types", None) or [_SLIDING if window else _FULL])
    problem = ""
    if not kinds <= {_FULL, _SLIDING}:
        problem = f"has layers of the kind {', '.join(sorted(kinds - {_FULL, _SLIDING}))}"
    elif getattr(config, "attn_logit_softcapping", None):
        problem = "caps its attention scores softly, which paged attention does not"
    elif typed.get_output_embeddings() is None or typed.config.is_encoder_decoder:
        problem = "is no decoder with a language-model head"
    elif not typed._supports_attention_backend:
        problem = "computes attention in a way of its own"
    elif len(set(devices.values())) > 1:
        problem = "is spread over several devices"
    if problem:
        raise EngineError(f"Continuous batching cannot run this model ({type(model).__name__}): it {problem}.", _SLOTS)
    return kinds


def _rows_by_memory(model: PreTrainedModel, share: float) -> int:
    free_bytes = torch.cuda.mem_get_info(cast("Any", model).device)[0] * share
    return max(1, min(_MOST_ROWS, int(free_bytes // (Forward(model).kv_bytes_per_token * _ROW_TOKENS))))


def _with_half_the_memory(shape: Shape) -> Shape | None:
    """The same with a smaller cache and less in one forward pass; None if the cache would be no cache."""
    share = shape.memory_share / 2
    cached = None if shape.cache_tokens is None else shape.cache_tokens // 2
    if share < _LEAST_SHARE or (cached is not None and cached < _SPARE_TOKENS):
        return None
    tokens = max(_LEAST_BATCH_TOKENS, shape.rows, shape.batch_tokens // 2)
    return replace(shape, memory_share=share, cache_tokens=cached, batch_tokens=tokens)


def _kind_of(cause: BaseException | None) -> str:
    if cause is None:
        return ""
    if is_out_of_memory(cause):
        return _MEMORY
    text = str(cause).lower()
    if "no requests can be scheduled" in text:
        return _FULL_CACHE
    return _CAPTURE if "captur" in text else ""


def _told(end: Stopped) -> str:
    cause = end.__cause__
    return str(end) if cause is None else f"{type(cause).__name__}: {cause}"


def _forget_frames(error: BaseException) -> None:
    """Frames hold tensors, and an error its frames."""
    each: BaseException | None = error
    while each is not None:
        traceback.clear_frames(each.__traceback__)
        each = each.__cause__ or each.__context__
