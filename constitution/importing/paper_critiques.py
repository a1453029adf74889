r"""The Constitutional AI paper's critique and revision requests (`CritiqueRevisionInstructions.json`).

An object of name → `{"prompt": ["\n\nCritiqueRequest: …\n\nCritique:"], "edit_request": …}`, the latter
`"\n\nRevisionRequest: …\n\nRevision:"`. The blank line before a request may be missing.
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
WITHOUT_LEAD = "without_lead"
"""The `source` key that names the texts which do not begin with a blank line."""
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
        bare: list[str] = []
        critique = _critique(gathering, (name,), entry, bare)
        revision = _request(gathering, (name,), entry, "edit_request", REVISION, bare)
        if critique is None or revision is None:
            continue
        about = {WITHOUT_LEAD: " ".join(bare)} if bare else {}
        gathering.add(
            (name,),
            name=name,
            words=critique,
            principle=revision,
            critique_request=critique,
            revision_request=revision,
            source=gathering.extras((name,), entry, _KEYS) | about,
        )


def write(constitution: Constitution) -> object:
    written: dict[str, object] = {}
    for principle in constitution.principles:
        bare = principle.source.get(WITHOUT_LEAD, "").split()
        critique, revision = critique_of(principle).join(CRITIQUE), revision_of(principle).join(REVISION)
        written[name_of(principle)] = {
            "prompt": [critique.lstrip("\n") if "prompt" in bare else critique],
            "edit_request": revision.lstrip("\n") if "edit_request" in bare else revision,
        }
    return written


def _critique(gathering: Gathering, path: Path, entry: Mapping[str, Any], bare: list[str]) -> str | None:
    prompts: object = entry.get("prompt")
    if not isinstance(prompts, list) or not prompts:
        gathering.lose(path, f"`prompt` is {kind_of(cast('object', prompts))} where a list of texts is expected", Fate.ENTRY)
        return None
    for index in range(1, len(cast("list[object]", prompts))):
        gathering.lose((*path, "prompt", index), "a second wording of the critique request", Fate.PART)
    return _request(gathering, path, {"prompt": prompts[0]}, "prompt", CRITIQUE, bare)


def _request(
    gathering: Gathering, path: Path, entry: Mapping[str, Any], key: str, affixes: tuple[str, str], bare: list[str]
) -> str | None:
    """The request alone; `key` is added to `bare` where no blank line stands before it."""
    text = gathering.text(path, entry, key)
    if text is None:
        return None
    before, after = affixes
    if text.startswith(before.lstrip("\n")):
        bare.append(key)
        before = before.lstrip("\n")
    if not (text.startswith(before) and text.endswith(after)):
        gathering.lose((*path, key), f"does not begin with {affixes[0]!r} and end with {after!r}; read as it stands", Fate.PART)
        return text
    return text[len(before) : -len(after)]
