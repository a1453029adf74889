"""Replies of the policy as it is now, drawn by the engine, as text to be judged and as tokens to be trained on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from cai.engines.base import EngineStatistics, FinishReason, Generation, GenerationRequest, RequestFailure, SamplingParams
from cai.engines.local import LocalEngine
from cai.models.loading import LoadedModel
from cai.records import Item
from cai.training.packing import TokenGroup
from cai.training.scorer import inner_model


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply: its text, all tokens that were drawn, and whether it came to its end."""

    text: str
    ids: tuple[int, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt and the replies to it; `failures` of it could not be drawn."""

    item: Item
    prompt_ids: tuple[int, ...]
    samples: tuple[Sample, ...]
    failures: int = 0

    @property
    def group(self) -> TokenGroup:
        return TokenGroup(self.prompt_ids, tuple(sample.ids for sample in self.samples))


def policy_engine(opened: LoadedModel, model: nn.Module) -> LocalEngine:
    """An engine on the very weights that are trained, adapter included: nothing is copied, nothing read again.

    Call its `weights_have_changed` after each step.
    """
    inner = inner_model(model)
    return LocalEngine(replace(opened, read=lambda: inner))


class Sampler:
    """Draws replies from the whole distribution at a temperature: the one whose gradient is taken.

    A reply depends on the weights, the prompt, the temperature and (seed, uid, step, replica) alone.
    """

    def __init__(self, engine: LocalEngine, *, samples: int, max_tokens: int, seed: int, temperature: float = 1.0) -> None:
        self._engine = engine
        self._samples = samples
        self._params = SamplingParams(temperature=temperature, max_tokens=max_tokens)
        self._seed = seed

    def statistics(self) -> EngineStatistics:
        """What drawing has taken so far."""
        return self._engine.statistics()

    def draw(self, items: Sequence[Item], step: int) -> list[Rollout]:
        """Replies to each item, in order."""
        requests = [
            GenerationRequest(item.messages, self._params, f"{self._seed}/{item.uid}/{replica}/rl/{step}")
            for item in items
            for replica in range(self._samples)
        ]
        self._engine.weights_have_changed()
        found = dict(self._engine.sample(requests))
        self._engine.weights_have_changed()  # its cache's memory is needed now
        rollouts: list[Rollout] = []
        for number, item in enumerate(items):
            drawn = [found[at] for at in range(number * self._samples, (number + 1) * self._samples)]
            kept = [each for each in drawn if not isinstance(each, RequestFailure) and each.completion_ids]
            samples = tuple(Sample(each.generation.text, each.completion_ids, _ended(each.generation)) for each in kept)
            rollouts.append(Rollout(item, kept[0].prompt_ids if kept else (), samples, len(drawn) - len(kept)))
        return rollouts


def _ended(generation: Generation) -> bool:
    return generation.finish_reason is FinishReason.STOP


def items_of_step(items: Sequence[Item], step: int, count: int, seed: int) -> list[Item]:
    """The prompts of a step (from 1): a drawn order of all, cut in batches, then another order; what fills no batch waits.

    A function of its arguments alone, so that a resumed run goes on where it was. With fewer items than `count` all come.
    """
    count = min(count, len(items))
    round_, batch = divmod(step - 1, len(items) // count)
    order = _order(len(items), seed, round_)
    return [items[at] for at in order[batch * count : (batch + 1) * count]]


def _order(size: int, seed: int, round_: int) -> list[int]:
    digest = hashlib.blake2b(f"rl/{seed}/{round_}".encode(), digest_size=8).digest()
    order = list(range(size))
    random.Random(int.from_bytes(digest, "big")).shuffle(order)  # noqa: S311 - reproducible draws, no secrets
    return order
