"""A principle's texts as another format needs them: rendered, with a request where there is none, as they were given."""

from __future__ import annotations

from collections.abc import Set

from constitution.importing.gathering import AS_GIVEN, NAME
from constitution.rendering import principle_text
from constitution.schema import Constitution, Principle
from constitution.templating import render_text

FORMAT = "format"
"""The key of a constitution's `source` that names the format it was imported from."""


def given(principle: Principle, field: str) -> str | None:
    """One of the principle's texts, parameters filled in, with the outer space that an import remembered; None when unset."""
    text: str | None = getattr(principle, field)
    if text is None:
        return None
    rendered = render_text(text, principle.parameters)
    remembered = principle.source.get(field + AS_GIVEN, "")
    return remembered if remembered.strip() == rendered else rendered


def critique_of(principle: Principle) -> str:
    """The critique request, as it has to read where no rule is shown beside it."""
    return given(principle, "critique_request") or f"Does the last reply follow this rule? {principle_text(principle)}"


def revision_of(principle: Principle) -> str:
    """The revision request, likewise."""
    return (
        given(principle, "revision_request")
        or f"Rewrite the last reply so that it follows this rule: {principle_text(principle)}"
    )


def name_of(principle: Principle) -> str:
    """The name it had before it was imported, else its id."""
    return principle.source.get(NAME) or principle.id


def is_from(constitution: Constitution, format_name: str) -> bool:
    """Whether what stands under `source` was put there by this format."""
    return constitution.source.get(FORMAT) == format_name


def extras_of(
    constitution: Constitution, principle: Principle, format_name: str, own: Set[str] = frozenset()
) -> dict[str, str]:
    """Keys that an import from this very format kept because it does not name them."""
    if not is_from(constitution, format_name):
        return {}
    return {
        key: text for key, text in principle.source.items() if key != NAME and not key.endswith(AS_GIVEN) and key not in own
    }
