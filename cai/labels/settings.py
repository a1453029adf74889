"""Settings of the labels. Importing this module costs nothing: no torch."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cai.records import Method

Candidates: TypeAlias = Literal["draft_revision", "two_samples"]
LabelPrinciples: TypeAlias = Literal["used", "applicable"]


class LabelSettings(BaseModel):
    """How AI feedback decides which of two answers is better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Annotated[
        Method,
        Field(
            description="`pointwise`: each answer alone, log-odds that its critique finds nothing to change; no position bias. "
            "`letters`: both answers, P(A) against P(B), in both orders."
        ),
    ] = "pointwise"
    principles: Annotated[
        LabelPrinciples | tuple[str, ...],
        Field(description="Judge by the principles `used` on the item, by all `applicable` ones, or by these ids."),
    ] = "used"
    candidates: Annotated[
        Candidates,
        Field(description="The draft against its last revision, or two drafts of one prompt (`loop.replicas: 2`)."),
    ] = "draft_revision"
    min_margin_nats: Annotated[
        float, Field(ge=0.0, description="Below this difference in log-odds there is no pair: the judge does not know.")
    ] = 0.1
    max_p_chosen: Annotated[
        float,
        Field(gt=0.5, le=1.0, description="Labels are never surer than this: judges that reason first are over-confident."),
    ] = 0.95
    require_agreement: Annotated[bool, Field(description="letters: no pair when the two orders prefer different answers.")] = (
        False
    )
    ground_tokens: Annotated[int, Field(ge=1, description="pointwise: longest reasoning before the verdict, in tokens.")] = 64
    chunk_items: Annotated[int, Field(ge=1, description="Pairs judged together; bounds memory, changes no label.")] = 512
