"""Settings of the review. Importing this module costs nothing: no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ReviewSettings(BaseModel):
    """What people look at, and what may not be learned before they have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    required: Annotated[
        bool,
        Field(
            description="Rows of high impact (`tags`, `detectors`) enter no training set and no export before a person has "
            "judged them in `cai review`."
        ),
    ] = False
    tags: Annotated[tuple[str, ...], Field(description="Prompts with one of these tags are of high impact.")] = ()
    detectors: Annotated[
        tuple[str, ...],
        Field(
            description="Rules of `filters`: a row in which one of them finds something is of high impact, as is its prompt."
        ),
    ] = ()
    random_pairs: Annotated[
        int,
        Field(ge=0, description="Pairs drawn at random for review, whatever they are: what label quality is estimated from."),
    ] = 200
    double_share: Annotated[
        float, Field(ge=0.0, le=1.0, description="Share of what is reviewed that two people judge, independently.")
    ] = 0.2
    max_p_chosen: Annotated[
        float,
        Field(gt=0.5, le=1.0, description="Labels by people are never surer than this, also where all of them agree."),
    ] = 0.95

    @model_validator(mode="after")
    def _high_impact_is_named(self) -> ReviewSettings:
        if self.required and not (self.tags or self.detectors):
            raise ValueError("`required` without `tags` or `detectors`: say which rows are of high impact")
        return self
