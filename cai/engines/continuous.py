"""transformers' continuous batching as the paged scheduler uses it: with `keyed_logits` the place that knows its inner parts.

A thread of transformers computes batch after batch; rows go in and come out at any time. Four things are not to be had through
its public arguments, in 5.17 as in 5.23, and are put in here: noise by key instead of `torch.multinomial` (a list of logits
processors of our own, set before the thread starts), the end of a row decided as soon as its token is known (a request of our
own class: cancelling from outside would compute a token too many, and while a batch is under way it can break the cache), the
choice of attention, and the order in which 5.17 gives up what it remembers.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import GenerationConfig
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

from cai.engines.base import FinishReason
from cai.engines.continuous_shape import PAGE_TOKENS, Counters, Features, Shape, batching_config
from cai.engines.keyed_logits import KeyedLogits, RowState
from cai.engines.paged_attention import paged_attention
from cai.engines.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WAIT_S = 0.5
_STOP_S = 60.0
_LOGGER = "ContinuousBatchingLogger"


class Stopped(Exception):
    """The thread has ended before its rows did. The cause is what ended it."""


class ContinuousBatches:
    """One run of transformers' thread, from its start to its end.

    Args:
        model: Its attention is replaced until `stop`: no other forward pass may be made meanwhile.
        shape: Of the batches.
        features: Of all rows that will be submitted.
        ended: Whether a row's answer is complete with its newest token. Called by the thread.
        counters: Counted up.

    Raises:
        MemoryError: If the cache does not fit into memory (also what torch raises then).
        ValueError: If a cache of this size is no cache.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        shape: Shape,
        features: Features,
        ended: Callable[[Row], bool],
        counters: Counters,
    ) -> None:
        self._model: Any = model
        self.features = features
        self._ended = ended
        self._counters = counters
        self._states: dict[str, RowState] = {}
        self._begun: dict[str, Callable[[], None]] = {}
        self._submitted = 0
        self._error: Exception | None = None
        self._loaded_with = self._model.config._attn_implementation
        self._log_level = logging.getLogger(_LOGGER).level
        attention = paged_attention(model)
        graphs = shape.graphs and "flash" in attention and self._device.type == "cuda"
        self._model.config._attn_implementation = attention
        # What it logs as errors ends the thread, and is raised here.
        logging.getLogger(_LOGGER).setLevel(logging.CRITICAL)
        try:
            vocabulary = int(self._model.get_output_embeddings().weight.shape[0])
            self._logits = KeyedLogits(features, shape, vocabulary, self._device, counters)
            self._manager: Any = ContinuousBatchingManager(
                model=self._model,
                generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
                continuous_batching_config=batching_config(shape, attention, graphs=graphs),
            )
            self._manager.logit_processor = self._logits
            # Cache and inputs are made here, where what they raise is seen, and the largest graphs recorded.
            self._manager.warmup()
            inside = self._manager.batch_processor
            self._logits.stream = inside.inputs_and_outputs.compute_stream
            self.cache_tokens = int(inside.cache.num_blocks) * PAGE_TOKENS // int(getattr(inside.cache, "num_groups", 1))
            self.shares = bool(inside.cache.use_prefix_sharing)
            _remember_oldest_last(inside.cache)
            # The interpreter waits for all threads but daemons before it calls what is to be done at exit, which ends this one;
            # a thread is a daemon if the one that starts it is.
            self._ending = _Ending(self._manager)
            self._end_thread = weakref.finalize(self, self._ending)
            starter = threading.Thread(target=self._manager.start, daemon=True)
            starter.start()
            starter.join()
        except BaseException:
            self._restore()
            raise

    def submit(self, row: Row, begun: Callable[[], None]) -> None:
        """Hand in a row, with what it has written already.

        Args:
            row: Until it ends, the thread writes to it.
            begun: Called by the thread when the row's prompt is computed.
        """
        state = RowState(
            request_id=str(self._submitted),
            initial_tokens=[*row.prompt, *row.generated],
            max_new_tokens=min(row.max_tokens - len(row.generated), row.most_tokens - row.length),
            row=row,
            batches=weakref.ref(self),
        )
        self._submitted += 1
        self._states[state.request_id] = state
        self._begun[state.request_id] = begun
        self._manager.input_queue.put(state)
        wake = getattr(self._manager, "_wake_up_loop", None) or self._manager._has_new_requests  # later and earlier name
        wake.set()

    def wake(self) -> None:
        """Let `next` return at once. May be called by the thread."""
        self._manager.output_router.output_queue.put(None)

    def next(self) -> Row | None:
        """The next row that has ended, or None if none has for a while or `wake` was called.

        Raises:
            Stopped: If the thread has ended.
            Exception: What `ended` has raised.
        """
        output = self._manager.get_result(timeout=_WAIT_S)
        if self._error is not None:
            raise self._error
        if output is None and self._manager.is_running():
            return None
        if output is None or output.error is not None:
            self._ending.wait()
            raise Stopped(getattr(output, "error", "")) from self._manager.background_thread_status.fatal_error
        state = self._states.pop(output.request_id, None)
        return None if state is None else state.row

    def drop(self, rows: set[Row]) -> None:
        """Write no further token to these rows."""
        for key, state in list(self._states.items()):
            if state.row in rows:
                state.row = None
                del self._states[key]
                self._begun.pop(key, None)

    def stop(self) -> None:
        """End the thread and free the cache. Rows that have not ended keep what they have written."""
        try:
            self._end_thread()
            self._ending()  # it may have been told to on its own thread, which did not wait
            self._manager.batch_processor = None
            self._manager.background_thread_status.fatal_error = None  # its traceback holds tensors
            self._manager.destroy()
        finally:
            self._restore()
            self._logits.forget()
            self._begun.clear()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def drawn(self, state: RowState, token: int, *, last: bool) -> bool:
        """A row has a new token; whether it ends with it. Called by the thread."""
        row = state.row
        if row is not None:
            row.generated.append(token)
            self._counters.completion_tokens += 1
            if (begun := self._begun.pop(state.request_id, None)) is not None:
                begun()
            try:
                stopped = self._ended(row)
            except Exception as error:  # noqa: BLE001 - whatever the caller's code raises on this thread, `next` raises on its own
                self._error = error
                stopped = True
                self.wake()
            row.finish = FinishReason.STOP if stopped else FinishReason.LENGTH if last else None
        ends = row is None or row.finish is not None
        if ends:
            self._logits.release(state)
        return ends

    def replaced(self, state: RowState) -> None:
        """A row goes on as another request of the same id. Called by the thread."""
        if state.request_id in self._states:
            self._states[state.request_id] = state

    @property
    def _device(self) -> torch.device:
        return cast("torch.device", self._model.device)

    def _restore(self) -> None:
        self._model.config._attn_implementation = self._loaded_with
        logging.getLogger(_LOGGER).setLevel(self._log_level)


class _OldestFirst(dict[int, None]):
    """Pages that no row uses. transformers 5.17 gives up the one used last, which a conversation's next turn goes on from."""

    def popitem(self) -> tuple[int, None]:
        oldest = next(iter(self))
        return oldest, self.pop(oldest)


class _Ending:
    """Ends a manager's thread, for one caller at a time: `stop` of transformers is not made for two."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._one = threading.Lock()

    def __call__(self) -> None:
        """End it and wait. On the thread itself, where garbage may be collected, it is only told to."""
        if threading.current_thread() is self._manager._generation_thread:
            threading.Thread(target=self._stop, daemon=True).start()
        else:
            self._stop()

    def wait(self) -> None:
        """Until the thread has ended, of itself or because it was told to."""
        with self._one:
            self._manager.join(0.0, timeout=_STOP_S)

    def _stop(self) -> None:
        with self._one:
            if self._manager.is_running():
                self._manager.stop(block=True, timeout=_STOP_S, hard_stop=True)


def _remember_oldest_last(cache: Any) -> None:
    blocks = getattr(cache, "_block_manager", None)
    if blocks is not None:
        blocks._init_block_ids = _OldestFirst(blocks._init_block_ids)
