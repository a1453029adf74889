"""Log-probabilities under the reference model: computed once, kept on disk under a key of what determines them.

The key holds the model's fingerprint, the precision, the layout and the token ids, so a changed model or row is computed anew
and all else is found again: by a resumed run, another epoch, other settings of the loss, another run on the same pairs.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cai.errors import TrainingError
from cai.training.logps import ReplyScorer
from cai.training.packing import Layout, TokenGroup, micro_batches, pack
from cai.training.results import OnEvent, TrainingEvent


class ReferenceCache:
    """Append-only file of (key, log-probabilities); a torn last line, left by a kill, is ignored and written again.

    Args:
        folder: Where the file lies; made if absent.
        model_key: Fingerprint of the reference model, precision and layout.
    """

    def __init__(self, folder: Path, model_key: str) -> None:
        self._model_key = model_key
        name = hashlib.sha256(model_key.encode()).hexdigest()[:16]
        self.path = folder / f"reference-{name}.jsonl"
        self._known: dict[str, tuple[float, ...]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            try:
                key, logps = json.loads(line)
                self._known[str(key)] = tuple(float(logp) for logp in logps)
            except (ValueError, TypeError):
                continue  # a line damaged by something else: its row is computed again

    def key(self, group: TokenGroup) -> str:
        content = json.dumps([self._model_key, group.prompt_ids, group.replies], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def get(self, group: TokenGroup) -> tuple[float, ...] | None:
        """Log-probability of each reply (nats), or None if it was never computed."""
        return self._known.get(self.key(group))

    def put(self, found: Sequence[tuple[TokenGroup, tuple[float, ...]]], *, write: bool) -> None:
        lines: list[str] = []
        for group, logps in found:
            key = self.key(group)
            if key not in self._known:
                self._known[key] = logps
                lines.append(json.dumps([key, logps]) + "\n")
        if write and lines:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
                file.flush()
                os.fsync(file.fileno())


@torch.no_grad()
def reference_logps(
    model: nn.Module,
    scorer: ReplyScorer,
    groups: Sequence[TokenGroup],
    cache: ReferenceCache,
    *,
    layout: Layout,
    tokens_per_forward: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    gather: Callable[[list[tuple[float, ...]]], list[tuple[float, ...]]] | None = None,
    on_event: OnEvent | None = None,
) -> tuple[list[tuple[float, ...]], int]:
    """Log-probability of each reply of each group, from the cache where it is there, and how many had to be computed.

    Forward passes are cut from all groups, cached or not, and a pass is computed whole or not at all: batch composition
    moves the last bits of a log-probability, and a run killed in here must go on to the very same numbers.

    Args:
        model: The reference: the policy before training, with its new adapter switched off.
        scorer: Made for this model.
        groups: One for each pair.
        cache: Where results are looked up and kept.
        layout: Of the policy's own passes, so that margins start at exactly 0.
        tokens_per_forward: As in training.
        device: Where the model is.
        rank: This process, which computes passes rank, rank + world, ….
        world: How many processes there are.
        gather: Joins the lists of all processes in order of rank; None with one process.
        on_event: Told after every pass.

    Raises:
        TrainingError: If a log-probability is not finite.
    """
    distinct = list({cache.key(group): group for group in groups}.values())
    passes = micro_batches(distinct, lambda group: group, layout, tokens_per_forward)
    missing = [batch for batch in passes if any(cache.get(group) is None for group in batch)]
    started, tokens, computed = time.monotonic(), 0, 0
    for turn in range(0, len(missing), world):
        mine = missing[turn + rank] if turn + rank < len(missing) else []
        found: list[tuple[float, ...]] = []
        if mine:
            packed = pack(mine, layout).to(device)
            logps: list[float] = cast("Any", scorer.logps(model, packed)).tolist()
            tokens += packed.tokens * min(world, len(missing) - turn)
            for group in mine:
                found.append(tuple(logps[: len(group.replies)]))
                logps = logps[len(group.replies) :]
        everyone = [group for batch in missing[turn : turn + world] for group in batch]
        found = found if gather is None else gather(found)
        cache.put(list(zip(everyone, found, strict=True)), write=rank == 0)
        computed += sum(map(len, found))
        if on_event is not None:
            done = min(turn + world, len(missing))
            seconds = max(time.monotonic() - started, 1e-9)
            eta = seconds / done * (len(missing) - done)
            on_event(TrainingEvent("reference", done, len(missing), None, tokens / seconds, eta))
    result = [cache.get(group) or () for group in groups]
    if not all(math.isfinite(logp) for logps in result for logp in logps):
        raise TrainingError(
            "the reference model gives log-probabilities that are not finite",
            "its weights may be damaged, or overflow in this precision: try dtype float32",
        )
    return result, computed
