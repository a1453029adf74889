"""LangChain's constitutional principles: a list of `{name, critique_request, revision_request}`, in JSON or YAML, or the calls
`ConstitutionalPrinciple(…)` of a Python file, which is parsed and never run.
"""

from __future__ import annotations

import ast

from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.importing.exporting import critique_of, extras_of, name_of, revision_of
from constitution.importing.findings import Fate
from constitution.importing.gathering import NAME as OWN_NAME
from constitution.importing.gathering import Gathering
from constitution.importing.paper_critiques import NO_RULE
from constitution.importing.sources import Kind, Source
from constitution.schema import Constitution

NAME = "langchain"
_CLASS = "ConstitutionalPrinciple"
_REQUESTS = ("critique_request", "revision_request")
_KEYS = frozenset({"name", *_REQUESTS})


def recognise(source: Source) -> bool:
    if source.kind is Kind.PYTHON:
        return _CLASS in source.text
    return any("critique_request" in entry and "revision_request" in entry for entry in source.objects)


def read(gathering: Gathering) -> None:
    gathering.remarks.append(NO_RULE)
    if gathering.source.kind is Kind.PYTHON:
        _read_python(gathering)
        return
    for path, entry in gathering.objects((), gathering.source.data):
        critique, revision = (gathering.text(path, entry, key) for key in _REQUESTS)
        name = gathering.text(path, entry, "name") if "name" in entry else None
        if critique is not None and revision is not None and (name is not None or "name" not in entry):
            about = {} if name else {OWN_NAME: ""}
            gathering.add(path, name=name, **_fields(critique, revision), source=about | gathering.extras(path, entry, _KEYS))


def write(constitution: Constitution) -> object:
    return [
        {
            **({} if principle.source.get(OWN_NAME) == "" else {"name": name_of(principle)}),
            "critique_request": critique_of(principle),
            "revision_request": revision_of(principle),
            **extras_of(constitution, principle, NAME),
        }
        for principle in constitution.principles
    ]


def _fields(critique: str, revision: str) -> dict[str, str]:
    return {"words": critique, "principle": revision, "critique_request": critique, "revision_request": revision}


def _read_python(gathering: Gathering) -> None:
    """Principles in a Python file: the calls with their texts written out."""
    original: list[dict[str, str]] = []
    for call in _calls(gathering.source):
        gathering.entries += 1
        line, column = call.lineno, call.col_offset + 1
        entry = {each.arg: _text(each.value) for each in call.keywords if each.arg in _KEYS}
        unread = [key for key in ("name", *_REQUESTS) if key in entry and not entry[key]]
        unread += [key for key in _REQUESTS if key not in entry]
        if unread or len(entry) < len(call.keywords) or call.args:
            told = ", ".join(f"`{key}`" for key in unread) or "its arguments"
            gathering.lose_at(line, column, f"{told}: only texts written out, each behind its name, can be read", Fate.ENTRY)
            continue
        texts = {key: text for key, text in entry.items() if text is not None}
        about = {} if "name" in texts else {OWN_NAME: ""}
        fields = _fields(*(texts[key] for key in _REQUESTS))
        if gathering.add_at(line, column, name=texts.get("name"), source=about, **fields):
            original.append(texts)
    gathering.original = original


def _calls(source: Source) -> list[ast.Call]:
    try:
        tree = ast.parse(source.text)
    except SyntaxError as error:
        raise _unreadable(source, error.lineno or 1, error.offset or 1, f"not valid Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError):
        raise _unreadable(source, 1, 1, "not valid Python, or nested too deeply") from None
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    found = [call for call in calls if isinstance(call.func, ast.Name | ast.Attribute) and _called(call.func) == _CLASS]
    return sorted(found, key=lambda call: (call.lineno, call.col_offset))


def _called(function: ast.Name | ast.Attribute) -> str:
    return function.id if isinstance(function, ast.Name) else function.attr


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _unreadable(source: Source, line: int, column: int, problem: str) -> ConstitutionError:
    return ConstitutionError(
        [PrincipleFileError(str(source.path), line, column, problem, "mend it, or write the list as JSON")]
    )
