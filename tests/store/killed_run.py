"""A whole small run in a process of its own, to be killed by `test_run_folder_survives_kills`.

Usage: killed_run.py FOLDER LOG NUMBER: works through the memo, writes records and output files, and appends every call that is
really computed to LOG, as `NUMBER key`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cai.engines.base import (
    EngineStatistics,
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationResult,
    RequestFailure,
    SamplingParams,
    ScoreRequest,
    ScoreResult,
    Scores,
)
from cai.records import Item, LedgerEntry, Outcome, RevisionRecord
from cai.store import MemoisedEngine, RunFolder, atomic_file
from constitution.messages import Conversation, assistant, user

ITEMS = 150
BATCH = 8


class OneBatch:
    """A stream that hands all that waits to `HashEngine.generate` at once."""

    def __init__(self, engine: HashEngine) -> None:
        self._engine = engine
        self._waiting: list[tuple[int, GenerationRequest]] = []
        self._tickets = 0

    @property
    def works_unread(self) -> bool:
        return False

    def submit(self, request: GenerationRequest) -> int:
        self._waiting.append((self._tickets, request))
        self._tickets += 1
        return self._tickets - 1

    def results(self, patience_s: float | None = None) -> Iterator[tuple[int, GenerationResult]]:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            for index, result in self._engine.generate([request for _, request in batch]):
                yield batch[index][0], result

    def close(self) -> None:
        self._waiting.clear()


class HashEngine:
    """A real engine without a model: the answer is a hash of the request, batches take a moment."""

    fingerprint = "hash-engine"
    context_tokens = 100

    def __init__(self, log: Path, number: str, seconds_per_batch: float) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._number = number
        self._seconds = seconds_per_batch

    def count_tokens(self, messages: Conversation, response_prefix: str = "") -> int:
        return sum(len(m.content) for m in messages) + len(response_prefix)

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        return hashlib.sha256(repr((self.fingerprint, request)).encode()).hexdigest()

    def statistics(self) -> EngineStatistics:
        return EngineStatistics()

    def stream(self) -> OneBatch:
        return OneBatch(self)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        for index, key in self._batches(requests):
            length = self.count_tokens(requests[index].messages)
            if length > self.context_tokens:
                yield index, RequestFailure("prompt_too_long", f"{length} tokens, the context holds {self.context_tokens}")
            elif requests[index].messages[-1].content == "fails at times":
                yield index, RequestFailure("out_of_memory", "not this time")
            else:
                yield index, Generation(f"answer {key[:12]} é\n", FinishReason.STOP, length, 3)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        for index, key in self._batches(requests):
            yield index, Scores(tuple(-int(key[i : i + 6], 16) / 1e6 for i in range(len(requests[index].continuations))), 5)

    def _batches(self, requests: Sequence[GenerationRequest] | Sequence[ScoreRequest]) -> Iterator[tuple[int, str]]:
        for start in range(0, len(requests), BATCH):
            time.sleep(self._seconds)
            # The last batch entry first: order of arrival is not order of asking.
            for index in reversed(range(start, min(start + BATCH, len(requests)))):
                key = self.request_key(requests[index])
                os.write(self._log, f"{self._number} {key}\n".encode())
                yield index, key


def run(folder: Path, log: Path, number: str, seconds_per_batch: float = 0.07) -> None:
    with RunFolder.open(folder) as store:
        engine = MemoisedEngine(HashEngine(log, number, seconds_per_batch), store, commit_every=6)
        items = [Item(uid=f"i{n}", messages=(user(f"prompt {n}"),)) for n in range(ITEMS)]
        store.put_items(items)
        store.write_manifest({"items": ITEMS, "seed": 0})
        if store.stage("loop") is None:
            draft(engine, store, items)
        records = list(store.records("revisions", RevisionRecord))
        scores: dict[int, list[float]] = {}
        requests = [ScoreRequest((*r.messages, assistant(r.draft), user("judge")), (" A", " B")) for r in records]
        for index, result in engine.score(requests):
            assert isinstance(result, Scores)
            scores[index] = list(result.logps)
        store.settle(LedgerEntry(uid=r.uid, outcome=Outcome.KEPT) for r in records)
        store.assert_balanced(finished=True)
        for copy in range(5):
            with atomic_file(folder / f"rows-{copy}.jsonl") as file:
                for n, record in enumerate(records):
                    file.write(f"{json.dumps([record.uid, record.draft, scores[n]], ensure_ascii=False)}\n".encode())


def draft(engine: MemoisedEngine, store: RunFolder, items: list[Item]) -> None:
    requests = [GenerationRequest(i.messages, SamplingParams(), f"0/{i.uid}/0/draft/0") for i in items]
    drafts: dict[int, str] = {}
    for index, result in engine.generate(requests):
        assert isinstance(result, Generation)
        drafts[index] = result.text
    with store.transaction():
        store.put_records(
            "revisions",
            [RevisionRecord(uid=i.uid, messages=i.messages, draft=drafts[n], rounds=()) for n, i in enumerate(items)],
        )
        store.put_stage("loop", "inputs", {"drafts": len(drafts)})


if __name__ == "__main__":
    print("ready", flush=True)
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
