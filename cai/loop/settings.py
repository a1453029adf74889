"""Settings of the loop. Importing this module costs nothing: no torch."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cai.engines.base import SamplingParams

OnReject: TypeAlias = Literal["keep", "retry"]


class GateSettings(BaseModel):
    """When a revision is turned down: it made the text worse under a principle that the gate asks.

    Each check judges the text before and after by the log-odds that its critique finds nothing to change (`cai.verdicts`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    own: Annotated[bool, Field(description="Ask the principle that the revision was made for.")] = True
    earlier: Annotated[
        bool, Field(description="Ask the principles of the item's earlier rounds: a later one must not undo them.")
    ] = True
    helpfulness: Annotated[
        str | None,
        Field(
            description="Id of the principle that speaks for helpfulness, lest a refusal replace a good reply; asked where it "
            "applies. null: none."
        ),
    ] = "help-harmless-requests"
    harm: Annotated[
        str | None, Field(description="Id of the principle that speaks against harm; asked where it applies. null: none.")
    ] = "no-help-with-wrongdoing"
    tolerance_nats: Annotated[
        float,
        Field(
            ge=0.0, le=100.0, description="A text is worse when its log-odds are lower by more than this; below it is noise."
        ),
    ] = 1.0
    on_reject: Annotated[
        OnReject, Field(description="`keep` the text before the revision, or `retry`: draw the revision again, then keep.")
    ] = "keep"
    retries: Annotated[int, Field(ge=1, le=8, description="With `retry`: draws after the first.")] = 2
    retry_temperature: Annotated[
        float, Field(gt=0.0, le=5.0, description="Of a retry when the revision is greedy, which would only say the same again.")
    ] = 0.7
    ground_tokens: Annotated[
        int, Field(ge=1, description="Longest reasoning before a verdict; as in `labels`, which then asks nothing twice.")
    ] = 64

    @model_validator(mode="after")
    def _something_is_asked(self) -> GateSettings:
        if not (self.own or self.earlier or self.helpfulness or self.harm):
            raise ValueError("the gate asks nothing: set one of `own`, `earlier`, `helpfulness`, `harm`, or `gate: null`")
        return self


class LoopSettings(BaseModel):
    """Draft → critique → revise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Annotated[
        int, Field(ge=1, le=16, description="Critique and revision so many times; each round draws its own principle.")
    ] = 1
    repeat_principles: Annotated[
        bool,
        Field(
            description="Rounds draw independently (arXiv 2212.08073). false: no principle twice for an item, whose rounds end "
            "when each that applies had its turn."
        ),
    ] = True
    replicas: Annotated[
        int, Field(ge=1, le=64, description="Drafts per prompt, each with its own noise and its own rounds.")
    ] = 1
    critique_free: Annotated[
        bool, Field(description="Ask for the revision directly. Critiques help small models (arXiv 2212.08073, section 3.5).")
    ] = False
    draft: Annotated[SamplingParams, Field(description="Temperature 1: the policy's own answers, faults and all.")] = (
        SamplingParams()
    )
    trim_cut_drafts: Annotated[
        bool,
        Field(
            description="End a draft that was cut at its token limit with its last whole sentence; it then counts as whole. "
            "Without it such a draft is filtered (`cut_short`) unless it is revised."
        ),
    ] = False
    critique: Annotated[SamplingParams, Field(description="Greedy: a critique should be the critic's best, not a sample.")] = (
        SamplingParams(temperature=0.0)
    )
    revision: Annotated[SamplingParams, Field(description="Greedy by default; above 0 gives more varied training data.")] = (
        SamplingParams(temperature=0.0)
    )
    gate: Annotated[
        GateSettings | None, Field(description="Judge each revision against the text before it; null: every revision counts.")
    ] = None
    chunk_items: Annotated[int, Field(ge=1, description="Items in work at a time; bounds memory, and changes no text.")] = 512
