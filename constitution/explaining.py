"""What a pydantic error says about a principle file, in the words of somebody who writes one. Pure: no files."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

from pydantic import BaseModel, ValidationError

from constitution.nearest import nearest
from constitution.schema import Constitution, Demonstration, Principle, PrincipleTest

Loc: TypeAlias = tuple[str | int, ...]

_SECTIONS: dict[str, type[BaseModel]] = {"principles": Principle, "demonstrations": Demonstration, "tests": PrincipleTest}
_ENTRIES = {"principles": "principle", "demonstrations": "demonstration", "tests": "test"}
_KINDS = {"int": "a number", "float": "a number", "date": "a date", "datetime": "a time"}
_NAMES = {"ids": "lower-case words joined by hyphens: `like-this`", "parameters": "a letter first, then a–z, 0–9 and `_`"}
_UNION_ARMS = frozenset({"constrained-str", "int", "float"})
"""Types that a parameter may have: pydantic reports each of them on its own."""
_NOT_A_TEXT = frozenset({"string_type", "int_type", "float_type"})

_ALIASES: Mapping[type[BaseModel], Mapping[str, str]] = {
    Constitution: {"title": "name", "rules": "principles", "constitution": "principles", "about": "description"},
    Principle: {
        **dict.fromkeys(("text", "rule", "statement"), "principle"),
        **dict.fromkeys(("name", "slug"), "id"),
        **dict.fromkeys(("tags", "tag", "applies", "only_for"), "applies_to"),
        **dict.fromkeys(("revision", "revise", "edit_request", "rewrite"), "revision_request"),
        **dict.fromkeys(("critique", "critic", "criticise"), "critique_request"),
        **dict.fromkeys(("question", "preference", "comparison"), "preference_question"),
        **dict.fromkeys(("examples", "few_shot", "few_shots", "demos"), "demonstrations"),
        **dict.fromkeys(("reason", "reasons", "why", "description"), "rationale"),
        **dict.fromkeys(("params", "variables"), "parameters"),
        **dict.fromkeys(("priority", "probability"), "weight"),
    },
    Demonstration: {
        **dict.fromkeys(("input", "question", "user"), "prompt"),
        **dict.fromkeys(("reply", "response", "answer", "output"), "draft"),
        **dict.fromkeys(("critique_request", "criticism"), "critique"),
        **dict.fromkeys(("revision_request", "revised", "revise"), "revision"),
    },
    PrincipleTest: {
        **dict.fromkeys(("input", "question", "user"), "prompt"),
        **dict.fromkeys(("good", "chosen", "correct"), "better"),
        **dict.fromkeys(("bad", "rejected", "incorrect"), "worse"),
    },
}
"""What people call the fields, here or in other systems."""

_SHOWN_CHARS = 80
MAX_GUESSES = 1000
"""In one file; for more unknown keys no known one that is meant is looked for, which takes a tenth of a millisecond."""


class Explanation(NamedTuple):
    """Where, the id of the kind of problem, what is wrong, what to do."""

    loc: Loc
    rule: str
    problem: str
    hint: str


def explain(error: ValidationError, value: object = None) -> Iterable[Explanation]:
    """Every problem; one for each place, however many ways it could be mended.

    Args:
        error: What pydantic says.
        value: The data it says it about: a field that is given already is not what an unknown key means.
    """
    seen: set[Loc] = set()
    for detail in error.errors(include_url=False):
        loc = tuple(part for part in detail["loc"] if part != "[key]")
        if "parameters" in loc[:-1] and loc[-1] in _UNION_ARMS:
            loc = loc[:-1]
        if loc in seen:
            continue
        seen.add(loc)
        if detail["type"] == "extra_forbidden":
            told = "C109", *_unknown_key(loc, _at(value, loc[:-1]), guess=len(seen) <= MAX_GUESSES)
        else:
            told = _tell(detail["type"], loc, detail["input"], detail.get("ctx", {}), detail["msg"])
        if told is not None:
            yield Explanation(loc, *told)


def _tell(kind: str, loc: Loc, given: Any, context: Mapping[str, Any], message: str) -> tuple[str, str, str] | None:
    if kind == "too_short" and given:
        return None  # its entries have problems of their own, and are reported
    told = "C116", f"{_name(loc)}: {message[:1].lower()}{message[1:]}", ""
    match kind:
        case "missing":
            told = "C110", f"{_name(loc)} is missing", "add it"
        case "string_pattern_mismatch":
            names = _NAMES["parameters" if "parameters" in loc else "ids"]
            rule = "C115" if "applies_to" in loc else "C114"
            told = rule, f"{_name(loc)}: {_shortened(repr(given))} is not a proper name here", names
        case "string_too_long":
            hint = "`rationale` may be long" if "principles" in loc else "shorten it"
            told = "C112", f"{_name(loc)} has {len(given)} characters, more than {context['max_length']}", hint
        case _ if given is None or kind in {"string_too_short", "too_short"}:
            told = "C111", f"{_name(loc)} is empty", "write something, or delete the key"
        case "tuple_type":
            told = "C113", f"{_name(loc)} has to be a list", "one entry a line, each behind a dash: `- …`"
        case "model_type" | "dict_type":
            told = "C113", *_not_a_section(loc)
        case _ if kind in _NOT_A_TEXT:
            told = _not_a_text(loc, given)
        case _:
            pass
    return told


def _unknown_key(loc: Loc, given: object, *, guess: bool) -> tuple[str, str]:
    model = _model_at(loc[:-1])
    held = cast("dict[str, object]", given) if isinstance(given, dict) else dict[str, object]()
    meant = meant_field(model, str(loc[-1]), held) if guess else None
    return f"unknown key {_name(loc)}", f"did you mean `{meant}`?" if meant else f"keys here: {', '.join(model.model_fields)}"


def meant_field(model: type[BaseModel], key: str, given: Container[str]) -> str | None:
    """The field that an unknown key most likely stands for: by its name, or by what people call it; none of those `given`."""
    names = {**{name: name for name in model.model_fields}, **_ALIASES[model]}
    word = key[:_SHOWN_CHARS].lower().replace("-", "_").replace(" ", "_")
    found = word if word in names else nearest(word, (name for name, field in names.items() if field not in given))
    return None if found is None or names[found] in given else names[found]


def _at(value: object, loc: Loc) -> object:
    """The part of plain data that `loc` leads to; None where it leads nowhere."""
    for part in loc:
        if isinstance(part, str) and isinstance(value, dict):
            value = cast("dict[str, object]", value).get(part)
        elif isinstance(part, int) and isinstance(value, list) and part < len(cast("list[object]", value)):
            value = cast("list[object]", value)[part]
        else:
            return None
    return value


def _not_a_section(loc: Loc) -> tuple[str, str]:
    required = [name for name, field in _model_at(loc).model_fields.items() if field.is_required()]
    entry = _ENTRIES.get(str(loc[-2])) if len(loc) > 1 and isinstance(loc[-1], int) else None
    if entry is None:
        return f"{_name(loc)} has to be `key: value` lines", ""
    hint = f"with {', '.join(f'`{key}:`' for key in required)} at least"
    return f"a {entry} has to be `key: value` lines", hint + "; a plain list of rules can be a Markdown file" * (
        entry == "principle"
    )


def _not_a_text(loc: Loc, given: object) -> tuple[str, str, str]:
    if isinstance(given, (list, dict)):
        hint = "write it on one line, or as a block below `>-`"
        return "C113", f"{_name(loc)} has to be a text, not a list or a section", hint
    kind = _KINDS.get(type(given).__name__, type(given).__name__)
    return "C117", f"{_name(loc)} is read as {kind}, not as a text", "put it in quotes"


def _name(loc: Loc) -> str:
    """How a place is called: by its key, or by its place in the list."""
    *above, last = loc or ("the file",)
    return f"entry {last + 1} of `{above[-1]}`" if isinstance(last, int) and above else f"`{_shortened(str(last))}`"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _model_at(loc: Loc) -> type[BaseModel]:
    model: type[BaseModel] = Constitution
    for part in loc:
        if isinstance(part, str):
            model = _SECTIONS.get(part, model)
    return model
