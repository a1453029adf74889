"""The engine that runs a transformers model in this process."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from cai.engines.base import (
    EngineStatistics,
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationResult,
    RequestFailure,
    ScoreRequest,
    ScoreResult,
    Scores,
    generate_all,
)
from cai.engines.decoding import SlotScheduler
from cai.engines.forward import Forward
from cai.engines.limits import BatchLimits
from cai.engines.opening import SLOTS, SchedulerName
from cai.engines.paged import PagedScheduler
from cai.engines.requests import encode_scored, out_of_memory, refusal, request_key, too_long
from cai.engines.rows import Row, Scheduler
from cai.engines.sampling import noise_seed
from cai.engines.scoring import ScoredSequences, ScoredTokens, score_sequences
from cai.errors import EngineError, ModelError
from cai.models.loading import LoadedModel
from constitution.messages import Conversation, tools_of

_log = logging.getLogger("cai.engines")
_BYTES_PER_CHARACTER = 4


@dataclass(eq=False)
class LocalStream:
    """Requests to one engine and their answers; implements `cai.engines.base.GenerationStream`."""

    engine: LocalEngine
    inbox: deque[tuple[int, GenerationResult]] = field(default_factory=deque[tuple[int, GenerationResult]])
    pending: dict[Row, int] = field(default_factory=dict[Row, int])
    tickets: int = 0

    @property
    def works_unread(self) -> bool:
        return False

    def submit(self, request: GenerationRequest) -> int:
        """Queue a request; nothing is computed before `results` is read."""
        ticket, self.tickets = self.tickets, self.tickets + 1
        row = self.engine.queue(request, self)
        if isinstance(row, Row):
            self.pending[row] = ticket
        else:
            self.inbox.append((ticket, row))
        return ticket

    def results(self, patience_s: float | None = None) -> Iterator[tuple[int, GenerationResult]]:  # noqa: ARG002
        """Answers as they are ready. The model works only while this is read, so there is nothing to be patient for."""
        while True:
            while self.inbox:
                yield self.inbox.popleft()
            if not self.pending:
                return
            self.engine.work()

    def take(self, row: Row, result: GenerationResult) -> None:
        """For the engine: the answer of a row of this stream."""
        self.inbox.append((self.pending.pop(row), result))

    def close(self) -> None:
        self.engine.drop(self.pending)
        self.pending.clear()
        self.inbox.clear()


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """An answer with the tokens it consists of: what a policy is trained on must be what it drew, not its text encoded anew.

    Args:
        generation: The answer as text.
        prompt_ids: The rendered prompt.
        completion_ids: All tokens that were drawn, the one that ended the turn included.
    """

    generation: Generation
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(eq=False)
class _TokenStream(LocalStream):
    rows: dict[int, Row] = field(default_factory=dict[int, "Row"])

    def take(self, row: Row, result: GenerationResult) -> None:
        self.rows[self.pending[row]] = row
        super().take(row, result)


class LocalEngine:
    """Batched generation and scoring with a model in this process. Implements `cai.engines.base.Engine`.

    An answer depends on its request alone, up to the rounding of kernels, which differs for batches of other shapes: a score
    differs in its last digits, and a near-tie between two tokens may fall the other way. In float32 texts are nevertheless the
    same whatever else is asked at the same time, and scores are to 1e-4 nats. With `exact`, scores are the same to the last bit
    as well; what their prompts have in common is then computed for each of them.

    The weights are read at the first call that needs them.

    Args:
        loaded: From `cai.models.loading`.
        batch_tokens: Most prompt tokens in one forward pass, padding included; None: by the device. Lower it when memory is
            short; when it runs out, the engine halves its batches by itself and goes on.
        max_batch: Rows decoded together; None: by the device.
        exact: See above. None: texts in float32. False: nothing.
        scheduler: `slots` or `paged` (transformers' continuous batching); `auto` is paged on a GPU that it can serve the model
            on, unless answers are to be exact.

    Raises:
        EngineError: If `exact` is asked for in another precision than float32: its rounding decides too many tokens.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        batch_tokens: int | None = None,
        max_batch: int | None = None,
        exact: bool | None = None,
        scheduler: SchedulerName = "auto",
    ) -> None:
        if (max_batch is not None and max_batch < 1) or (batch_tokens is not None and batch_tokens < 1):
            raise ValueError(f"max_batch ({max_batch}) and batch_tokens ({batch_tokens}) must be at least 1")
        if exact and loaded.dtype is not torch.float32:
            raise EngineError(
                f"`engine.exact` is set, and {loaded.spec} is read in {str(loaded.dtype).removeprefix('torch.')}.",
                "Set the model's `dtype: float32`, or leave `engine.exact` out.",
            )
        self._loaded = loaded
        self._batch_tokens = batch_tokens
        self._max_batch = max_batch
        self._exact = exact
        self._scheduler_name: SchedulerName = scheduler
        self._asked: dict[Row, tuple[GenerationRequest, LocalStream]] = {}
        self._earlier = EngineStatistics()
        """Of a scheduler that had to be given up."""
        self._scored = ScoredTokens()

    @property
    def fingerprint(self) -> str:
        """Identifies weights, adapter, precision, tokenizer and chat template."""
        return self._loaded.fingerprint

    @property
    def context_tokens(self) -> int:
        """The longest prompt plus answer, in tokens."""
        return self._loaded.context_tokens

    def count_tokens(self, messages: Conversation, response_prefix: str = "") -> int:
        """Exact length of the rendered prompt, in tokens.

        Raises:
            ModelError: If the chat template refuses the conversation.
        """
        return self._loaded.tokenizer.count(messages, response_prefix)

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        """Hash of exactly what determines the answer; needs no weights."""
        return request_key(self.fingerprint, self._loaded.tokenizer, request)

    def statistics(self) -> EngineStatistics:
        """What it has done so far."""
        scored = EngineStatistics(
            scored_tokens=self._scored.computed,
            reused_scored_tokens=self._scored.reused,
            smaller_batches=self._scored.smaller_batches,
        )
        done = self._scheduler.statistics() if "_scheduler" in self.__dict__ else EngineStatistics()
        return self._earlier + scored + done

    def stream(self) -> LocalStream:
        """A stream of requests. Streams of one engine share its batches."""
        return LocalStream(self)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        """Answer requests, each as soon as it is ready.

        An empty answer is an answer (text ""). A request fails alone: `prompt_too_long`, `refused_by_template`,
        `out_of_memory`.
        """
        return generate_all(self, requests)

    def sample(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, SampledTokens | RequestFailure]]:
        """As `generate`, with the tokens of each answer."""
        stream = _TokenStream(self)
        try:
            for request in requests:
                stream.submit(request)
            for ticket, result in stream.results():
                if isinstance(result, RequestFailure):
                    yield ticket, result
                else:
                    row = stream.rows.pop(ticket)
                    yield ticket, SampledTokens(result, tuple(row.prompt), tuple(row.generated))
        finally:
            stream.close()

    def weights_have_changed(self) -> None:
        """Forget what was computed with the weights as they were: keys and values of earlier prompts and answers.

        For whoever trains the model that this engine samples from, between two calls.
        """
        if "_scheduler" in self.__dict__:
            self._scheduler.close()
            self._earlier = self._earlier + self._scheduler.statistics()
            del self._scheduler

    def queue(self, request: GenerationRequest, stream: LocalStream) -> Row | RequestFailure:
        """For `LocalStream`: hand a request to the scheduler; a failure if it cannot even be begun."""
        row = self._row(request)
        if isinstance(row, Row):
            self._asked[row] = request, stream
            self._scheduler.add(row)
        return row

    def work(self) -> None:
        """For `LocalStream`: work until a row has ended, and put its answer into the inbox of whoever asked."""
        try:
            row = next(self._scheduler.run())
        except EngineError as problem:
            if not isinstance(self._scheduler, PagedScheduler) or self._scheduler_name != "auto":
                raise
            self._go_on_with_slots(self._scheduler, problem)
        else:
            self._deliver(row)

    def _go_on_with_slots(self, paged: PagedScheduler, problem: EngineError) -> None:
        """Continuous batching does not work on this machine after all: nothing that was written is lost."""
        _log.warning("%s Going on with slots.", problem.problem)
        paged.close()
        self._earlier = paged.statistics()
        self._scheduler = self._slots()
        for row in list(self._asked):
            if row.finish is None:
                self._scheduler.add(row)
            else:
                self._deliver(row)

    def _deliver(self, row: Row) -> None:
        request, stream = self._asked.pop(row)
        stream.take(row, self._generation(row, request))

    def drop(self, rows: Iterable[Row]) -> None:
        """For `LocalStream`: nobody waits for these any more."""
        dropped = [row for row in rows if self._asked.pop(row, None) is not None]
        if dropped:
            self._scheduler.drop(dropped)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        """Log-probabilities of continuations in nats, each request as soon as it is ready.

        Prefix and continuation are encoded together and the tokens after the longest common prefix with the encoding of the
        prefix alone are scored; an empty continuation scores 0.
        """
        encoded: list[ScoredSequences] = []
        for index, request in enumerate(requests):
            try:
                sequences = encode_scored(self._loaded.tokenizer, index, request)
            except ModelError as error:
                yield index, refusal(error)
                continue
            longest = max(map(len, sequences.sequences), default=0)
            if longest > self.context_tokens:
                yield index, too_long(longest, self.context_tokens)
            elif not any(start < len(each) for start, each in zip(sequences.starts, sequences.sequences, strict=True)):
                yield index, Scores((0.0,) * len(request.continuations), self._prompt_tokens(request))
            else:
                encoded.append(sequences)
        if not encoded:
            return
        if "_scheduler" in self.__dict__:
            self._scheduler.close()  # its cache's memory is needed, and a paged one has the model's attention
        lengths = {each.index: len(each.longest) for each in encoded}
        for index, logps in score_sequences(self._forward, self._limits, encoded, self._scored):
            if logps is None:
                yield index, out_of_memory(lengths[index])
            else:
                yield index, Scores(tuple(logps), self._prompt_tokens(requests[index]))

    @cached_property
    def _forward(self) -> Forward:
        return Forward(self._loaded.model)

    @cached_property
    def _scheduler(self) -> Scheduler:
        automatic = self._scheduler_name == "auto" and self._forward.device.type == "cuda" and not self._limits.exact
        if automatic or self._scheduler_name == "paged":
            try:
                return self._paged()
            except EngineError as problem:
                if not automatic:
                    raise
                _log.info("%s Going on with slots.", problem.problem)
        return self._slots()

    def _paged(self) -> PagedScheduler:
        model = self._forward.model
        return PagedScheduler(model, self._row_has_ended, rows=self._max_batch, batch_tokens=self._batch_tokens)

    def _slots(self) -> SlotScheduler:
        return SlotScheduler(self._forward, self._limits, self._row_has_ended)

    def _row_has_ended(self, row: Row) -> bool:
        return self._has_ended(row, self._asked[row][0])

    @cached_property
    def _limits(self) -> BatchLimits:
        rows = self._max_batch or SLOTS
        return BatchLimits.for_device(self._forward, rows, self._batch_tokens, exact=self._exact)

    def _prompt_tokens(self, request: ScoreRequest) -> int:
        return self._loaded.tokenizer.count(request.messages, request.response_prefix)

    def _row(self, request: GenerationRequest) -> Row | RequestFailure:
        try:
            prompt = self._loaded.tokenizer.encode_chat(request.messages, request.response_prefix)
        except ModelError as error:
            return refusal(error)
        if len(prompt) >= self.context_tokens:
            return too_long(len(prompt), self.context_tokens)
        params = request.params
        most_tokens = min(len(prompt) + params.max_tokens, self.context_tokens)
        drawing = params.model_copy(update={"max_tokens": 1, "stop": ()})  # so that rows that are drawn alike compare equal
        return Row(prompt, drawing, noise_seed(request.noise_key), params.max_tokens, most_tokens)

    def _stops(self, request: GenerationRequest) -> tuple[str, ...]:
        return tuple(stop for stop in (*request.params.stop, *self._loaded.tokenizer.stop_texts) if stop)

    def _has_ended(self, row: Row, request: GenerationRequest) -> bool:
        if row.generated[-1] in self._loaded.tokenizer.stop_ids:
            return True
        stops = self._stops(request)
        if not stops:
            return False
        # A stop text that ends with the newest token lies within the last few tokens: each holds at least one byte.
        reach = _BYTES_PER_CHARACTER * (max(map(len, stops)) + 1)
        tail = self._loaded.tokenizer.decode(row.generated[-reach:])
        return any(stop in tail for stop in stops)

    def _generation(self, row: Row, request: GenerationRequest) -> GenerationResult:
        if row.finish is None:
            return out_of_memory(row.length)
        tokenizer = self._loaded.tokenizer
        ids = row.generated[:-1] if row.generated[-1] in tokenizer.stop_ids else row.generated
        text = tokenizer.decode(ids)
        found = [place for stop in self._stops(request) if (place := text.find(stop)) >= 0]
        finish = FinishReason.STOP if found else row.finish
        if found:
            text = text[: min(found)]
        reply = tokenizer.split_thoughts(text, after_prefix=bool(request.response_prefix))
        said = tokenizer.read_calls(ids, reply.text, request.messages) if tools_of(request.messages) else reply.text
        return Generation(said, finish, len(row.prompt), len(row.generated), reply.thoughts)
