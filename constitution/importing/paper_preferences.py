r"""The paper's preference principles (`RLMadisonInstructions.json`): a list of `"\n<principle> Options:"`.

The line end before a principle may be missing.
"""

from __future__ import annotations

from constitution.importing.exporting import given
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering, kind_of
from constitution.importing.paper_critiques import WITHOUT_LEAD
from constitution.importing.sources import Source
from constitution.rendering import principle_text
from constitution.schema import Constitution, Principle

BEFORE, AFTER = "\n", " Options:"


def recognise(source: Source) -> bool:
    return bool(source.texts) and all(text.endswith(AFTER) for text in source.texts)


def read(gathering: Gathering) -> None:
    for index, text in enumerate(gathering.source.rows):
        gathering.entries += 1
        if not isinstance(text, str):
            gathering.lose((index,), f"{kind_of(text)} where a text is expected", Fate.ENTRY)
            continue
        principle = text.removeprefix(BEFORE).removesuffix(AFTER)
        about = {} if text.startswith(BEFORE) else {WITHOUT_LEAD: "principle"}
        gathering.add((index,), words=principle, principle=principle, source=about)


def write(constitution: Constitution) -> object:
    return [f"{_lead(each)}{given(each, 'principle') or principle_text(each)}{AFTER}" for each in constitution.principles]


def _lead(principle: Principle) -> str:
    return "" if principle.source.get(WITHOUT_LEAD) == "principle" else BEFORE
