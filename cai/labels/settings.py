"""Settings of the labels. Importing this module costs nothing: no torch."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cai.models.spec import ModelSpec
from cai.records import Method

CandidateKind: TypeAlias = Literal["draft_revision", "chain", "samples"]
LabelPrinciples: TypeAlias = Literal["used", "applicable"]
Ensemble: TypeAlias = Literal["mean", "weighted", "normalised"]


class HumanLabelSettings(BaseModel):
    """Pairs labelled by people, that the labeller is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[
        str,
        Field(
            min_length=1,
            description="A file of pairs: `chosen` and `rejected` with `prompt`, or both as whole conversations or hh-rlhf "
            "transcripts; `p_chosen` where people are not of one mind.",
        ),
    ]
    max_pairs: Annotated[int, Field(ge=1, description="Pairs to judge, drawn by the hash of their text.")] = 400
    principles: Annotated[
        Literal["applicable"] | tuple[str, ...],
        Field(description="Judge them by all principles that are `applicable` to a row's tags, or by these ids."),
    ] = "applicable"
    fit_share: Annotated[
        float,
        Field(gt=0.0, lt=1.0, description="Share of them that a temperature is fitted on; it is measured on the others."),
    ] = 0.5


class DebateSettings(BaseModel):
    """A debate before the letter: an advocate speaks for each answer, then the judge reads both (arXiv 1805.00899)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Annotated[
        int, Field(ge=0, le=4, description="Rebuttals: each side answers what was said for the other; 0: one statement each.")
    ] = 0
    argument_tokens: Annotated[int, Field(ge=1, le=2048, description="Longest statement, in tokens.")] = 64
    advocate: Annotated[
        Literal["judge", "policy"],
        Field(description="Who speaks for the answers: each labelling model itself, or the policy."),
    ] = "judge"


class LabelSettings(BaseModel):
    """How AI feedback decides which of two answers is better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Annotated[
        Method,
        Field(
            description="`pointwise`: each answer alone, log-odds that its critique finds nothing to change; no position bias. "
            "`letters`: both answers, P(A) against P(B), both orders. `yes_no`: each answer alone, P(Yes) against P(No) that "
            "it follows the principle. `contrast`: each answer alone, how much likelier the principle makes it; for models too "
            "small to answer questions."
        ),
    ] = "pointwise"
    principles: Annotated[
        LabelPrinciples | tuple[str, ...],
        Field(description="Judge by the principles `used` on the item, by all `applicable` ones, or by these ids."),
    ] = "used"
    candidates: Annotated[
        CandidateKind,
        Field(
            description="`draft_revision`: the draft against its last revision. `chain`: all pairs of draft and revisions. "
            "`samples`: all pairs of the drafts of one prompt (`loop.replicas: 2` or more)."
        ),
    ] = "draft_revision"
    models: Annotated[
        tuple[ModelSpec, ...],
        Field(description="Models that label, all of them every pair, their margins averaged; none: the feedback model."),
    ] = ()
    ensemble: Annotated[
        Ensemble,
        Field(
            description="Over principles: `mean` of the margins; `weighted` by the principles' weights; `normalised`: each "
            "principle and model counts alike, however large its margins are in general."
        ),
    ] = "mean"
    temperature: Annotated[
        float,
        Field(
            gt=0.0, le=1000.0, description="p_chosen is that of margin / temperature: fit it on labels by people, see the card."
        ),
    ] = 1.0
    min_margin_nats: Annotated[
        float,
        Field(
            ge=0.0,
            description="Below this difference in log-odds, of all models and principles together and before `temperature`, "
            "there is no pair: the judge does not know. Without any difference there never is.",
        ),
    ] = 0.1
    max_p_chosen: Annotated[
        float,
        Field(gt=0.5, le=1.0, description="Labels are never surer than this: judges that reason first are over-confident."),
    ] = 0.95
    max_mass_outside: Annotated[
        float,
        Field(
            ge=0.0,
            le=1.0,
            description="letters, yes_no: no pair when more of the probability than this goes to other words, in the mean "
            "over all models, principles and orders that compare it; of the two answers of yes_no the one with more counts.",
        ),
    ] = 0.5
    require_agreement: Annotated[
        bool,
        Field(
            description="letters: no pair when the two orders prefer different answers, each order by all principles and "
            "models together (as `ensemble` has it): one of these may contradict itself, or the others."
        ),
    ] = False
    reasoning_tokens: Annotated[
        int, Field(ge=0, description="letters: longest reasoning before the letter (chain of thought), in tokens; 0: none.")
    ] = 0
    debate: Annotated[
        DebateSettings | None,
        Field(description="letters: an advocate speaks for each answer, and the judge reads what both said; null: none."),
    ] = None
    max_p_reasoned: Annotated[
        float,
        Field(
            gt=0.5,
            le=1.0,
            description="letters after reasoning: each probability is held between 1 − this and this, as in the paper (0.6).",
        ),
    ] = 0.6
    ground_tokens: Annotated[
        int, Field(ge=0, description="pointwise: longest reasoning before the verdict, in tokens; 0: the verdict at once.")
    ] = 64
    contrast_against: Annotated[
        Literal["none", "opposite"],
        Field(description="contrast: the answer's probability without the principle, or when asked to go against it."),
    ] = "none"
    human: Annotated[
        HumanLabelSettings | None,
        Field(
            description="Pairs labelled by people: agreement, calibration and the fitted temperature are printed and stored."
        ),
    ] = None
    allow_weak_labels: Annotated[
        bool,
        Field(
            description="Write pairs also from a labeller that is not better than chance on the principles' own tests or "
            "against people, or that mostly names a place; the data set's card then says so."
        ),
    ] = False
    chunk_items: Annotated[int, Field(ge=1, description="Items judged together; bounds memory, changes no label.")] = 512

    @model_validator(mode="after")
    def _every_model_has_one_voice(self) -> LabelSettings:
        if len(set(self.models)) < len(self.models):
            raise ValueError("`models` names a model twice")
        return self

    @model_validator(mode="after")
    def _options_belong_to_their_method(self) -> LabelSettings:
        only = {
            "require_agreement": "letters",
            "reasoning_tokens": "letters",
            "debate": "letters",
            "max_p_reasoned": "letters",
            "contrast_against": "contrast",
        }
        for name, method in only.items():
            if self.method != method and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is an option of `method: {method}`; the method here is {self.method}")
        if self.reasoning_tokens and self.debate is not None and self.debate.advocate == "policy":
            raise ValueError("`reasoning_tokens` are the judge's own: with them, `debate.advocate` is `judge`")
        return self
