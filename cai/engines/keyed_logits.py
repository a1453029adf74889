"""Noise by key inside transformers' continuous batching: its request as one of our rows, the logits that draw its tokens."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.continuous_batching.requests import RequestState, RequestStatus

from cai.engines.base import SamplingParams
from cai.engines.continuous_shape import Counters, Features, Shape
from cai.engines.row_sampling import ARGUMENTS, noisy_rows, penalise_rows, row_arguments
from cai.engines.rows import Row
from cai.engines.sampling import position_seed, vocabulary_hash

_NOBODY = Row([], SamplingParams(temperature=0.0), 0, 1, 1)


class Batches(Protocol):
    """What is told of rows by the thread that computes them."""

    def drawn(self, state: RowState, token: int, *, last: bool) -> bool: ...
    def replaced(self, state: RowState) -> None: ...


@dataclass
class RowState(RequestState):
    """A request of transformers that is one of our rows. Its `row` is None when nobody waits for it any more.

    It knows its batches weakly: the thread holds requests, also some that have ended, and must not keep alive that which ends
    it when nobody needs it any more.
    """

    row: Row | None = None
    batches: weakref.ref[Batches] | None = None
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
        again = RowState(
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


class KeyedLogits(ContinuousBatchingLogitsProcessorList):
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
        drawing: list[RowState] = []
        for request in requests_in_batch:
            state = request.state
            if not isinstance(state, RowState):
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

    def release(self, state: RowState) -> None:
        """The row has ended: its line may be another's."""
        line = self._lines.pop(state.request_id, None)
        if line is not None:
            self._free_lines.append(line)

    def forget(self) -> None:
        self._seen = None

    def _count(self, state: RowState, tokens: int) -> int:
        """Count a row's part of a batch; 1 if it is being written."""
        if not state.counted:
            state.counted = True
            self._counters.reused_tokens += state.position_offset - tokens
        if state.position_offset > len(state.initial_tokens):
            return 1
        self._counters.prompt_tokens += tokens
        return 0

    def _line(self, state: RowState) -> int:
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
