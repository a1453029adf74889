r"""Results of Inverse Constitutional AI (icai): principles found in preferences.

Three of its files hold principles alone: the constitution (`060_…`, one text `1. …\n2. …`), a list of texts (`011_…`, `050_…`)
and an object of number → text (`030_…`). The annotated pairs (`070_…`, version 2) also hold how every principle voted: what it
agreed with people on becomes its tests, and its record its rationale.
"""

from __future__ import annotations

import re

from constitution.importing.exporting import given, is_from, name_of
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering, kind_of
from constitution.importing.inverse_cai_pairs import holds_pairs, read_pairs
from constitution.importing.sources import Source
from constitution.rendering import principle_text
from constitution.schema import Constitution

NAME = "inverse-cai"
_SHAPE = "shape"
_NUMBERED, _BY_NUMBER = "numbered", "by number"
_NUMBER = re.compile(r"(?:\A|\n)(\d+)\. ")


def recognise(source: Source) -> bool:
    data = source.data
    if isinstance(data, str):
        return data.startswith("1. ")
    if source.mapping:
        keyed = all(key.isdecimal() and isinstance(text, str) for key, text in source.mapping.items())
        return keyed or holds_pairs(source)
    return bool(source.rows) and all(_is_rule(row) for row in source.rows)


def read(gathering: Gathering) -> None:
    source = gathering.source
    if holds_pairs(source):
        read_pairs(gathering)
    elif isinstance(source.data, str):
        gathering.remember(_SHAPE, _NUMBERED)
        _, *parts = _NUMBER.split(source.data)
        for text in parts[1::2]:
            _add(gathering, (), text)
    elif source.mapping:
        gathering.remember(_SHAPE, _BY_NUMBER)
        for number, text in source.mapping.items():
            _add(gathering, (number,), text, number)
    else:
        for index, text in enumerate(source.rows):
            _add(gathering, (index,), text)


def write(constitution: Constitution) -> object:
    texts = [given(principle, "principle") or principle_text(principle) for principle in constitution.principles]
    shape = constitution.source.get(_SHAPE) if is_from(constitution, NAME) else None
    if shape == _NUMBERED:
        return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))
    if shape == _BY_NUMBER:
        return {name_of(principle): text for principle, text in zip(constitution.principles, texts, strict=True)}
    return texts


def _add(gathering: Gathering, path: tuple[str | int, ...], text: object, number: str | None = None) -> None:
    gathering.entries += 1
    if not isinstance(text, str):
        gathering.lose(path, f"{kind_of(text)} where a text is expected", Fate.ENTRY)
        return
    gathering.add(path, words=text, principle=text, source={} if number is None else {"name": number})


def _is_rule(value: object) -> bool:
    return isinstance(value, str) and not value.endswith(" Options:") and "\n\n" not in value
