r"""The paper's worked examples of critique and revision (`CritiqueRevisionFewShotPrompts.json`): a list of transcripts.

`\n\nHuman: … \n\nAssistant: … \n\nCritiqueRequest: … \n\nCritique: … \n\nRevisionRequest: … \n\nRevision: …`, mostly with
`\n\nHuman:` at the end, the separator to the next; the blank line at the beginning may be missing. Examples with the same two
requests become one principle's demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from constitution.importing import transcripts
from constitution.importing.exporting import critique_of, is_from, revision_of
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering, kind_of
from constitution.importing.paper_critiques import NO_RULE
from constitution.importing.sources import Source
from constitution.importing.transcripts import ASSISTANT, HUMAN, prompt_of
from constitution.schema import Constitution, Demonstration, Principle

NAME = "paper-few-shots"
SEPARATOR = HUMAN.rstrip()
PARTS = ("\n\nCritiqueRequest: ", "\n\nCritique: ", "\n\nRevisionRequest: ", "\n\nRevision: ")
_ORDER = "order"
_UNSEPARATED = "without_separator"
_UNLED = "without_lead"


def recognise(source: Source) -> bool:
    return any(PARTS[0] in text for text in source.texts)


@dataclass(frozen=True)
class _Example:
    requests: tuple[str, str]
    demonstration: Demonstration
    separated: bool
    led: bool


def read(gathering: Gathering) -> None:
    gathering.remarks.append(NO_RULE)
    examples: list[tuple[int, _Example]] = []
    for index, text in enumerate(gathering.source.rows):
        gathering.entries += 1
        example = _example(gathering, index, text)
        if example is not None:
            examples.append((index, example))
    groups: dict[tuple[str, str], list[tuple[int, _Example]]] = {}
    for index, example in examples:
        groups.setdefault(example.requests, []).append((index, example))
    shown: dict[int, str] = {}
    for (critique, revision), group in groups.items():
        demonstrations = tuple(example.demonstration for _, example in group)
        fields: dict[str, Any] = {"principle": revision, "critique_request": critique, "revision_request": revision}
        if gathering.add((group[0][0],), words=critique, demonstrations=demonstrations, **fields):
            shown |= {index: gathering.principles[-1].id for index, _ in group}
    gathering.remember(_ORDER, " ".join(shown[index] for index in sorted(shown)))
    numbered = [(str(number), example) for number, (_, example) in enumerate(examples, start=1)]
    if ends := [number for number, example in numbered if not example.separated]:
        gathering.remember(_UNSEPARATED, " ".join(ends))
    if starts := [number for number, example in numbered if not example.led]:
        gathering.remember(_UNLED, " ".join(starts))
    gathering.remarks += transcripts.told((example.demonstration.prompt for _, example in examples), "worked example")


def write(constitution: Constitution) -> object:
    waiting = {
        principle.id: [_transcript(principle, each) for each in principle.demonstrations]
        for principle in constitution.principles
    }
    about = constitution.source if is_from(constitution, NAME) else {}
    texts = [waiting[identity].pop(0) for identity in about.get(_ORDER, "").split() if waiting.get(identity)]
    texts += [text for rest in waiting.values() for text in rest]
    unseparated, unled = (frozenset(about.get(key, "").split()) for key in (_UNSEPARATED, _UNLED))
    return [
        (text.lstrip("\n") if str(number) in unled else text) + ("" if str(number) in unseparated else SEPARATOR)
        for number, text in enumerate(texts, start=1)
    ]


def _example(gathering: Gathering, index: int, text: object) -> _Example | None:
    if not isinstance(text, str):
        gathering.lose((index,), f"{kind_of(text)} where a text is expected", Fate.ENTRY)
        return None
    separated = text.endswith(SEPARATOR)
    pieces: list[str] = []
    led = not text.startswith(HUMAN.lstrip("\n"))
    rest = ("" if led else "\n\n") + text.removesuffix(SEPARATOR)
    for part in PARTS:
        piece, found, rest = rest.partition(part)
        if not found:
            gathering.lose((index,), f"{part.strip()!r} is missing, or not in its place", Fate.ENTRY)
            return None
        pieces.append(piece)
    exchange, critique_request, critique, revision_request = pieces
    conversation, found, draft = exchange.rpartition(ASSISTANT)
    prompt = prompt_of(conversation)
    if not found or prompt is None or any(part in piece for part in PARTS for piece in (*pieces, rest)):
        gathering.lose(
            (index,), "one conversation from 'Human:' to 'Assistant:' is expected, then the four parts, once each", Fate.ENTRY
        )
        return None
    texts = {"prompt": prompt, "draft": draft, "critique": critique, "revision": rest}
    demonstration = gathering.demonstration((index,), **texts)
    return demonstration and _Example((critique_request, revision_request), demonstration, separated, led)


def _transcript(principle: Principle, shown: Demonstration) -> str:
    revision = shown.draft if shown.revision is None else shown.revision
    parts = zip(PARTS, (critique_of(principle), shown.critique, revision_of(principle), revision), strict=True)
    return HUMAN + shown.prompt + ASSISTANT + shown.draft + "".join(part + text for part, text in parts)
