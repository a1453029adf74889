"""A run's YAML file, environment and flags → one checked `RunConfig`; every problem at once, each with its place.

A file's values are read through PyYAML's node tree, so that each keeps its line and column and a duplicate key is an error
instead of a silent win of the last one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cai.config.origins import Path as KeyPath
from cai.config.origins import Values, put_environment, put_flags
from cai.config.settings import RunConfig
from cai.errors import ConfigError, ProblemList

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
    problems: list[ConfigError] = []
    if path is not None:
        problems.extend(_put_file(values, path))
    sections = frozenset(RunConfig.model_fields)
    problems.extend(put_environment(values, os.environ if environment is None else environment, sections))
    problems.extend(put_flags(values, flags))
    config: RunConfig | None = None
    if not problems:
        try:
            config = RunConfig.model_validate(values.tree)
        except ValidationError as error:
            problems.extend(_explain(error, values.origins))
    if problems or config is None:
        raise ProblemList(f"the configuration{f' {path}' if path else ''} cannot be used:", problems)
    return ReadConfig(config, values.origins)


def read_section(kind: type[Section], section: str, flags: Sequence[str]) -> Section:
    """One section alone, for commands that need no run: `--set beta=0.2` and `--set dpo.beta=0.2` mean the same.

    Raises:
        ProblemList: With every problem found.
    """
    values = Values()
    problems = put_flags(values, [flag if flag.startswith(f"{section}.") else f"{section}.{flag}" for flag in flags])
    if not problems:
        try:
            return kind.model_validate(values.tree.get(section, {}))
        except ValidationError as error:
            problems = _explain(error, values.origins, (section,))
    raise ProblemList(f"these settings of `{section}` cannot be used:", problems)


def _put_file(values: Values, path: Path) -> list[ConfigError]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return [ConfigError(f"{path}: there is no such file", "`cai init FOLDER` writes one to start from")]
    except (OSError, UnicodeDecodeError) as error:
        return [ConfigError(f"{path}: cannot be read ({error})", "it has to be a UTF-8 text file")]
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        return [ConfigError(f"{place}: not valid YAML: {error.problem}", "mind indentation and quotes")]
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        return [ConfigError(f"{path}:1:1: a configuration is a list of `key: value` lines")]
    return _put_mapping(values, root, (), path)


def _put_mapping(values: Values, node: yaml.MappingNode, prefix: KeyPath, path: Path) -> list[ConfigError]:
    problems: list[ConfigError] = []
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        place = f"{path}:{line}:{column}"
        if key in seen:
            problems.append(ConfigError(f"{place}: `{key}` is given twice (first on line {seen[key]})", "delete one"))
            continue
        seen[key] = line
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            problems.extend(_put_mapping(values, value_node, (*prefix, key), path))
            continue
        try:
            values.put((*prefix, key), _plain(value_node), place)
        except yaml.YAMLError as error:
            problems.append(ConfigError(f"{place}: `{key}` cannot be read ({error})"))
    return problems


def _plain(node: yaml.Node) -> Any:
    """A node's value as plain Python data, by the safe constructor."""
    constructor: Any = yaml.SafeLoader("")  # types-PyYAML leaves its methods untyped
    try:
        return constructor.construct_document(node)
    finally:
        constructor.dispose()


def _explain(error: ValidationError, origins: Mapping[KeyPath, str], prefix: KeyPath = ()) -> list[ConfigError]:
    problems: list[ConfigError] = []
    for detail in error.errors(include_url=False):
        path = (*prefix, *(str(part) for part in detail["loc"]))
        name = ".".join(path) or "configuration"
        place = _origin(path, origins)
        if detail["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path[-1], _keys_at(path[:-1]), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"keys here: {', '.join(_keys_at(path[:-1]))}"
            problems.append(ConfigError(f"{place}: unknown key `{name}`", hint))
            continue
        given = "" if detail["type"] == "missing" or isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
        message = detail["msg"].removeprefix("Value error, ")
        problems.append(ConfigError(f"{place}: `{name}`: {message}{given}"))
    return problems


def _origin(path: KeyPath, origins: Mapping[KeyPath, str]) -> str:
    """The origin of a value, of the first value below it, or of the nearest section above it."""
    for length in range(len(path), 0, -1):
        for known, origin in origins.items():
            if known[:length] == path[:length]:
                return origin
    return "configuration"


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
