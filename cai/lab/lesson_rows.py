"""Lessons to training rows: one shared prefix, several branches that see the prefix and themselves only.

Knows the chat template; knows no model, and no prompt either: conversations are rendered by `constitution.rendering`, as the
loop's are, so that training sees what inference sees. A row's tokens are exactly those of its branches' whole conversations:
the prefix is the longest run of tokens that all branches have in common, and each branch is the rest of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch

from constitution.messages import Conversation, Message, assistant
from constitution.rendering import FAULT, NOTHING_TO_CHANGE, render_critique, render_revision
from constitution.schema import Principle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Part(IntEnum):
    """What a token is to the loss. `PROMPT` is read only; the others are learned."""

    PROMPT = 0
    GROUND = 1
    """The critique up to the verdict: what the principle asks here and the facts that decide it."""
    VERDICT = 2
    """The one token that decides: " Nothing" or " Fault"."""
    FAULT = 3
    """The rest of the critique, its end-of-turn token included."""
    REVISION = 4
    """The revised reply, its end-of-turn token included."""


class BranchLike(Protocol):
    """One principle applied to the reply; see `cai.lab.teacher.Branch`."""

    @property
    def principle(self) -> str: ...
    @property
    def critique_request(self) -> str | None: ...
    @property
    def revision_request(self) -> str | None: ...
    @property
    def critique(self) -> str: ...
    @property
    def verdict_start(self) -> int: ...
    @property
    def revision(self) -> str | None: ...


class LessonLike(Protocol):
    """A reply and the branches that judge it; see `cai.lab.teacher.Lesson`."""

    @property
    def messages(self) -> tuple[Message, ...]: ...
    @property
    def branches(self) -> Sequence[BranchLike]: ...


@dataclass(frozen=True)
class Row:
    """One packed lesson of T tokens: the prefix, then its branches one after another.

    Attributes:
        ids: [T] token ids.
        positions: [T] position of each token in its own plain conversation, from 0.
        parts: [T] `Part` of each token.
        prefix: Number of shared tokens at the start.
        lengths: Tokens of each branch; `prefix + sum(lengths) == T`.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    parts: torch.Tensor
    prefix: int
    lengths: tuple[int, ...]

    def mask(self) -> torch.Tensor:
        """[T, T] bool, True where token i (row) may look at token j (column): causal, and never into another branch."""
        owner = torch.zeros(len(self.ids), dtype=torch.long)
        at = self.prefix
        for number, length in enumerate(self.lengths, start=1):
            owner[at : at + length] = number
            at += length
        same = (owner[:, None] == owner[None, :]) | (owner[None, :] == 0)
        return same.tril()

    def predictors(self) -> torch.Tensor:
        """[n] for each learned token, the index of the token whose hidden state predicts it (its predecessor)."""
        learned = self.parts.nonzero()[:, 0]
        before = learned - 1
        start = self.prefix
        for length in self.lengths:
            before[learned == start] = self.prefix - 1
            start += length
        return before


def as_principle(branch: BranchLike) -> Principle:
    """The branch's principle as a principle file would hold it."""
    return Principle(
        id="lesson",
        principle=branch.principle,
        critique_request=branch.critique_request,
        revision_request=branch.revision_request,
    )


def conversation(messages: Sequence[Message], branch: BranchLike) -> Conversation:
    """The plain conversation of one branch, rendered as the loop renders it: reply, critique request, critique, revision."""
    *before, reply = messages
    principle = as_principle(branch)
    if branch.revision is None:
        return (*render_critique(principle, tuple(before), reply.content), assistant(branch.critique))
    return (*render_revision(principle, tuple(before), reply.content, branch.critique), assistant(branch.revision))


def render(tokenizer: Any, turns: Sequence[Message], *, generation_prompt: bool = False) -> str:
    """The conversation as text, by the tokenizer's own chat template."""
    raw = [turn.model_dump() for turn in turns]
    text: str = tokenizer.apply_chat_template(raw, tokenize=False, add_generation_prompt=generation_prompt)
    return text


def encode_branch(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], branch: BranchLike
) -> tuple[list[int], list[int]]:
    """Token ids and parts of one branch's whole conversation.

    Raises:
        ValueError: The critique has no verdict where `verdict_start` says.
    """
    if not branch.critique[branch.verdict_start :].startswith((NOTHING_TO_CHANGE, FAULT)):
        raise ValueError(f"no verdict at character {branch.verdict_start} of the critique {branch.critique!r}")
    turns = conversation(messages, branch)
    text = render(tokenizer, turns)
    n = len(messages)
    critique = len(render(tokenizer, turns[: n + 1], generation_prompt=True))
    verdict = critique + branch.verdict_start
    critique_end = critique + len(branch.critique)
    revision, revision_end = len(text) + 1, len(text) + 1
    if branch.revision is not None:
        revision = len(render(tokenizer, turns[: n + 3], generation_prompt=True))
        revision_end = revision + len(branch.revision)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"]
    parts: list[int] = []
    decided = False
    for start, end in encoded["offset_mapping"]:
        # the end-of-turn token begins exactly at a content's end and is learned too: the model must know when to stop
        if end <= critique or (start > critique_end and end <= revision) or start > revision_end:
            parts.append(Part.PROMPT)
        elif start >= revision:
            parts.append(Part.REVISION)
        elif end <= verdict:
            parts.append(Part.GROUND)
        elif not decided:
            parts.append(Part.VERDICT)
            decided = True
        else:
            parts.append(Part.FAULT)
    return ids, parts


def pack(tokenizer: PreTrainedTokenizerBase, lesson: LessonLike) -> Row:
    """One lesson as one row."""
    encoded = [encode_branch(tokenizer, lesson.messages, branch) for branch in lesson.branches]
    prefix = min(next(i for i, part in enumerate(parts) if part) for _, parts in encoded)
    first = encoded[0][0]
    for ids, _ in encoded[1:]:
        prefix = next((i for i in range(prefix) if ids[i] != first[i]), prefix)
    ids = first[:prefix]
    positions = list(range(prefix))
    parts = [int(Part.PROMPT)] * prefix
    for branch_ids, branch_parts in encoded:
        ids += branch_ids[prefix:]
        parts += branch_parts[prefix:]
        positions += range(prefix, len(branch_ids))
    lengths = tuple(len(branch_ids) - prefix for branch_ids, _ in encoded)
    return Row(torch.tensor(ids), torch.tensor(positions), torch.tensor(parts), prefix, lengths)


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """`size` rows at a time, in order; a last short batch is left out."""
    stream = iter(rows)
    while len(batch := list(islice(stream, size))) == size:
        yield batch
