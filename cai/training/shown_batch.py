"""The rows of a step as text, piece by piece, each with what training makes of it: what is read, what is learnt, and for whom.

Knows tokens and a tokenizer; knows no tensors and no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from cai.engines.beginnings import common_prefix
from cai.models.chat import ChatTokenizer
from cai.training.packing import TokenGroup
from cai.training.rows import PreferenceRow, TrainingRow


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens of which the same is true.

    Args:
        text: What they say, control tokens spelt out.
        tokens: How many there are.
        replies: Of which replies they are, by number; () in the prompt.
        learnt: Whether their probability is in the loss.
        control: Whether they are control tokens of the model, which no message can contain.
    """

    text: str
    tokens: int
    replies: tuple[int, ...]
    learnt: bool
    control: bool


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair by the numbers of its replies."""

    uid: str
    chosen: int
    rejected: int
    p_chosen: float


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row.

    Args:
        uid: Of the row or of its first pair.
        pairs: () for a supervised row or an anchor.
        pieces: The prompt, then replies as a tree: what they begin with together is there once.
        read_tokens: Positions that the model computes.
        learnt_tokens: Scored tokens, one that several replies share counted once.
        shared_tokens: Positions that are computed once and would be computed again if each reply had a row of its own.
    """

    uid: str
    pairs: tuple[ShownPair, ...]
    pieces: tuple[Piece, ...]
    read_tokens: int
    learnt_tokens: int
    shared_tokens: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def shown_row(row: TrainingRow, tokenizer: ChatTokenizer) -> ShownRow:
    """A row as it will be computed in a tree."""
    group = row.group
    pairs = row.pairs if isinstance(row, PreferenceRow) else ()
    marked = [((), False, token) for token in group.prompt_ids]
    branches = list(_branches(group))
    pieces = [
        piece
        for branch in (marked, *branches)
        for key, run in groupby(branch, lambda each: (each[0], each[1], each[2] in tokenizer.control_ids))
        for piece in [_piece(key, [token for _, _, token in run], tokenizer.tokenizer.decode)]
    ]
    (computed,) = group.row_lengths("tree")
    return ShownRow(
        uid=row.uid,
        pairs=tuple(ShownPair(pair.uid, pair.chosen, pair.rejected, pair.p_chosen) for pair in pairs),
        pieces=tuple(pieces),
        read_tokens=computed,
        learnt_tokens=sum(learnt for branch in branches for _, learnt, _ in branch),
        shared_tokens=sum(group.row_lengths("padded")) - computed,
    )


def _piece(key: tuple[tuple[int, ...], bool, bool], ids: Sequence[int], decode: Callable[..., str]) -> Piece:
    replies, learnt, control = key
    text = decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Piece(text, len(ids), replies, learnt, control)


def _branches(group: TokenGroup) -> Iterator[list[tuple[tuple[int, ...], bool, int]]]:
    """(replies it is of, whether it is learnt, token) of each run without a branch, in the order of the tree."""

    def below(replies: Sequence[int], start: int) -> Iterator[list[tuple[tuple[int, ...], bool, int]]]:
        some = [group.replies[reply][start:] for reply in replies]
        shared = len(some[0])
        for other in some[1:]:
            shared = min(shared, common_prefix(some[0], other))
        if shared:
            scored = {at for reply in replies for at in group.scored(reply, start + shared)}
            yield [(tuple(replies), at in scored, group.replies[replies[0]][at]) for at in range(start, start + shared)]
        rest = [reply for reply in replies if len(group.replies[reply]) > start + shared]
        heads = dict.fromkeys(group.replies[reply][start + shared] for reply in rest)
        for head in heads:
            yield from below([reply for reply in rest if group.replies[reply][start + shared] == head], start + shared)

    yield from below(range(len(group.replies)), 0)
