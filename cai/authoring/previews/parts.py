"""Which characters of a prompt are whose: the user's, a reply, a critique, the principle's own words.

The texts are marked with characters that stand in none of them, go through the same templates, and are found again by the
marks. A chat template that writes something else because of the marks gives no parts rather than wrong ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias, get_args

from cai.authoring.previews.cases import Case
from constitution.messages import Message
from constitution.schema import Principle

PartKind: TypeAlias = Literal["conversation", "demonstration", "reply", "critique", "argument", "principle"]
_KINDS: tuple[PartKind, ...] = get_args(PartKind)
_PRIVATE_USE = range(0xF0000, 0x10FFFE)


@dataclass(frozen=True, slots=True)
class Part:
    """Characters `start` to `end` of a prompt's text. What no part covers is fixed wording or the chat template."""

    kind: PartKind
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Marks:
    """A character for the beginning of each kind of part, and one for the end of any."""

    begins: dict[PartKind, str]
    end: str

    @classmethod
    def absent_from(cls, *texts: str) -> Marks:
        """Marks that stand in none of the texts."""
        taken = set("".join(texts))
        free = islice((mark for mark in map(chr, _PRIVATE_USE) if mark not in taken), len(_KINDS) + 1)
        *begins, end = free
        return cls(dict(zip(_KINDS, begins, strict=True)), end)

    def around(self, kind: PartKind, text: str) -> str:
        """The text in marks; blanks at its ends stay outside, where a template can trim them as always."""
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        return f"{text[:start]}{self.begins[kind]}{core}{self.end}{text[start + len(core) :]}"

    def principle(self, principle: Principle) -> Principle:
        """The principle with its own words marked; parameters are part of them."""
        own = {
            name: getattr(principle, name)
            for name in ("principle", "critique_request", "revision_request", "preference_question")
        }
        shown = [
            example.model_copy(update={name: self.around("demonstration", text) for name, text in example if text})
            for example in principle.demonstrations
        ]
        marked = {name: self.around("principle", text) for name, text in own.items() if text}
        return principle.model_copy(update={**marked, "demonstrations": tuple(shown)})

    def case(self, case: Case) -> Case:
        """The case with all its texts marked."""
        messages = tuple(
            Message(role=each.role, content=self.around("conversation", each.content)) for each in case.item.messages
        )
        return dataclasses.replace(
            case,
            item=case.item.model_copy(update={"messages": messages}),
            draft=self.around("reply", case.draft),
            other=self.around("reply", case.other),
            critique=self.around("critique", case.critique),
            ground=self.around("critique", case.ground),
            argument=self.around("argument", case.argument),
        )

    def read(self, marked: str) -> tuple[str, tuple[Part, ...]]:
        """The text without its marks, and the parts that they enclosed."""
        kinds: dict[str, PartKind] = {mark: kind for kind, mark in self.begins.items()}
        pieces: list[str] = []
        parts: list[Part] = []
        length = start = 0
        kind: PartKind | None = None
        for sign in marked:
            if sign == self.end:
                if kind is not None and length > start:
                    parts.append(Part(kind, start, length))
                kind = None
            elif sign in kinds:
                kind, start = kinds[sign], length
            else:
                pieces.append(sign)
                length += 1
        return "".join(pieces), tuple(parts)


def parts_of(principle: Principle, case: Case, rendered: Callable[[Principle, Case], str]) -> tuple[Part, ...]:
    """The parts of a prompt, in the order of its text.

    Args:
        principle: The rule.
        case: What it is shown on.
        rendered: Gives the prompt's text for a principle and a case.
    """
    texts = (each.content for each in case.item.messages)
    marks = Marks.absent_from(principle.model_dump_json(), *texts, case.draft, case.other, case.critique, case.argument)
    text, parts = marks.read(rendered(marks.principle(principle), marks.case(case)))
    return parts if text == rendered(principle, case) else ()
