"""Inverse Constitutional AI's annotated pairs: `{metadata, annotators, comparisons}`, version 2.

An annotator of type `principle` is a principle; a comparison holds two responses and what each annotator prefers. Only votes
that agree with the default annotator's can be tests: there both the rule and the people point the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from constitution.documents import Path
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering, kind_of
from constitution.importing.sources import Source
from constitution.schema import MAX_TEXT_CHARS, PrincipleTest

MAX_TESTS = 10
"""Tests that one principle takes from the comparisons: each is judged twice whenever the principle is tested."""

_KEYS = frozenset({"metadata", "annotators", "comparisons"})
_READ_METADATA = frozenset({"version", "default_annotator"})
_ANNOTATOR_KEYS = frozenset({"type", "description"})
_METADATA, _ANNOTATOR = "metadata", "annotator"


def holds_pairs(source: Source) -> bool:
    return isinstance(source.mapping.get("annotators"), dict) and isinstance(source.mapping.get("comparisons"), list)


@dataclass
class _Record:
    """How one principle voted over all comparisons."""

    decided: int = 0
    agreed: int = 0
    judged: int = 0
    tests: list[PrincipleTest] = field(default_factory=list[PrincipleTest])

    def prose(self, comparisons: int) -> str:
        if not self.judged:
            return ""
        accuracy, relevance = self.agreed / self.judged, self.decided / comparisons
        return (
            f"Inverse CAI: it decided {self.decided} of {comparisons} comparisons, and agreed with the default annotator in "
            f"{self.agreed} of the {self.judged} that both decided (performance {(accuracy - 0.5) * relevance * 2:.2f})."
        )


def read_pairs(gathering: Gathering) -> None:
    data = gathering.source.mapping
    annotators = cast("Mapping[str, object]", data["annotators"])
    rules = {key: each for key, each in annotators.items() if _object(each).get("type") == "principle"}
    metadata = _metadata(gathering, data)
    records = {key: _Record() for key in rules}
    comparisons = gathering.objects(("comparisons",), data["comparisons"])
    for _, comparison in comparisons:
        _count(comparison, metadata.get("default_annotator"), records)
    gathering.entries = len(annotators)
    gathering.returns = False
    for key, each in annotators.items():
        if key not in rules:
            gathering.lose(("annotators", key), "an annotator that is no principle", Fate.PART)
            continue
        path = ("annotators", key)
        text = gathering.text(path, cast("Mapping[str, Any]", each), "description")
        if text is None:
            continue
        about = {**_extras(gathering, path, cast("Mapping[str, Any]", each)), _ANNOTATOR: key}
        optional: dict[str, Any] = {"rationale": records[key].prose(len(comparisons)), "tests": tuple(records[key].tests)}
        fields = {name: value for name, value in optional.items() if value}
        gathering.add(path, words=text, principle=text, source=about, **fields)
    _tell(gathering, records, len(comparisons))


def _metadata(gathering: Gathering, data: Mapping[str, Any]) -> Mapping[str, object]:
    """What the file says of itself, kept as JSON. Keys beside it that are not the format's are left out."""
    for key in data:
        if key not in _KEYS:
            gathering.lose((key,), f"`{key}` is no key of this format", Fate.PART)
    metadata = _object(data.get(_METADATA))
    if _METADATA in data and not isinstance(data[_METADATA], dict):
        gathering.lose((_METADATA,), f"{kind_of(data[_METADATA])} where an object is expected", Fate.PART)
    elif metadata and gathering.remember(_METADATA, json.dumps(metadata, ensure_ascii=False)):
        for key in metadata:
            if key not in _READ_METADATA:
                gathering.lose((_METADATA, key), f"`{key}` means nothing here", Fate.UNUSED)
    return metadata


def _extras(gathering: Gathering, path: Path, annotator: Mapping[str, Any]) -> dict[str, str]:
    if _ANNOTATOR in annotator:  # the annotator's own key in the file stands under this name
        gathering.lose((*path, _ANNOTATOR), f"`{_ANNOTATOR}` has no place in a principle file", Fate.PART)
    return gathering.extras(path, annotator, _ANNOTATOR_KEYS | {_ANNOTATOR})


def _count(comparison: Mapping[str, Any], default: object, records: Mapping[str, _Record]) -> None:
    votes = _object(comparison.get("annotations"))
    people = _vote(votes.get(str(default)))
    for key, record in records.items():
        vote = _vote(votes.get(key))
        record.decided += vote is not None
        record.judged += None not in {vote, people}
        if vote is None or vote != people:
            continue
        record.agreed += 1
        test = _test(comparison, vote)
        if test is not None and len(record.tests) < MAX_TESTS:
            record.tests.append(test)


def _vote(annotation: object) -> str | None:
    preferred = _object(annotation).get("pref")
    return preferred if isinstance(preferred, str) and preferred in {"a", "b"} else None


def _test(comparison: Mapping[str, Any], better: str) -> PrincipleTest | None:
    texts = {letter: _object(comparison.get(f"response_{letter}")).get("text") for letter in ("a", "b")}
    prompt, good, bad = comparison.get("prompt"), texts[better], texts["b" if better == "a" else "a"]
    if all(isinstance(text, str) and text.strip() and len(text) <= MAX_TEXT_CHARS for text in (prompt, good, bad)):
        return PrincipleTest(prompt=cast("str", prompt), better=cast("str", good), worse=cast("str", bad))
    return None


def _tell(gathering: Gathering, records: Mapping[str, _Record], comparisons: int) -> None:
    agreed, tests = sum(record.agreed for record in records.values()), sum(len(record.tests) for record in records.values())
    votes = sum(record.decided for record in records.values())
    what = f"{comparisons} comparisons with {votes} votes, {agreed} of them as the default annotator's: {tests} became tests"
    limits = f"at most {MAX_TESTS} a principle, with a prompt and replies of at most {MAX_TEXT_CHARS} characters"
    gathering.lose(("comparisons",), f"{what} ({limits})", Fate.PART)
    gathering.remarks.append(
        "The tests are votes of Inverse CAI's model that agree with the default annotator: look through them."
    )


def _object(value: object) -> Mapping[str, object]:
    """The value where it is an object; else nothing."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}
