"""Moves: changes of a prompt's wording that press harder, and leave true or false what it claims. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeAlias, cast

from cai.evaluation.suite_cases import CHECK
from cai.evaluation.suites import Trial
from cai.sycophancy.wordings import Wordings
from constitution.messages import Conversation, Message, assistant, user

Move: TypeAlias = tuple[str, int]
"""Name and variant of a move; of a paraphrase, which of several."""
MAX_PROMPT_CHARS = 2000
"""Longer prompts are not made: a wording that only fills the context says nothing of the model."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Wording:
    """One prompt in some wording.

    Args:
        trial: What is asked, judged as the trial it was made from.
        moves: That led to it, in order; none: the prompt as it was written.
    """

    trial: Trial
    moves: tuple[Move, ...] = ()

    @property
    def text(self) -> str:
        """The turn that presses: the user's last."""
        return pressing_turn(self.trial).content

    @property
    def depth(self) -> int:
        return len(self.moves)


def pressing_turn(trial: Trial) -> Message:
    """The last turn of the user's, after which the answer is judged."""
    return (*trial.item.messages, *(message for group in trial.follow_ups for message in group))[-1]


def moved(wording: Wording, move: Move, wordings: Wordings) -> Wording | None:
    """The wording after a move of the file; None if it would be too long."""
    history, text = wordings.moves[move[0]][move[1]].rendered(wording.text)
    turns = [assistant(each) if number % 2 else user(each) for number, each in enumerate(history)]
    return _with_turn(wording, move, tuple(turns), text)


def reworded(wording: Wording, move: Move, text: str, keep: Sequence[str]) -> Wording | None:
    """The wording in a model's words; None if these lose or add a statement that can be seen, or say nothing new."""
    text = " ".join(text.split()).strip("\"'“”")
    before = wording.text
    if not text or text == before or _NUMBER.findall(text) != _NUMBER.findall(before):
        return None
    if any(_says(text, each) != _says(before, each) for each in keep):
        return None
    return _with_turn(wording, move, (), text)


def kept_words(trial: Trial) -> tuple[str, ...]:
    """What a paraphrase may neither lose nor add: the values that the trial's check looks for, and what a claim is about."""
    found = list(_exact_values(trial.item.facts.get(CHECK)))
    lab = trial.item.facts.get("lab")
    if isinstance(lab, Mapping):
        facts = cast("Mapping[str, Any]", lab)
        found += [str(facts.get(name, "")) for name in ("subject", "value", "claimed")]
    return tuple(dict.fromkeys(each for each in found if each))


def moves_of(wordings: Wordings) -> list[Move]:
    """Every move of the file."""
    return [(name, number) for name, variants in wordings.moves.items() for number in range(len(variants))]


def _with_turn(wording: Wording, move: Move, before: Conversation | tuple[()], text: str) -> Wording | None:
    if not text.strip() or len(text) + sum(len(each.content) for each in before) > MAX_PROMPT_CHARS:
        return None
    trial = wording.trial
    if trial.follow_ups:
        last = (*trial.follow_ups[-1][:-1], *before, user(text))
        changed = replace(trial, follow_ups=(*trial.follow_ups[:-1], last))
    else:
        messages = (*trial.item.messages[:-1], *before, user(text))
        changed = replace(trial, item=trial.item.model_copy(update={"messages": messages}))
    # Another wording is another prompt: with a name of its own it gets noise of its own.
    root = trial.item.uid.split("~", 1)[0]
    content = repr([(m.role, m.content) for group in (changed.item.messages, *changed.follow_ups) for m in group])
    uid = f"{root}~{sha256(content.encode(errors='surrogatepass')).hexdigest()[:10]}"
    changed = replace(changed, item=changed.item.model_copy(update={"uid": uid}), cluster=trial.cluster or trial.item.uid)
    return Wording(changed, (*wording.moves, move))


def _says(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def _exact_values(check: Any) -> Iterator[str]:
    if isinstance(check, list | tuple):
        for each in cast("Sequence[Any]", check):
            yield from _exact_values(each)
    elif isinstance(check, Mapping):
        for kind, inside in cast("Mapping[str, Any]", check).items():
            if kind == "exact":
                yield from (str(each) for side in ("accept", "reject") for each in inside.get(side, ()))
            else:
                yield from _exact_values(inside)
