r"""The Constitutional AI paper's critique and revision requests (`CritiqueRevisionInstructions.json`).

An object of name → `{"prompt": ["\n\nCritiqueRequest: …\n\nCritique:"], "edit_request": …}`, the latter
`"\n\nRevisionRequest: …\n\nRevision:"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from constitution.documents import Path
from constitution.importing.exporting import critique_of, name_of, revision_of
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering, kind_of
from constitution.importing.sources import Source
from constitution.schema import Constitution

CRITIQUE = ("\n\nCritiqueRequest: ", "\n\nCritique:")
REVISION = ("\n\nRevisionRequest: ", "\n\nRevision:")
_KEYS = frozenset({"prompt", "edit_request"})
NO_RULE = (
    "The format has no rule apart from its requests, so `principle` repeats the revision request: put it into a rule's words."
)


def recognise(source: Source) -> bool:
    entries = source.mapping.values()
    return any(isinstance(each, dict) and "edit_request" in each for each in entries)


def read(gathering: Gathering) -> None:
    gathering.remarks.append(NO_RULE)
    for name, entry in gathering.source.mapping.items():
        gathering.entries += 1
        if not isinstance(entry, dict):
            gathering.lose((name,), f"{kind_of(entry)} where an object is expected", Fate.ENTRY)
            continue
        entry = cast("Mapping[str, Any]", entry)
        critique, revision = _critique(gathering, (name,), entry), _request(gathering, (name,), entry, "edit_request", REVISION)
        if critique is None or revision is None:
            continue
        gathering.add(
            (name,),
            name=name,
            words=critique,
            principle=revision,
            critique_request=critique,
            revision_request=revision,
            source=gathering.extras((name,), entry, _KEYS),
        )


def write(constitution: Constitution) -> object:
    return {
        name_of(principle): {
            "prompt": [critique_of(principle).join(CRITIQUE)],
            "edit_request": revision_of(principle).join(REVISION),
        }
        for principle in constitution.principles
    }


def _critique(gathering: Gathering, path: Path, entry: Mapping[str, Any]) -> str | None:
    prompts: object = entry.get("prompt")
    if not isinstance(prompts, list) or not prompts:
        gathering.lose(path, f"`prompt` is {kind_of(cast('object', prompts))} where a list of texts is expected", Fate.ENTRY)
        return None
    for index in range(1, len(cast("list[object]", prompts))):
        gathering.lose((*path, "prompt", index), "a second wording of the critique request", Fate.PART)
    return _request(gathering, path, {"prompt": prompts[0]}, "prompt", CRITIQUE)


def _request(gathering: Gathering, path: Path, entry: Mapping[str, Any], key: str, affixes: tuple[str, str]) -> str | None:
    text = gathering.text(path, entry, key)
    if text is None:
        return None
    before, after = affixes
    if not (text.startswith(before) and text.endswith(after)):
        gathering.lose((*path, key), f"does not begin with {before!r} and end with {after!r}; read as it stands", Fate.PART)
        return text
    return text[len(before) : -len(after)]
