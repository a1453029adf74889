"""JSON Schemas of strangers, and arguments of models against them, by `jsonschema`: in bounded time, and nothing is fetched.

A schema can ask for work without end: a pattern that backtracks, references that double at each level. What takes too long is a
problem like another. Time is that of this thread's processor, so that a busy machine changes no verdict.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias, cast

import regex

PATTERN_SECONDS = 0.25
"""Of one pattern on one text."""
CHECK_SECONDS = 1.0
"""Of all that is done for the arguments of one call."""
_SHOWN = 160
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_UNEVALUATED = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_UNBOUNDED_BESIDE = frozenset({"patternProperties", *_REFERENCES})
"""Where `jsonschema` sees by itself what was evaluated, it looks at these without asking us how long."""
_deadline: ContextVar[float] = ContextVar("deadline")

Json: TypeAlias = dict[str, Any]
Keyword: TypeAlias = Callable[[Any, Any, Any, Any], Iterator[Any] | None]
"""What a keyword says of a value: (validator, the keyword's value, the value, the schema around it) → errors."""


def schema_problem(schema: Json) -> str:
    """What keeps a schema from being used; "" for nothing."""
    from jsonschema.exceptions import SchemaError

    try:
        _class_of(schema).check_schema(schema, format_checker=_format_checker())
        keys = set(_keys(schema))
    except SchemaError as error:
        return f"no JSON Schema: {error.json_path}: {error.message}"[:_SHOWN]
    except RecursionError:
        return "nested too deeply"
    found = sorted(keys & _UNEVALUATED)
    if found and keys & _UNBOUNDED_BESIDE:
        beside = " and ".join(f"`{each}`" for each in sorted(keys & _UNBOUNDED_BESIDE))
        return f"`{found[0]}` beside {beside} cannot be checked in bounded time: say `additionalProperties`, or do without"
    return ""


def argument_faults(arguments: Json, schema: str) -> list[str]:
    """How arguments break a schema, given as text, with the place of each fault."""
    from jsonschema.exceptions import ValidationError
    from referencing.exceptions import Unresolvable

    token = _deadline.set(time.thread_time() + CHECK_SECONDS)
    try:
        validator = _validator(schema)
        if isinstance(validator, str):
            return [f"the schema: {validator}"]
        errors = cast("list[ValidationError]", list(validator.iter_errors(arguments)))
    except RecursionError:
        return ["the arguments, or the schema, are nested too deeply"]
    except TimeoutError:
        return ["to check the arguments against the schema takes too long"]
    except Unresolvable as error:
        return [f"the schema refers to what is not in it: {error}"[:_SHOWN]]
    except ArithmeticError as error:
        return [f"a number that cannot be compared: {error}"[:_SHOWN]]
    finally:
        _deadline.reset(token)
    return [f"{error.json_path}: {error.message}"[:_SHOWN] for error in sorted(errors, key=lambda each: each.json_path)]


@lru_cache(maxsize=512)
def _validator(text: str) -> Any:
    """The validator of a schema, or why there is none."""
    referencing: Any = import_module("referencing")  # by name: its types are half there
    schema: Json = json.loads(text)
    if problem := schema_problem(schema):
        return problem
    return _bounded(_class_of(schema))(_of_one_dialect(schema), registry=referencing.Registry())  # an empty registry


@lru_cache(maxsize=16)
def _bounded(of: Any) -> Any:
    """A validator's class whose work is bounded."""
    validators: Any = import_module("jsonschema.validators")
    stock = cast("dict[str, Keyword]", of.VALIDATORS)
    own = {name: bounded for name, bounded in _OWN.items() if name in stock}
    own |= {name: _timed(stock[name]) for name in _REFERENCES if name in stock}
    return validators.extend(of, own)


def _class_of(schema: Json) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for

    named = isinstance(schema.get("$schema"), str)
    return validator_for(schema, default=Draft202012Validator) if named else Draft202012Validator


def _of_one_dialect(value: Any) -> Any:
    """A schema that names no dialect: for a part that names its own, `jsonschema` would take a class without bounds."""
    if isinstance(value, list):
        return [_of_one_dialect(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        pairs = cast("Json", value).items()
        return {key: _of_one_dialect(each) for key, each in pairs if key != "$schema" or not isinstance(each, str)}
    return value


def _keys(value: Any) -> Iterator[str]:
    """Of all objects in it."""
    if isinstance(value, dict):
        for key, each in cast("Json", value).items():
            yield key
            yield from _keys(each)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _keys(each)


@lru_cache(maxsize=1)
def _format_checker() -> Any:
    """Of schemas: a pattern is one of the library that will search for it, which knows more of ECMAScript's."""
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    checker.checks("regex", raises=regex.error)(_is_pattern)
    return checker


def _is_pattern(value: object) -> bool:
    return not isinstance(value, str) or bool(regex.compile(value))


def _seconds_left() -> float:
    left = _deadline.get() - time.thread_time()
    if left <= 0:
        raise TimeoutError
    return left


def _fits(pattern: str, text: str) -> bool:
    return regex.search(pattern, text, timeout=min(PATTERN_SECONDS, _seconds_left())) is not None


def _timed(stock: Keyword) -> Keyword:
    def keyword(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _seconds_left()
        yield from stock(validator, value, instance, schema) or ()

    return keyword


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if validator.is_type(instance, "string") and not _fits(pattern, instance):
        yield ValidationError(f"{instance[:60]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Json, instance: Any, _: Any) -> Iterator[Any]:
    if validator.is_type(instance, "object"):
        for pattern, schema in patterns.items():
            for key in (key for key in instance if _fits(pattern, key)):
                yield from validator.descend(instance[key], schema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Json) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = [key for key in instance if key not in known and not any(_fits(each, key) for each in patterns)]
    if validator.is_type(allowed, "object"):
        for key in extras:
            yield from validator.descend(instance[key], allowed, path=key)
    elif not allowed and extras:
        named = ", ".join(map(repr, sorted(extras)))
        were = "was" if len(extras) == 1 else "were"
        yield ValidationError(f"Additional properties are not allowed ({named} {were} unexpected)")


def _unique_items(validator: Any, unique: Any, instance: Any, _: Any) -> Iterator[Any]:
    """In one pass: `jsonschema` compares objects each with each."""
    from jsonschema.exceptions import ValidationError

    if unique and validator.is_type(instance, "array") and len(set(map(_as_key, instance))) < len(instance):
        yield ValidationError(f"{repr(instance)[:60]} has non-unique elements")


def _as_key(value: Any) -> Any:
    """Equal where JSON's values are: 1 is 1.0, and true is not 1."""
    if isinstance(value, list):
        return "array", tuple(map(_as_key, cast("list[Any]", value)))
    if isinstance(value, dict):
        return "object", frozenset((key, _as_key(each)) for key, each in cast("Json", value).items())
    return isinstance(value, bool), value


_OWN: dict[str, Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
