"""Calls against the JSON Schemas of their tools: each verdict is that of `jsonschema`, and nothing hangs or is fetched."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import validator_for

from cai.tool_calls import LARGEST_ARGUMENTS, argument_problems, checked_reply, tool_problems
from constitution.messages import Tool, ToolCall


def tool(schema: dict[str, Any], name: str = "f") -> Tool:
    return Tool(name=name, parameters=json.dumps(schema))


SCHEMA = {
    "type": "object",
    "properties": {"to": {"type": "string", "pattern": "^[a-z]+$"}, "n": {"type": "integer", "minimum": 1}},
    "required": ["to"],
    "additionalProperties": False,
}
ANY: Any = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from(["", "ann", "Ann", "é"])
    | st.lists(st.integers(), max_size=2)
)


@settings(max_examples=60)
@given(arguments=st.dictionaries(st.sampled_from(["to", "n", "x"]), ANY, max_size=3))
def test_arguments_fit_exactly_when_jsonschema_says_so(arguments: dict[str, Any]) -> None:
    problems = argument_problems(ToolCall(name="f", arguments=json.dumps(arguments)), tool(SCHEMA))
    assert (not problems) == jsonschema.Draft202012Validator(SCHEMA).is_valid(arguments)


SLOW, LONG = "^(a|a|aa)+$", "a" * 60 + "!"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
DOUBLING = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {"type": "string"}}


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({"properties": {"x": {"type": "string", "pattern": SLOW}}}, {"x": LONG}),
        ({"properties": {"x": {"items": {"pattern": SLOW}}}}, {"x": [LONG] * 100}),
        ({"patternProperties": {SLOW: {}}}, {LONG: 1}),
        ({"patternProperties": {SLOW: {}}, "additionalProperties": False}, {LONG: 1}),
        ({"patternProperties": {SLOW: {}}, "unevaluatedProperties": False}, {LONG: 1}),
        ({"propertyNames": {"pattern": SLOW}}, {LONG: 1}),
        ({"properties": {"x": {"$schema": DIALECT, "pattern": SLOW}}}, {"x": LONG}),
        ({"$schema": DIALECT, "properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"pattern": SLOW}}}, {"x": LONG}),
        ({"properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": DOUBLING}, {"x": 1}),
    ],
)
def test_a_schema_that_takes_for_ever_is_a_problem_and_no_hang(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Story: one pattern was bounded, and the same pattern hung as that of a property's name, or below a `$schema`."""
    began = time.process_time()
    assert argument_problems(ToolCall(name="f", arguments=json.dumps(arguments)), tool({"type": "object"} | schema))
    assert time.process_time() - began < 3


def test_many_objects_are_told_apart_in_one_pass() -> None:
    began = time.process_time()
    unique = tool({"type": "object", "properties": {"x": {"uniqueItems": True}}})
    assert not argument_problems(ToolCall(name="f", arguments=json.dumps({"x": [{"n": n} for n in range(5000)]})), unique)
    assert time.process_time() - began < 2


PATTERNED: list[dict[str, Any]] = [
    {"patternProperties": {"^t": {"type": "string"}}},
    {"patternProperties": {"^t": {}, "o$": {"minLength": 1}}, "additionalProperties": False},
    {"properties": {"n": {}}, "patternProperties": {"x": {"uniqueItems": True}}, "additionalProperties": {"type": "integer"}},
    {"additionalProperties": {"enum": [1, None]}},
    {"additionalProperties": True},
    {"properties": {"x": {"uniqueItems": True}}, "unevaluatedProperties": False},
    {"$schema": "http://json-schema.org/draft-04/schema#", "patternProperties": {"n|x": {"type": "array"}}},
]


@settings(max_examples=150)
@given(
    schema=st.sampled_from(PATTERNED),
    arguments=st.dictionaries(
        st.sampled_from(["to", "n", "x"]),
        ANY | st.lists(st.sampled_from([1, 1.0, True, 0, False, "a", [], {}, {"a": 1}, {"a": True}]), max_size=3),
        max_size=3,
    ),
)
def test_keywords_of_our_own_say_what_jsonschema_says(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    problems = argument_problems(ToolCall(name="f", arguments=json.dumps(arguments)), tool(schema))
    assert (not problems) == validator_for(schema, default=jsonschema.Draft202012Validator)(schema).is_valid(arguments)


def test_a_schema_is_never_fetched_and_never_endless() -> None:
    away = tool({"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema.json"}}})
    assert "refers to what is not in it" in argument_problems(ToolCall(name="f", arguments='{"x": 1}'), away)[0]
    endless = tool({"$ref": "#"})
    assert argument_problems(ToolCall(name="f"), endless) == ["the arguments, or the schema, are nested too deeply"]
    long = ToolCall(name="f", arguments=json.dumps({"to": "a" * LARGEST_ARGUMENTS}))
    assert "characters of arguments" in argument_problems(long, tool(SCHEMA))[0]


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ([tool(SCHEMA), tool(SCHEMA)], "defined twice"),
        ([tool({"type": "objekt"})], "no JSON Schema"),
        ([tool({"type": "string"})], "of type object"),
        ([tool({"type": "object", "properties": {"x": {"minimum": "1"}}})], "no JSON Schema"),
        ([tool({"type": "object", "properties": {"x": {"pattern": "(["}}})], "is not a 'regex'"),
        ([tool({"$schema": 3})], "no JSON Schema"),
        ([tool({"allOf": [{"$ref": "#/$defs/a"}], "unevaluatedProperties": False})], "say `additionalProperties`"),
    ],
)
def test_tools_that_cannot_be_offered_are_told(tools: list[Tool], words: str) -> None:
    assert words in " ".join(tool_problems(tools))


def test_a_pattern_of_ecmascript_is_one() -> None:
    letters = tool({"type": "object", "properties": {"x": {"pattern": r"^\p{L}+$"}}})
    assert list(tool_problems([letters])) == []
    assert not argument_problems(ToolCall(name="f", arguments='{"x": "é"}'), letters)
    assert argument_problems(ToolCall(name="f", arguments='{"x": "1"}'), letters)


def test_a_number_that_python_cannot_compare_is_a_problem() -> None:
    fine = tool({"type": "object", "properties": {"x": {"multipleOf": 0.1}}})
    assert argument_problems(ToolCall(name="f", arguments=json.dumps({"x": 10**400})), fine)


def test_a_reply_of_too_many_calls_is_not_read() -> None:
    reply = '<tool_call>{"name": "f", "arguments": {"to": "a"}}</tool_call>'
    assert not checked_reply(reply * 64, [tool(SCHEMA)]).problem
    assert "65 calls" in checked_reply(reply * 65, [tool(SCHEMA)]).problem
