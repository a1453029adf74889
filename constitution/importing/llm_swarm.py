"""Hugging Face's constitutions (llm-swarm's `constitutional-ai` example): `{"constitutions": [{"critic", "revision"}],
"system_chat": [[{"role", "content"}, …]]}`.

A chat is a worked example: at least one exchange, then critique request, critique, revision request, revision. Each goes to the
principle whose two requests it uses. There, all chats stand before every principle; here, each before its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

from pydantic import ValidationError

from constitution.explaining import explain
from constitution.importing import transcripts
from constitution.importing.exporting import critique_of, extras_of, is_from, revision_of
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering, kind_of
from constitution.importing.paper_critiques import NO_RULE
from constitution.importing.sources import Source
from constitution.importing.transcripts import joined, prompt_of, split
from constitution.schema import MAX_PROSE_CHARS, Constitution, Demonstration, Principle

NAME = "llm-swarm"
_KEYS = frozenset({"critic", "revision"})
_OTHER_CHATS = "system_chat"
_ORDER = "chat_order"
_FEWEST_TURNS = 6


def recognise(source: Source) -> bool:
    return isinstance(source.mapping.get("constitutions"), list)


def read(gathering: Gathering) -> None:
    data = gathering.source.mapping
    gathering.remarks.append(NO_RULE)
    for key in data.keys() - {"constitutions", "system_chat"}:
        gathering.lose((key,), f"`{key}` is no key of this format", Fate.PART)
    chats = data.get("system_chat", [])
    if not isinstance(chats, list):
        gathering.lose(("system_chat",), f"{kind_of(chats)} where a list of chats is expected", Fate.PART)
        chats = []
    examples, refused = _examples(gathering, cast("list[object]", chats))
    shown: dict[int, str] = {}
    for path, entry in gathering.objects(("constitutions",), data["constitutions"]):
        critic, revision = (gathering.text(path, entry, key) for key in ("critic", "revision"))
        if critic is None or revision is None:
            continue
        own = {n: each.demonstration for n, each in examples.items() if n not in shown and each.requests == (critic, revision)}
        fields: dict[str, Any] = {"critique_request": critic, "revision_request": revision, "principle": revision}
        if own:
            fields["demonstrations"] = tuple(own.values())
        if gathering.add(path, words=critic, source=gathering.extras(path, entry, _KEYS), **fields):
            shown |= dict.fromkeys(own, gathering.principles[-1].id)
    reasons = {number: f"is no worked example: {why}" for number, why in refused.items()}
    reasons |= dict.fromkeys(examples, "uses no request of a principle here")
    _keep_the_rest(gathering, cast("list[object]", chats), reasons, shown)


def write(constitution: Constitution) -> object:
    ours = is_from(constitution, NAME)
    entries = [
        {"critic": critique_of(principle), "revision": revision_of(principle), **extras_of(constitution, principle, NAME)}
        for principle in constitution.principles
    ]
    waiting = {
        principle.id: [_chat(principle, each) for each in principle.demonstrations] for principle in constitution.principles
    }
    kept = _kept(constitution.source.get(_OTHER_CHATS, "")) if ours else {}
    chats: list[object] = []
    for number, identity in enumerate(constitution.source.get(_ORDER, "").split() if ours else []):
        if str(number) in kept:
            chats.append(kept[str(number)])
        elif waiting.get(identity):
            chats.append(waiting[identity].pop(0))
    chats += [chat for rest in waiting.values() for chat in rest]
    return (
        {"constitutions": entries, "system_chat": chats}
        if chats or not ours or _ORDER in constitution.source
        else {"constitutions": entries}
    )


@dataclass(frozen=True)
class _Example:
    """A chat that is a worked example, and the critique and revision request it uses."""

    requests: tuple[str, str]
    demonstration: Demonstration


def _examples(gathering: Gathering, chats: list[object]) -> tuple[dict[int, _Example], dict[int, str]]:
    """The chats that are worked examples, by their number; and what is wrong with those that only have the form of one."""
    found: dict[int, _Example] = {}
    refused: dict[int, str] = {}
    for number, chat in enumerate(chats):
        gathering.entries += 1
        if not _is_example(chat):
            continue
        *conversation, draft, critic, critique, revise, revision = cast("list[dict[str, str]]", chat)
        try:
            demonstration = Demonstration(
                prompt=prompt_of(joined(conversation)) or "",
                draft=draft["content"],
                critique=critique["content"],
                revision=revision["content"],
            )
        except ValidationError as error:
            # No loss yet: what becomes of the chat is not known before there is room for it, or none.
            refused[number] = ", ".join(each.problem for each in explain(error))
            continue
        found[number] = _Example((critic["content"], revise["content"]), demonstration)
    gathering.remarks += transcripts.told((each.demonstration.prompt for each in found.values()), "worked example")
    return found, refused


def _is_example(chat: object) -> bool:
    turns = cast("list[object]", chat) if isinstance(chat, list) else []
    roles = cycle(("user", "assistant"))
    return len(turns) >= _FEWEST_TURNS and len(turns) % 2 == 0 and all(map(_is_turn, turns, roles))


def _is_turn(turn: object, role: str) -> bool:
    entry = cast("dict[str, object]", turn) if isinstance(turn, dict) else {}
    return entry.keys() == {"role", "content"} and entry["role"] == role and isinstance(entry["content"], str)


def _keep_the_rest(gathering: Gathering, chats: list[object], reasons: dict[int, str], shown: dict[int, str]) -> None:
    """Chats that belong to no principle are kept verbatim, as far as there is room. `reasons`: why they belong to none."""
    kept: dict[str, object] = {}
    for number, chat in enumerate(chats):
        if number in shown:
            continue
        own = reasons.get(number, "is no worked example")
        if len(json.dumps({**kept, str(number): chat}, ensure_ascii=False)) > MAX_PROSE_CHARS:
            gathering.lose(("system_chat", number), f"the chat {own}, and is too long to keep", Fate.ENTRY)
            continue
        kept[str(number)] = chat
        gathering.lose(("system_chat", number), f"the chat {own}", Fate.UNUSED)
    if kept:
        gathering.remember(_OTHER_CHATS, json.dumps(kept, ensure_ascii=False))
    if chats or "system_chat" in gathering.source.mapping:
        gathering.remember(_ORDER, " ".join(shown.get(number, "-") for number in range(len(chats))))


def _chat(principle: Principle, shown: Demonstration) -> list[dict[str, str]]:
    turns = [*split(shown.prompt), {"role": "assistant", "content": shown.draft}]
    turns += [{"role": "user", "content": critique_of(principle)}, {"role": "assistant", "content": shown.critique}]
    revision = shown.draft if shown.revision is None else shown.revision
    return [*turns, {"role": "user", "content": revision_of(principle)}, {"role": "assistant", "content": revision}]


def _kept(text: str) -> dict[str, object]:
    """What `_keep_the_rest` wrote; nothing where somebody has edited it into something else."""
    try:
        found: object = json.loads(text or "{}")
    except ValueError:
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}
