"""What a principle and a constitution are.

Pure data, frozen and checked; no files (see `loading`), no templates (see `templating`), no models.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_TEXT_CHARS = 4000
MAX_PROSE_CHARS = 40_000

Text: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS)]
Prose: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_PROSE_CHARS)]
Slug: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
ParameterName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$", max_length=40)]
Source: TypeAlias = dict[ParameterName, Annotated[str, StringConstraints(max_length=MAX_PROSE_CHARS)]]
"""Where an imported text comes from, and what its own format says besides; verbatim, so that it can be written back."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PrincipleTest(_Frozen):
    """A unit test of a principle: under it, `better` should be preferred to `worse`."""

    prompt: Text = Field(description="What the user says.")
    better: Text = Field(description="A reply that follows the principle.")
    worse: Text = Field(description="A reply that does not.")


class Demonstration(_Frozen):
    """A worked example, shown to the model as earlier turns."""

    prompt: Text
    draft: Text
    critique: Text
    revision: Text | None = Field(default=None, description="Left out when the critique finds nothing to change.")


class Principle(_Frozen):
    """One rule. The texts may use jinja2 with the principle's own `parameters`."""

    id: Slug = Field(description="Lower-case words joined by hyphens; unique in a constitution.")
    principle: Text = Field(description="The rule, in one or two sentences.")
    rationale: Prose = Field(default="", description="Why: prose for people, never put into a prompt.")
    weight: Annotated[float, Field(gt=0.0, le=1000.0, allow_inf_nan=False)] = Field(
        default=1.0, description="Relative chance to be drawn in a round."
    )
    applies_to: tuple[Slug, ...] = Field(
        default=(),
        description="Tags of the items it applies to; none means every item. Items without tags get every principle.",
    )
    critique_request: Text | None = Field(
        default=None, description="Asks for the critique; a good default is used when left out."
    )
    revision_request: Text | None = Field(
        default=None, description="Asks for the revision; a good default is used when left out."
    )
    preference_question: Text | None = Field(
        default=None, description="Asks which of two replies is better; there is a default."
    )
    parameters: dict[ParameterName, Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)] | int | float] = Field(
        default_factory=dict[str, str | int | float], description="Values for {{ names }} in this principle's own texts."
    )
    demonstrations: tuple[Demonstration, ...] = ()
    tests: tuple[PrincipleTest, ...] = ()
    source: Source = Field(default_factory=Source, description="Set by `cai import`: what the other format says besides.")

    @property
    def fingerprint(self) -> str:
        """Hash of all that can reach a prompt or a draw; prose and tests are left out, so editing them re-runs nothing."""
        return _digest(self.model_dump(mode="json", exclude={"rationale", "tests", "source"}))


class Constitution(_Frozen):
    """An ordered set of principles with unique ids."""

    name: Text
    description: Prose = ""
    source: Source = Field(default_factory=Source, description="Set by `cai import`: which file and format it comes from.")
    principles: Annotated[tuple[Principle, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Constitution:
        counts = Counter(principle.id for principle in self.principles)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"principle ids are used twice: {', '.join(twice)}")
        return self

    @property
    def fingerprint(self) -> str:
        return _digest([principle.fingerprint for principle in self.principles])

    @property
    def ids(self) -> tuple[str, ...]:
        """The principles' ids, in order."""
        return tuple(principle.id for principle in self.principles)

    def by_id(self, principle_id: str) -> Principle:
        """The principle of that id.

        Raises:
            KeyError: If there is none.
        """
        for principle in self.principles:
            if principle.id == principle_id:
                return principle
        raise KeyError(principle_id)

    def select(self, principle_ids: tuple[str, ...]) -> Constitution:
        """The same constitution with only these principles, in its own order.

        Raises:
            KeyError: If one of the ids is unknown.
        """
        for principle_id in principle_ids:
            self.by_id(principle_id)
        return self.model_copy(update={"principles": tuple(p for p in self.principles if p.id in principle_ids)})


def json_schema() -> dict[str, Any]:
    """JSON Schema of a YAML principle file, for editors that complete and check while one types."""
    schema = Constitution.model_json_schema()
    schema["required"] = ["principles"]  # a file without a name is called by its file name
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Principle file"}


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
