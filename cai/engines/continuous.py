"""transformers' continuous batching as the paged scheduler uses it: the one module that knows its inner parts.

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
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig, LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager
from transformers.generation.continuous_batching.requests import RequestState, RequestStatus

from cai.engines.base import FinishReason, SamplingParams
from cai.engines.paged_attention import paged_attention
from cai.engines.row_sampling import ARGUMENTS, noisy_rows, penalise_rows, row_arguments
from cai.engines.rows import Row
from cai.engines.sampling import position_seed, vocabulary_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PAGE_TOKENS = 32
"""Of a page: what prompts have in common is shared in whole pages, and each page costs some Python in every step."""
_QUERY_STEP = 256
_WAIT_S = 0.5
_STOP_S = 60.0
_LOGGER = "ContinuousBatchingLogger"


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
        self._states: dict[str, _RowState] = {}
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
            self._logits = _KeyedLogits(features, shape, vocabulary, self._device, counters)
            self._manager: Any = ContinuousBatchingManager(
                model=self._model,
                generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
                continuous_batching_config=_config(shape, attention, graphs=graphs),
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
        state = _RowState(
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

    def drawn(self, state: _RowState, token: int, *, last: bool) -> bool:
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

    def replaced(self, state: _RowState) -> None:
        """A row goes on as another request of the same id. Called by the thread."""
        if state.request_id in self._states:
            self._states[state.request_id] = state

    @property
    def _device(self) -> torch.device:
        return cast("torch.device", self._model.device)

    def _restore(self) -> None:
        self._model.config._attn_implementation = self._loaded_with
        logging.getLogger(_LOGGER).setLevel(self._log_level)


@dataclass
class _RowState(RequestState):
    """A request of transformers that is one of our rows. Its `row` is None when nobody waits for it any more.

    It knows its batches weakly: the thread holds requests, also some that have ended, and must not keep alive that which ends
    it when nobody needs it any more.
    """

    row: Row | None = None
    batches: weakref.ref[ContinuousBatches] | None = None
    counted: bool = False
    line: int | None = None

    def update_and_check_completion(self, token_id: int, logprob: float | None) -> bool:
        last = super().update_and_check_completion(token_id, logprob)
        assert self.batches is not None
        batches = self.batches()
        if (batches is None or batches.drawn(self, token_id, last=last)) and not last:
            self.status = RequestStatus.FINISHED
        return self.status == RequestStatus.FINISHED

    def create_equivalent_initial_request(self) -> RequestState:
        """The same row from its prompt and all it has written: transformers had to give its pages to others."""
        plain = super().create_equivalent_initial_request()
        again = _RowState(
            request_id=plain.request_id,
            initial_tokens=plain.initial_tokens,
            max_new_tokens=plain.max_new_tokens,
            row=self.row,
            batches=self.batches,
        )
        assert self.batches is not None
        if (batches := self.batches()) is not None:
            batches.replaced(again)
        return again


class _KeyedLogits(ContinuousBatchingLogitsProcessorList):
    """Turns logits into scores whose largest is the token that the row's own noise draws."""

    def __init__(self, features: Features, shape: Shape, vocabulary: int, device: torch.device, counters: Counters) -> None:
        super().__init__(LogitsProcessorList())
        self.tensors_required = ARGUMENTS
        self.do_processing = True
        self.stream: Any = None
        self._features = features
        self._counters = counters
        self._rows = shape.rows
        self._vocabulary_V = vocabulary_hash(vocabulary, device)
        # Which tokens a row has seen: a line for each row with a penalty; the last line is everybody else's.
        self._lines: dict[str, int] = {}
        self._free_lines = list(range(shape.outstanding)) if features.penalty else []
        self._common_line = len(self._free_lines)
        self._yes = torch.ones((), dtype=torch.bool, device=device)
        self._seen: Tensor | None = None
        if features.penalty:
            self._seen = torch.zeros((shape.outstanding + 1, vocabulary), dtype=torch.bool, device=device)

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        """What stands in the places of no row: greedy, no penalty to speak of."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_in_batch: Any, arg_storage: Tensor) -> Tensor:
        """Put the parameters of the rows that will draw a token into `arg_storage`, in the order of the batch."""
        decoded = 0
        drawing: list[_RowState] = []
        for request in requests_in_batch:
            state = request.state
            if not isinstance(state, _RowState):
                continue  # of the warm-up
            decoded += self._count(state, int(request.query_length))
            if request.has_new_token:
                drawing.append(state)
        if decoded:
            self._counters.row_steps += decoded
            self._counters.slot_steps += self._rows
        if drawing:
            rows = [state.row or _NOBODY for state in drawing]
            seeds = [
                position_seed(row.seed, state.position_offset - len(row.prompt))
                for row, state in zip(rows, drawing, strict=True)
            ]
            lines = [self._line(state) for state in drawing]
            arguments = row_arguments([row.params for row in rows], seeds, lines)
            arg_storage[:, : len(drawing)] = arguments.to(arg_storage.device)
        return arg_storage

    def __call__(self, input_ids: Tensor, scores: Tensor, logits_processor_args: Tensor) -> Tensor:
        """Scores [rows, vocabulary] of the next tokens; `input_ids` are the rows' newest tokens."""
        arguments = logits_processor_args[:, : scores.shape[0]]
        if self._seen is not None:
            lines = arguments[2].long()
            self._seen.index_put_((lines, input_ids.long()), self._yes)
            scores = penalise_rows(scores, self._seen[lines], arguments)
        return noisy_rows(scores, arguments, self._vocabulary_V, nucleus=self._features.nucleus)

    def release(self, state: _RowState) -> None:
        """The row has ended: its line may be another's."""
        line = self._lines.pop(state.request_id, None)
        if line is not None:
            self._free_lines.append(line)

    def forget(self) -> None:
        self._seen = None

    def _count(self, state: _RowState, tokens: int) -> int:
        """Count a row's part of a batch; 1 if it is being written."""
        if not state.counted:
            state.counted = True
            self._counters.reused_tokens += state.position_offset - tokens
        if state.position_offset > len(state.initial_tokens):
            return 1
        self._counters.prompt_tokens += tokens
        return 0

    def _line(self, state: _RowState) -> int:
        row = state.row
        if self._seen is None or row is None or row.params.repetition_penalty == 1.0:
            return self._common_line
        if state.line is None:
            if state.request_id not in self._lines:
                self._lines[state.request_id] = self._free_lines.pop()
            state.line = self._lines[state.request_id]
            # After the batch that is under way, which may still have another row in this line, and before the next.
            with torch.cuda.stream(self.stream) if self.stream is not None else nullcontext():
                self._seen[state.line] = False
                self._seen[state.line, torch.tensor(state.initial_tokens, device=self._seen.device)] = True
        return state.line


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


def _config(shape: Shape, attention: str, *, graphs: bool) -> ContinuousBatchingConfig:
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


_NOBODY = Row([], SamplingParams(temperature=0.0), 0, 1, 1)
