"""KL(policy ‖ reference) while the policy is trained, exact at some positions of the data's replies.

Training sees no samples of the policy's own: what is told is how far its next-token distributions have moved along replies that
are in the data, which are the very ones it is trained on. Along replies of its own it may have moved less or more; that is
measured after training, by `cai eval`.

The reference's logits at these positions are kept on disk, whole, in the precision they were computed in: so it need not be in
memory, and adapters, full training, tied heads, soft caps and sharded weights are all one case. Shape suffixes: S sampled
positions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cai.training import processes
from cai.training.divergence import logit_divergences
from cai.training.kl_sample import DRAWN_REPLIES, POSITIONS_A_REPLY, SampledReply
from cai.training.logps import ReplyScorer
from cai.training.packing import micro_batches

KL = "kl/data"
"""Name of the metric, in nats a token."""

KEPT_BYTES = 128 * 2**20
"""Most that the reference's logits may take, on disk and in the machine's memory; of large vocabularies fewer are kept."""
COST_SHARE = 0.02
"""Of the arithmetic of training, that measuring may take."""
_FORWARDS_OF_A_STEP = 2.0
"""What a step computes of each position, in forward passes, at the least: with frozen weights one goes back."""


def positions_a_reply(vocabulary: int, dtype: torch.dtype) -> int:
    """How many can be kept of each drawn reply: `POSITIONS_A_REPLY`, or what `KEPT_BYTES` allow, but one."""
    return max(1, min(POSITIONS_A_REPLY, KEPT_BYTES // (vocabulary * dtype.itemsize * DRAWN_REPLIES)))


class KeptLogits:
    """The reference's logits at the sampled positions, in a file beside its log-probabilities.

    Args:
        folder: Where the file lies; made if absent.
        model_key: Fingerprint of the reference model, precision and attention path.
        sample: Of whose positions they are.
    """

    def __init__(self, folder: Path, model_key: str, sample: Sequence[SampledReply]) -> None:
        groups = [(each.group.prompt_ids, each.group.replies, each.group.unscored) for each in sample]
        key = hashlib.sha256(json.dumps([model_key, groups], separators=(",", ":")).encode()).hexdigest()
        self.path = folder / f"kl-{key[:16]}.safetensors"

    def read(self) -> Tensor | None:
        """logits_SV, in the order of the sample; None where there is no whole file. The first process reads for all."""
        found: Tensor | None = None
        if processes.is_first() and self.path.exists():
            try:
                found = cast("Any", safetensors.torch).load_file(self.path)["logits"]
            except (SafetensorError, KeyError, ValueError):
                found = None  # damaged by something else
        return processes.from_first(found)

    def write(self, logits_SV: Tensor) -> None:
        """Keep them, all or nothing; the first process writes."""
        if processes.is_first():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.path.with_suffix(".unfinished")
            cast("Any", safetensors.torch).save_file({"logits": logits_SV}, unfinished)
            unfinished.replace(self.path)


class ReferenceKL:
    """Measures it.

    Args:
        sample: Where.
        scorer: Of the policy, its path chosen.
        tokens_per_forward: Most positions of one pass.
        device: Of this process.
    """

    def __init__(
        self, sample: Sequence[SampledReply], scorer: ReplyScorer, *, tokens_per_forward: int, device: torch.device
    ) -> None:
        self._sample = sample
        self._scorer = scorer
        self._device = device
        places = range(len(sample))
        self._passes = micro_batches(places, lambda at: sample[at].group, scorer.layout, tokens_per_forward)
        self._reference: Sequence[Tensor] = ()

    @property
    def tokens(self) -> int:
        """Positions that one process computes in a measurement."""
        sizes = (self._scorer.pack([self._sample[at].group for at in places], self._device).tokens for places in self._passes)
        return max(sizes) * math.ceil(len(self._passes) / processes.world())

    def steps_between(self, tokens_per_step: float, logging_steps: int) -> int:
        """Steps from one measurement to the next, a multiple of `logging_steps`: so many that they take `COST_SHARE` at most.

        Args:
            tokens_per_step: Positions that all processes together compute in a step.
            logging_steps: Between lines of metrics.
        """
        own = tokens_per_step / processes.world() * _FORWARDS_OF_A_STEP
        return logging_steps * max(1, math.ceil(self.tokens / (COST_SHARE * own) / logging_steps))

    def logits(self, model: nn.Module) -> Tensor:
        """logits_SV of the model as it is, on the CPU, in the order of the sample. Every process computes all of them."""
        found: dict[int, Tensor] = {}
        for places in self._passes:
            found |= {at: logits.cpu() for at, logits in self._of_pass(model, places).items()}
        return torch.cat([found[at] for at in range(len(self._sample))])

    def refer_to(self, logits_SV: Tensor) -> None:
        """Compare with these, of `logits`, from now on."""
        ends = accumulate((each.group.scored_tokens for each in self._sample), initial=0)
        self._reference = [logits_SV[start:stop] for start, stop in pairwise(ends)]

    def measure(self, model: nn.Module) -> float:
        """KL(policy ‖ reference) in nats a token: at each position exact over the vocabulary, then averaged over the sample.

        All processes must call it, after `refer_to`; passes are dealt to them, which changes no number. The model is left in
        evaluation mode.
        """
        model.eval()
        world, rank = processes.world(), processes.rank()
        found: list[tuple[int, float]] = []
        for first in range(0, len(self._passes), world):
            # A process without a pass of its own makes one for nothing: those that gather weights would wait for it for ever.
            places = self._passes[min(first + rank, len(self._passes) - 1)]
            of_pass = self._of_pass(model, places)
            if first + rank < len(self._passes):
                for at, logits in of_pass.items():
                    divergences = logit_divergences(logits, self._reference[at].to(logits.device))
                    found.append((at, float(divergences.double().mean())))
        return math.fsum(self._sample[at].weight * mean for at, mean in processes.gather(found))

    def _of_pass(self, model: nn.Module, places: Sequence[int]) -> dict[int, Tensor]:
        batch = self._scorer.pack([self._sample[at].group for at in places], self._device)
        with self._scorer.at_work():
            logits_SV = self._scorer.logits(model, batch)
        return {at: logits_SV[part.slots] for at, part in zip(places, batch.parts, strict=True)}
