r"""The paper's preference principles (`RLMadisonInstructions.json`): a list of `"\n<principle> Options:"`."""

from __future__ import annotations

from constitution.importing.exporting import given
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering, kind_of
from constitution.importing.sources import Source
from constitution.rendering import principle_text
from constitution.schema import Constitution

BEFORE, AFTER = "\n", " Options:"


def recognise(source: Source) -> bool:
    return bool(source.texts) and all(text.endswith(AFTER) for text in source.texts)


def read(gathering: Gathering) -> None:
    for index, text in enumerate(gathering.source.rows):
        gathering.entries += 1
        if not isinstance(text, str):
            gathering.lose((index,), f"{kind_of(text)} where a text is expected", Fate.ENTRY)
            continue
        if not (text.startswith(BEFORE) and text.endswith(AFTER)):
            gathering.lose((index,), f"does not begin with {BEFORE!r} and end with {AFTER!r}; read as it stands", Fate.PART)
        principle = text.removeprefix(BEFORE).removesuffix(AFTER)
        gathering.add((index,), words=principle, principle=principle)


def write(constitution: Constitution) -> object:
    return [
        f"{BEFORE}{given(principle, 'principle') or principle_text(principle)}{AFTER}" for principle in constitution.principles
    ]
