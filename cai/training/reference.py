"""Log-probabilities under the reference model: computed once, kept on disk under a key of what determines them.

A file belongs to one model, precision, attention path and set of replies, and is found again by a resumed run, another epoch,
other settings of the loss, other groups of the same replies. Another set of replies is computed anew: a log-probability's last
bits depend on what else is in its pass, and the result of training on nothing but what is trained on. The first process reads
and writes; the others are told.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cai.errors import TrainingError
from cai.store.appended import AppendedValues
from cai.training import processes
from cai.training.logps import ReplyScorer
from cai.training.packing import TokenGroup, micro_batches
from cai.training.results import OnEvent, TrainingEvent
from cai.training.sequence_keys import sequence_keys


class ReferenceCache:
    """Log-probabilities in nats by the content of their sequences, in a file that survives a kill.

    Args:
        folder: Where the file lies; made if absent.
        model_key: Fingerprint of the reference model, precision and attention path.
        groups: All that will be asked for.
    """

    def __init__(self, folder: Path, model_key: str, groups: Sequence[TokenGroup]) -> None:
        self._model_key = model_key
        content = hashlib.sha256(model_key.encode())
        for key in sorted({key for group in groups for key in sequence_keys(model_key, group)}):
            content.update(key.encode())
        name = content.hexdigest()[:16]
        self._file = AppendedValues(folder / f"reference-{name}.jsonl")
        kept = self._file.read() if processes.is_first() else {}
        self._known: dict[str, float] = processes.from_first(
            {key: float(logp) for key, logp in kept.items() if isinstance(logp, int | float)}
        )

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._file.path

    def get(self, group: TokenGroup) -> tuple[float, ...] | None:
        """Log-probability of each sequence (nats), or None if one of them was never computed."""
        found = [self._known.get(key) for key in sequence_keys(self._model_key, group)]
        return None if None in found else cast("tuple[float, ...]", tuple(found))

    def put(self, found: Sequence[tuple[TokenGroup, tuple[float, ...]]]) -> int:
        """Keep what is not known yet, durably, and say how much it was; all processes must be given the same."""
        new: dict[str, float] = {}
        for group, logps in found:
            for key, logp in zip(sequence_keys(self._model_key, group), logps, strict=True):
                if key not in self._known:
                    self._known[key] = new[key] = logp
        if processes.is_first():
            self._file.add(new)
        return len(new)


@torch.no_grad()
def compute_references(
    model: nn.Module,
    scorer: ReplyScorer,
    groups: Sequence[TokenGroup],
    cache: ReferenceCache,
    *,
    tokens_per_forward: int,
    device: torch.device,
    on_event: OnEvent | None = None,
) -> int:
    """Put the log-probability of each sequence of each group into the cache, where it is not there, and say how many.

    Forward passes are cut from all groups, cached or not, and a pass is computed whole or not at all: batch composition
    moves the last bits of a log-probability, and a run killed in here must go on to the very same numbers. Passes are dealt
    to the processes, which changes none of them.

    Args:
        model: The reference: the policy before training, with its new adapter switched off; perhaps wrapped or sharded.
        scorer: Made for this model; on the policy's own path, so that margins start at 0.
        groups: Each fits in a pass, where it can be made to (`parts`).
        cache: Where results are looked up and kept.
        tokens_per_forward: As in training.
        device: Where the model is.
        on_event: Told after every pass, in the first process.
    """
    world, rank = processes.world(), processes.rank()
    distinct = list(dict.fromkeys(groups))
    passes = micro_batches(distinct, lambda group: group, scorer.layout, tokens_per_forward)
    missing = [batch for batch in passes if any(cache.get(group) is None for group in batch)]
    started, tokens, computed = time.monotonic(), 0, 0
    for turn in range(0, len(missing), world):
        mine = turn + rank < len(missing)
        # A process without a pass of its own makes one for nothing: those that gather weights would wait for it for ever.
        batch = missing[turn + rank] if mine else missing[-1]
        packed = scorer.pack(batch, device)
        with scorer.at_work():
            logps: list[float] = cast("Any", scorer.logps(model, packed)).tolist()
        tokens += packed.tokens * min(world, len(missing) - turn)
        found: list[tuple[TokenGroup, tuple[float, ...]]] = []
        for group in batch if mine else []:
            found.append((group, tuple(logps[: len(group.sequences)])))
            logps = logps[len(group.sequences) :]
        found = processes.gather(found)
        computed += cache.put(found)
        if on_event is not None and rank == 0:
            done = min(turn + world, len(missing))
            seconds = max(time.monotonic() - started, 1e-9)
            eta = seconds / done * (len(missing) - done)
            on_event(TrainingEvent("reference", done, len(missing), None, tokens / seconds, eta))
    return computed


def known_references(groups: Sequence[TokenGroup], cache: ReferenceCache) -> list[tuple[float, ...]] | None:
    """Log-probability of each sequence (nats) of each group; None if one was never computed.

    Raises:
        TrainingError: If a log-probability is not finite.
    """
    found = [logps for group in groups if (logps := cache.get(group)) is not None]
    if not all(math.isfinite(logp) for logps in found for logp in logps):
        raise TrainingError(
            "the reference model gives log-probabilities that are not finite",
            "its weights may be damaged, or overflow in this precision: try dtype float32",
        )
    return found if len(found) == len(groups) else None
