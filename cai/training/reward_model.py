"""A trained reward model at work: conversations in, rewards out.

For reinforcement learning, best-of-n and scoring. Conversations with the same beginning are computed as one tree (`packing`),
where the model can. Shape suffixes: N conversations, K heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from pydantic import ValidationError

from cai.errors import CaiError, DataError, ModelError, ProblemList
from cai.models.loading import LoadedModel, open_model
from cai.models.spec import ModelSpec
from cai.training.packing import TokenGroup, micro_batches
from cai.training.probing import choose_path
from cai.training.reward_cache import RewardCache
from cai.training.reward_encoding import ExchangeEncoder
from cai.training.reward_scorer import RewardScorer, read_at_the_end
from cai.training.sequence_keys import sequence_keys
from constitution.messages import Conversation, Message

Turns: TypeAlias = Sequence[Message] | Sequence[Mapping[str, str]]
"""A conversation whose last turn is the assistant's; as messages, or as dicts with `role` and `content`."""

TOKENS_PER_FORWARD = 8192
SHOWN_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a conversation has no reward."""

    cause: str
    detail: str


class RewardModel:
    """Rewards of replies: higher is better, and only differences between replies to one prompt mean anything.

    The reward is read at the last token of the conversation as the chat template renders it, and where the tokenizer pads with
    a token that may end a conversation, at the last other one: what transformers' sequence classifiers do.

    Args:
        opened: The model, opened with its reward head. Its weights are read when they are first needed, or by `read`.
        tokens_per_forward: Most positions of one pass.
    """

    def __init__(self, opened: LoadedModel, *, tokens_per_forward: int = TOKENS_PER_FORWARD) -> None:
        self.opened = opened
        self._tokens_per_forward = tokens_per_forward
        self._tried = False

    @cached_property
    def _scorer(self) -> RewardScorer:
        scorer = RewardScorer(self.opened.model)
        scorer.inner.score.float()  # a bfloat16 head would round rewards to three digits
        scorer.inner.config.use_cache = False
        return scorer

    @property
    def heads(self) -> int:
        """K: rewards that each conversation gets, of which `rewards` is the mean."""
        return int(self._scorer.inner.score.weight.shape[0])

    def read(self) -> None:
        """Read the weights now.

        Raises:
            ModelError: If they cannot be.
            TrainingError: If its head is of a kind that is not known.
        """
        _ = self._scorer

    @classmethod
    def open(cls, place: ModelSpec | Path | str, *, tokens_per_forward: int = TOKENS_PER_FORWARD) -> RewardModel:
        """Find a reward model: what `cai reward` wrote, or any decoder's sequence classifier.

        Raises:
            ModelError: If it cannot be found, or is none.
        """
        spec = place if isinstance(place, ModelSpec) else ModelSpec(name=str(place))
        return cls(open_model(spec, head="reward"), tokens_per_forward=tokens_per_forward)

    @property
    def fingerprint(self) -> str:
        """Of all that decides rewards."""
        return self.opened.fingerprint

    def rewards(self, conversations: Sequence[Turns], *, pessimism: float = 0.0) -> np.ndarray:
        """rewards_N (float64): the mean over heads, less `pessimism` standard deviations of them.

        Raises:
            ProblemList: If conversations have no reward (see `encode`): all of them, by their place.
        """
        return lower_bound(self.head_rewards(conversations), pessimism)

    def head_rewards(self, conversations: Sequence[Turns]) -> np.ndarray:
        """rewards_NK (float64) of each head. Raises as `rewards`."""
        encoded = [self.encode(each) for each in conversations]
        problems: list[CaiError] = [
            DataError(f"conversation {at}: {each.detail}") for at, each in enumerate(encoded) if isinstance(each, Refused)
        ]
        if problems:
            raise ProblemList(f"{len(problems)} conversations have no reward:", problems[:SHOWN_PROBLEMS])
        return self.of_groups(cast("list[TokenGroup]", encoded))

    def encode(self, conversation: Turns) -> TokenGroup | Refused:
        """A conversation as tokens, or why it has no reward."""
        try:
            messages = tuple(each if isinstance(each, Message) else Message.model_validate(dict(each)) for each in conversation)
        except ValidationError as error:
            return Refused("no_conversation", f"a turn has {'.'.join(map(str, error.errors()[0]['loc']))} of no use")
        if len(messages) < 2 or messages[-1].role != "assistant":
            return Refused("no_reply", "the conversation does not end with an assistant turn that answers something")
        return encode_exchange(self.opened, messages[:-1], messages[-1].content)

    @torch.no_grad()
    def of_groups(self, groups: Sequence[TokenGroup], cache: RewardCache | None = None) -> np.ndarray:
        """rewards_NK (float64) of encoded conversations, one reply each, in their order.

        Passes are cut from all of them, known or not, and a pass is computed whole or not at all: what else is in a pass moves
        the last bits of a reward, and who was interrupted must come to the very same numbers.

        Args:
            groups: Of `encode`.
            cache: Where rewards are looked up and kept, after every pass.

        Raises:
            ModelError: If memory runs out.
            StoreError: If they cannot be kept.
        """
        found = np.empty((len(groups), self.heads))
        if not groups:
            return found
        device, scorer = self.opened.device, self._scorer
        if not self._tried:
            choose_path(self.opened.model, scorer, _with_siblings(groups), device)
            self._tried = True
        model_key = f"{self.fingerprint} {scorer.path}"
        keys = [] if cache is None else [sequence_keys(model_key, group)[0] for group in groups]
        places = list(range(len(groups)))
        for some in micro_batches(places, lambda at: groups[at], scorer.layout, self._tokens_per_forward):
            if cache is None:
                found[some] = self._of_pass([groups[at] for at in some])
                continue
            if any(cache.get(keys[at]) is None for at in some):
                rewards: list[list[float]] = self._of_pass([groups[at] for at in some]).tolist()
                cache.put({keys[at]: own for at, own in zip(some, rewards, strict=True)})
            found[some] = [cache.get(keys[at]) for at in some]
        return found

    def _of_pass(self, groups: list[TokenGroup]) -> np.ndarray:
        batch = self._scorer.pack(groups, self.opened.device)
        try:
            with self._scorer.at_work():
                return self._scorer.values(self.opened.model, batch).double().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"the accelerator's memory ran out in a pass of {batch.tokens} tokens", "halve tokens_per_forward"
            ) from error


def lower_bound(rewards_NK: np.ndarray, pessimism: float) -> np.ndarray:
    """rewards_N: the mean over heads, less `pessimism` standard deviations (0 of one head).

    A policy that is trained against such a bound gains nothing where heads disagree (Coste et al. 2023, arXiv 2310.02743).
    """
    spread_N = rewards_NK.std(axis=1, ddof=1) if rewards_NK.shape[1] > 1 else 0.0
    return rewards_NK.mean(axis=1) - pessimism * spread_N


def encode_exchange(opened: LoadedModel, prompt: Conversation, reply: str) -> TokenGroup | Refused:
    """A prompt and a reply as tokens, the reward to be read at the last one; or why it has none."""
    if not reply.strip():
        return Refused("empty_reply", "the reply has no text")
    pad = (opened.config.get("text_config") or opened.config).get("pad_token_id")
    try:
        prompt_ids, reply_ids = ExchangeEncoder(opened.tokenizer, pad).encode_reply(prompt, reply)
    except CaiError as error:
        return Refused("unrenderable", error.problem)
    if not prompt_ids or not reply_ids:
        return Refused("unrenderable", "the chat template gives no prompt, or nothing of the reply")
    if (tokens := len(prompt_ids) + len(reply_ids)) > opened.context_tokens:
        return Refused("overlong", f"{tokens} tokens, {opened.context_tokens} allowed")
    return read_at_the_end(TokenGroup(tuple(prompt_ids), (tuple(reply_ids),)))


def _with_siblings(groups: Sequence[TokenGroup]) -> list[TokenGroup]:
    """Groups of two replies to the same prompt, which is what a probe needs: made of two replies where there are none."""
    first = min(groups, key=lambda group: group.longest)
    other = read_at_the_end(TokenGroup(first.prompt_ids, (first.replies[0][:1],)))
    both = TokenGroup(first.prompt_ids, (*first.replies, *other.replies), unscored=(*first.unscored, *other.unscored))
    return [both]
