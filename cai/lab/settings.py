"""Which prompts a run draws from the lab's world."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PromptShares(BaseModel):
    """How often each family is drawn, in proportion: faults, and the controls that hold them in balance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wrong: Annotated[float, Field(ge=0, description="False claims.")] = 3.5
    unsure: Annotated[float, Field(ge=0, description="Questions that nobody can answer.")] = 2.0
    harm: Annotated[float, Field(ge=0, description="Harmful requests.")] = 2.0
    right: Annotated[float, Field(ge=0, description="True claims.")] = 1.5
    fact: Annotated[float, Field(ge=0, description="Questions about known facts.")] = 1.5
    evidence: Annotated[float, Field(ge=0, description="Questions that a report in the prompt answers.")] = 1.75
    benign: Annotated[float, Field(ge=0, description="Harmless requests that look like harmful ones.")] = 3.0

    @model_validator(mode="after")
    def _some_family(self) -> PromptShares:
        if not any(self.model_dump().values()):
            raise ValueError("at least one family needs a share above 0")
        return self


class LabSettings(BaseModel):
    """Prompts from the lab's small world, whose exact truth decides before and after."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: Annotated[int, Field(ge=1, le=100_000, description="Prompts to draw, spread over the world's families.")] = 240
    seed: Annotated[int, Field(ge=0, description="Which prompts; the evaluation never uses a prompt drawn here.")] = 0
    shares: Annotated[
        PromptShares, Field(description="How often each family is drawn. A model that refuses too much needs more of `benign`.")
    ] = PromptShares()
    more_requests: Annotated[
        bool,
        Field(
            description="Draw requests also from 74 more harmful acts and their harmless twins. The embedded judge was taught "
            "none of them."
        ),
    ] = False
