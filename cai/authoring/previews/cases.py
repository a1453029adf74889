"""What a principle is shown on: an item with the texts that models would write about it. What is not given is stood in for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from cai.errors import ConfigError, DataError
from cai.records import FailureRecord, Item
from constitution.messages import system, user
from constitution.rendering import FAULT, read_critique
from constitution.schema import Constitution, Principle
from constitution.selection import applicable

DEFAULT_PROMPT = "I think 2 + 2 = 5. Explain why I'm right."
DEFAULT_DRAFT = "You are right. When two pairs meet, the whole is more than its parts, so 2 + 2 = 5."
DEFAULT_OTHER = "2 + 2 is 4, not 5. Count two fingers on each hand and you will see it."
DEFAULT_CRITIQUE = f"{FAULT} (the critique will stand here)"
DEFAULT_ARGUMENT = "(an argument will stand here)"

LONGEST = "longest"


@dataclass(frozen=True, slots=True)
class Case:
    """An item and the texts about it, trimmed as the loop trims them.

    Args:
        item: The conversation, which ends with a user turn.
        draft: The reply in question; the first one of a comparison.
        other: The second reply of a comparison.
        critique: What a revision goes on from.
        ground: What a verdict goes on from: the critique up to its own verdict; "" when no critique was given.
        argument: What each advocate has said in a debate.
        origin: Where the conversation comes from, in words.
        stand_ins: Which of `draft`, `other`, `critique` and `argument` are made up.
    """

    item: Item
    draft: str
    other: str
    critique: str
    ground: str
    argument: str
    origin: str
    stand_ins: tuple[str, ...] = ()

    def draws(self, principle: Principle) -> bool:
        """Whether a round may draw this principle for the item: by their tags."""
        alone = Constitution(name=principle.id, principles=(principle,))
        return bool(applicable(alone, self.item.tags))


def case_of(
    principle: Principle,
    *,
    item: Item | None = None,
    prompt: str | None = None,
    draft: str | None = None,
    other: str | None = None,
    critique: str | None = None,
    argument: str | None = None,
    system_text: str | None = None,
) -> Case:
    """Put a case together.

    Args:
        principle: Its first test gives prompt, draft (the worse reply) and other (the better one) where they are not given.
        item: A row of a prompts file; the replies of a row of preferences are taken (rejected: draft, chosen: other).
        prompt: What the user says, in place of an item.
        draft: The reply in question.
        other: The second reply of a comparison.
        critique: Of the draft.
        argument: For either reply.
        system_text: System message, where the item has none of its own.

    Raises:
        ConfigError: If the prompt or the draft is empty.
    """
    test = principle.tests[0] if principle.tests and prompt is None and item is None else None
    if item is None:
        said = prompt if prompt is not None else test.prompt if test else DEFAULT_PROMPT
        origin = "the prompt given" if prompt is not None else f"the first test of `{principle.id}`" if test else "a stand-in"
        item = Item(uid="show", messages=(user(said),))
    else:
        origin = f"item {item.uid} ({item.source})" if item.source else f"item {item.uid}"
    if system_text is not None and item.messages[0].role != "system":
        item = item.model_copy(update={"messages": (system(system_text), *item.messages)})
    known = {
        "draft": test.worse if test else item.facts.get("rejected"),
        "other": test.better if test else item.facts.get("chosen"),
    }
    draft, draft_made_up = _given(draft, known["draft"], DEFAULT_DRAFT)
    other, other_made_up = _given(other, known["other"], DEFAULT_OTHER)
    critique, critique_made_up = _given(critique, None, DEFAULT_CRITIQUE)
    argument, argument_made_up = _given(argument, None, DEFAULT_ARGUMENT)
    for name, text in (("prompt", item.messages[-1].content.strip()), ("draft", draft)):
        if not text:
            raise ConfigError(f"the {name} is empty", "the loop refuses it too: an empty draft is a failed row")
    made_up = {"draft": draft_made_up, "other": other_made_up, "critique": critique_made_up, "argument": argument_made_up}
    return Case(
        item=item,
        draft=draft,
        other=other,
        critique=critique,
        ground="" if critique_made_up else read_critique(critique).ground,
        argument=argument,
        origin=origin,
        stand_ins=tuple(name for name, so in made_up.items() if so),
    )


def _given(text: str | None, known: object, stand_in: str) -> tuple[str, bool]:
    """The text to show, and whether it is made up."""
    if text is not None:
        return text.strip(), False
    return (known.strip(), False) if isinstance(known, str) and known.strip() else (stand_in, True)


def find_item(items: Sequence[Item], failures: Sequence[FailureRecord], wanted: str | None, path: str) -> Item:
    """An item by its uid or its row in the file (from 1, as in messages about broken rows); the first one for None.

    `longest` is the one with the most characters: what fits for it fits for all.

    Raises:
        DataError: If there is none, with the nearest uid; or if that row cannot be used, with the reason.
    """
    if wanted is None:
        return items[0]
    if wanted == LONGEST and all(item.uid != LONGEST for item in items):
        return max(items, key=lambda item: sum(len(message.content) for message in item.messages))
    for item in items:
        if item.uid == wanted:
            return item
    if wanted.isdecimal():
        for position, item in enumerate(items, start=1):
            if _row(item.source, position) == int(wanted):
                return item
        for failure in failures:
            place = failure.detail.partition(": ")[0]
            if _row(place, 0) == int(wanted):
                raise DataError(f"{path}: row {wanted} cannot be used: {failure.detail}", "Mend the row, or name another.")
        last = max(_row(item.source, position) for position, item in enumerate(items, start=1))
        raise DataError(f"{path}: no row {wanted}.", f"The last usable row is {last}.")
    near = difflib.get_close_matches(wanted, [item.uid for item in items], n=1)
    hint = f"Did you mean `{near[0]}`?" if near else f"Give a uid such as `{items[0].uid}`, or a row number."
    raise DataError(f"{path}: no item `{wanted}`.", hint)


def _row(source: str, position: int) -> int:
    number = source.rpartition(":")[2]
    return int(number) if number.isdecimal() else position
