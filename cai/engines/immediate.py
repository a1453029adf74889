"""The stream of an engine whose answers cost nothing, such as a table or a store. Importing it costs nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from cai.engines.base import GenerationRequest, GenerationResult


class ImmediateStream:
    """Answers in the order of submission, each when it is read. Implements `cai.engines.base.GenerationStream`."""

    def __init__(self, answer: Callable[[GenerationRequest], GenerationResult]) -> None:
        self._answer = answer
        self._waiting: deque[tuple[int, GenerationRequest]] = deque()
        self._tickets = 0

    @property
    def works_unread(self) -> bool:
        return False

    def submit(self, request: GenerationRequest) -> int:
        self._waiting.append((self._tickets, request))
        self._tickets += 1
        return self._tickets - 1

    def results(self, patience_s: float | None = None) -> Iterator[tuple[int, GenerationResult]]:  # noqa: ARG002 - never waits
        while self._waiting:
            ticket, request = self._waiting.popleft()
            yield ticket, self._answer(request)

    def close(self) -> None:
        self._waiting.clear()
