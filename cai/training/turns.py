"""All turns of the assistant in one conversation, each read and learned just as it would be generated.

Knows token ids only. Where the prompt of a turn begins with all of the turn before, its end included, both lie in one sequence.
Where it does not, because the chat template writes the history otherwise (without its thoughts, without the ends of turns), the
turn begins a sequence of its own, which in a tree shares whatever there is in common. No place of a turn is guessed: each is
where its own prompt ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from cai.engines.beginnings import common_prefix
from cai.training.packing import TokenGroup


def turns_group(turns: Sequence[tuple[Sequence[int], Sequence[int]]]) -> TokenGroup:
    """One group for a conversation: as many sequences as its chat template makes necessary, mostly one.

    Args:
        turns: Prompt and reply ids of each turn, first to last.

    Raises:
        ValueError: If the prompts have not even their first token in common.
    """
    common = len(turns[0][0])
    sequences: list[tuple[tuple[int, ...], list[tuple[int, int]]]] = []
    for prompt, reply in turns:
        common = common_prefix(turns[0][0][:common], prompt)
        learned = len(prompt), len(prompt) + len(reply)
        before, places = sequences.pop() if sequences else ((), [])
        if before and tuple(prompt[: len(before)]) != before:
            sequences.append((before, places))
            places = []
        sequences.append(((*prompt, *reply), [*places, learned]))
    unscored = tuple(_between(places, common) for _, places in sequences)
    replies = tuple(ids[common:] for ids, _ in sequences)
    return TokenGroup(tuple(turns[0][0][:common]), replies, unscored if any(unscored) else ())


def _between(learned: Sequence[tuple[int, int]], start: int) -> tuple[tuple[int, int], ...]:
    """The spans before and between others, counted from `start`."""
    ends = [start, *(end for span in learned for end in span)]
    return tuple((first - start, last - start) for first, last in zip(ends[::2], ends[1::2], strict=False) if first < last)
