"""Settings of the loop. Importing this module costs nothing: no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cai.engines.base import SamplingParams


class LoopSettings(BaseModel):
    """Draft → critique → revise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Annotated[
        int, Field(ge=1, le=16, description="Critique and revision so many times; each round draws its own principle.")
    ] = 1
    replicas: Annotated[
        int, Field(ge=1, le=64, description="Drafts per prompt, each with its own noise and its own rounds.")
    ] = 1
    critique_free: Annotated[
        bool, Field(description="Ask for the revision directly. Critiques help small models (arXiv 2212.08073, section 3.5).")
    ] = False
    draft: Annotated[SamplingParams, Field(description="Temperature 1: the policy's own answers, faults and all.")] = (
        SamplingParams()
    )
    critique: Annotated[SamplingParams, Field(description="Greedy: a critique should be the critic's best, not a sample.")] = (
        SamplingParams(temperature=0.0)
    )
    revision: Annotated[SamplingParams, Field(description="Greedy by default; above 0 gives more varied training data.")] = (
        SamplingParams(temperature=0.0)
    )
    chunk_items: Annotated[int, Field(ge=1, description="Items worked on together; bounds memory, and changes no text.")] = 512
