"""Principles and constitutions as data: frozen, unique, and known by what can reach a prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from constitution.loading import load_constitution
from constitution.schema import Constitution, Principle, PrincipleTest, json_schema

BASE = Principle(id="kind", principle="Be kind.")
CHANGES: dict[str, Any] = {
    "id": "kinder",
    "principle": "Be kinder.",
    "weight": 2.0,
    "applies_to": ("claims",),
    "critique_request": "Is it kind?",
    "revision_request": "Make it kind.",
    "preference_question": "Which is kinder?",
    "parameters": {"n": 1},
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_can_reach_a_prompt_or_a_draw_changes_the_fingerprint(field: str) -> None:
    assert BASE.model_copy(update={field: CHANGES[field]}).fingerprint != BASE.fingerprint


def test_prose_and_tests_do_not_change_the_fingerprint_so_editing_them_runs_nothing_again() -> None:
    test = PrincipleTest(prompt="Hi", better="Hello", worse="Go away")
    edited = BASE.model_copy(update={"rationale": "Because.", "tests": (test,)})
    assert edited.fingerprint == BASE.fingerprint


def test_a_constitution_s_fingerprint_follows_its_principles_and_not_its_name() -> None:
    other = Principle(id="brief", principle="Be brief.")
    assert Constitution(name="a", principles=(BASE,)).fingerprint == Constitution(name="b", principles=(BASE,)).fingerprint
    assert (
        Constitution(name="a", principles=(BASE,)).fingerprint != Constitution(name="a", principles=(BASE, other)).fingerprint
    )


def test_nothing_can_be_changed_or_added_and_ids_are_unique() -> None:
    with pytest.raises(ValidationError):
        BASE.weight = 3.0  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Principle.model_validate({"id": "kind", "principle": "Be kind.", "extra": 1})
    with pytest.raises(ValidationError, match="used twice: kind"):
        Constitution(name="a", principles=(BASE, BASE))


def test_selecting_keeps_the_constitution_s_own_order_and_refuses_unknown_ids() -> None:
    shipped = load_constitution(["shipped"])
    chosen = shipped.select(("honest-uncertainty", "correct-false-claims"))
    assert [p.id for p in chosen.principles] == ["correct-false-claims", "honest-uncertainty"]
    with pytest.raises(KeyError):
        shipped.select(("no-such",))


def test_the_json_schema_describes_every_key_of_a_file_and_asks_only_for_what_loading_asks() -> None:
    schema = json_schema()
    json.dumps(schema)
    principle = schema["$defs"]["Principle"]
    assert set(principle["properties"]) == set(Principle.model_fields)
    assert principle["required"] == ["id", "principle"]
    assert principle["additionalProperties"] is False
    assert schema["required"] == ["principles"]


def test_where_a_principle_was_imported_from_changes_no_fingerprint() -> None:
    plain = Principle(id="a", principle="Be kind.")
    taken = Principle(id="a", principle="Be kind.", source={"name": "A"})
    assert plain.fingerprint == taken.fingerprint


@pytest.mark.parametrize("source", [{"Key": "x"}, {"a": 1}, {"a": "x" * 40_001}])
def test_a_source_is_made_of_short_names_and_texts(source: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Principle(id="a", principle="Be kind.", source=source)
