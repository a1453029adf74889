"""A run's YAML file, environment and flags → one checked `RunConfig`; every problem at once, each with its place.

A file is read as principle files are (`constitution.documents`): each value keeps its line and column, and a duplicate key is
an error instead of a silent win of the last one.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from cai.config.origins import Path as KeyPath
from cai.config.origins import Values, put_environment, put_flags
from cai.config.settings import RunConfig
from cai.errors import ConfigError, ProblemList
from constitution.documents import Document, read_document

Section = TypeVar("Section", bound=BaseModel)


@dataclass(frozen=True)
class ReadConfig:
    config: RunConfig
    origins: Mapping[KeyPath, str]
    """Leaf → `file:line:column`, `environment NAME` or `--set key`; what is missing here is a default."""


def read_config(path: Path | None, flags: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> ReadConfig:
    """Read and check a run configuration; precedence is default < file < environment < flag.

    Relative paths inside the file are relative to the working directory, as in a shell.

    Args:
        path: The YAML file, or None for defaults, environment and flags alone.
        flags: `section.key=value` texts.
        environment: Variables to look at; the process's own when None.

    Raises:
        ProblemList: With every problem found.
    """
    values = Values()
    places: dict[KeyPath, str] = {}
    problems: list[ConfigError] = []
    unreadable = False
    if path is not None:
        problems.extend(_put_file(values, places, path))
        unreadable = bool(problems) and not values.tree
    sections = frozenset(RunConfig.model_fields)
    problems.extend(put_environment(values, os.environ if environment is None else environment, sections))
    problems.extend(put_flags(values, flags))
    config: RunConfig | None = None
    if not unreadable:
        try:
            config = RunConfig.model_validate(values.tree)
            problems.extend(_misread_booleans(config, values))
        except ValidationError as error:
            problems.extend(_explain(error, places | values.origins))
    if problems or config is None:
        raise ProblemList(f"the configuration{f' {path}' if path else ''} cannot be used:", problems)
    return ReadConfig(config, values.origins)


def changed_config(tree: Mapping[str, Any], flags: Sequence[str]) -> RunConfig:
    """A configuration that is known as values, with some of them set otherwise.

    Raises:
        ProblemList: With every problem found.
    """
    values = Values(tree=copy.deepcopy(dict(tree)))
    problems = put_flags(values, flags)
    if not problems:
        try:
            return RunConfig.model_validate(values.tree)
        except ValidationError as error:
            problems = _explain(error, values.origins)
    raise ProblemList("this configuration cannot be used:", problems)


def read_section(kind: type[Section], section: str, flags: Sequence[str]) -> Section:
    """One section alone, for commands that need no run: `--set beta=0.2` and `--set dpo.beta=0.2` mean the same.

    Args:
        kind: The section's model.
        section: Its name; with dots where it is part of another (`loop.gate`).
        flags: `key=value` texts.

    Raises:
        ProblemList: With every problem found.
    """
    values = Values()
    place = tuple(section.split("."))
    problems = put_flags(values, [flag if flag.startswith(f"{section}.") else f"{section}.{flag}" for flag in flags])
    if not problems:
        try:
            return kind.model_validate(_at(values.tree, place) if flags else {})
        except ValidationError as error:
            problems = _explain(error, values.origins, place)
    raise ProblemList(f"these settings of `{section}` cannot be used:", problems)


def _put_file(values: Values, places: dict[KeyPath, str], path: Path) -> list[ConfigError]:
    """Put a file's values, and note the places of its sections; what is wrong with the file's form is returned."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return [ConfigError(f"{path}: there is no such file", "`cai init FOLDER` writes one to start from")]
    except (OSError, UnicodeDecodeError) as error:
        return [ConfigError(f"{path}: cannot be read ({error})", "it has to be a UTF-8 text file")]
    document = read_document(text)
    problems = [ConfigError(f"{path}:{each.line}:{each.column}: {each.problem}", each.hint) for each in document.problems]
    content: object = document.value
    if isinstance(content, dict):
        _put_mapping(values, places, document, path, cast("dict[str, object]", content), ())
    elif content is not None:
        problems.append(ConfigError(f"{path}:1:1: a configuration is made of `key: value` lines"))
    return problems


def _put_mapping(
    values: Values,
    places: dict[KeyPath, str],
    document: Document,
    path: Path,
    content: Mapping[str, object],
    prefix: KeyPath,
) -> None:
    for key, value in content.items():
        here: KeyPath = (*prefix, key)
        if here in document.unreadable:
            continue
        place = document.place(here)
        places[here] = f"{path}:{place.line}:{place.column}"
        if isinstance(value, dict) and value:
            _put_mapping(values, places, document, path, cast("dict[str, object]", value), here)
        else:
            values.put(here, cast("object", value), places[here])


def _misread_booleans(config: RunConfig, values: Values) -> list[ConfigError]:
    """YAML reads yes, no, on and off as booleans, and pydantic takes those for the numbers 1 and 0."""
    used = config.model_dump(mode="json")
    return [
        ConfigError(f"{origin}: `{'.'.join(path)}` is read as {_at(values.tree, path)}", "write a number")
        for path, origin in values.origins.items()
        if isinstance(_at(values.tree, path), bool) and not isinstance(_at(used, path), bool)
    ]


def _at(tree: Any, path: KeyPath) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _explain(error: ValidationError, places: Mapping[KeyPath, str], prefix: KeyPath = ()) -> list[ConfigError]:
    """One problem for each place; a value that could have been of several types is told all of them together."""
    found: dict[KeyPath, tuple[str, list[str], str]] = {}
    for detail in error.errors(include_url=False):
        # pydantic goes on after a key with the types it tried, such as `tuple[str, ...]`.
        path = (*prefix, *itertools.takewhile(lambda part: "[" not in part, (str(part) for part in detail["loc"])))
        name = f"`{'.'.join(path)}`"
        if detail["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path[-1], _keys_at(path[:-1]), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"keys here: {', '.join(_keys_at(path[:-1]))}"
            found[path] = f"unknown key {name}", [], hint
            continue
        message = _in_words(detail["msg"])
        if not path:
            found[path] = message, [], ""
        elif detail["type"] == "missing":
            found[path] = f"{name} is missing", [], ""
        elif isinstance(detail["input"], dict):
            found[path] = f"{name}: {message}", [], ""
        elif path in found:
            found[path][1].append(message)
        else:
            found[path] = f"{name}: {message}", [], f"it is {detail['input']!r} now"
    return [
        ConfigError(f"{_origin(path, places)}{'; or '.join([problem, *others])}", hint)
        for path, (problem, others, hint) in found.items()
    ]


def _in_words(message: str) -> str:
    message = message.removeprefix("Value error, ").replace("Input should be", "it should be").replace("valid tuple", "list")
    return re.sub(r"a valid dictionary or instance of \w+", "a section of `key: value` lines", message)


def _origin(path: KeyPath, places: Mapping[KeyPath, str]) -> str:
    """The place of a value, of the first value below it, or of the nearest section above it, and a colon; "" if none."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return f"{places[path[:length]]}: "
        for known, place in places.items():
            if known[:length] == path[:length]:
                return f"{place}: "
    return ""


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that the section at `path` knows."""
    model: type[BaseModel] = RunConfig
    for part in path:
        field = model.model_fields.get(part)
        below = _section_of(field.annotation) if field else None
        if below is None:
            return []
        model = below
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The settings model in an annotation such as `DPOSettings` or `DPOSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section_of(argument)
        if found is not None:
            return found
    return None
