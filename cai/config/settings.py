"""A run's configuration: the stages' own settings, composed. Importing it loads no model library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cai.config.tracking import TrackingSettings
from cai.data.filters.settings import FilterRules
from cai.data.front_matter import LANGUAGE, LICENCE
from cai.data.prompts import PromptsSource
from cai.engines.opening import SchedulerName
from cai.evaluation.settings import EvaluationSettings
from cai.lab.settings import LabSettings
from cai.labels.settings import LabelSettings
from cai.loop.settings import LoopSettings
from cai.models.spec import ModelSpec
from cai.review.settings import ReviewSettings
from cai.rl.settings import RLSettings
from cai.training.settings import DPOSettings, RewardSettings, SFTSettings
from constitution.nearest import nearest


class EngineSettings(BaseModel):
    """How the local engine batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch: Annotated[
        int | None,
        Field(
            ge=1,
            le=4096,
            description="Rows decoded together; null: by the device. Out of memory halves it and goes on. On a server: "
            "requests in flight at most; null: 64.",
        ),
    ] = None
    batch_tokens: Annotated[
        int | None, Field(ge=16, description="Most prompt tokens in one forward pass; null: by the device.")
    ] = None
    exact: Annotated[
        bool | None,
        Field(
            description="An answer does not depend, even in a near-tie, on what else is asked: a re-run after an edit equals a "
            "fresh one. Needs `dtype: float32`, whose rounding is small enough. null: there, texts, and scores to 1e-4 nats, "
            "which share what their prompts have in common; true: scores to the last bit as well, each computed alone."
        ),
    ] = None
    scheduler: Annotated[
        SchedulerName,
        Field(
            description="`slots`: each conversation keeps its keys and values between turns. `paged`: transformers' continuous "
            "batching, for GPUs. `auto`: paged where there is a GPU that can run the model so."
        ),
    ] = "auto"


class RunConfig(BaseModel):
    """Everything that determines a run. Same config, same prompts, same models, same files: same result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Annotated[Path, Field(description="Folder of the run: made when missing, resumed when there.")] = Path("runs/run")
    seed: Annotated[int, Field(ge=0, description="Draws principles and sampling noise.")] = 0
    constitution: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="Principle files and folders; `shipped` or `shipped:NAME` for those that come along."),
    ] = ("shipped",)
    principles: Annotated[tuple[str, ...], Field(description="Ids of the principles to use; none means all of them.")] = ()
    policy: Annotated[ModelSpec, Field(description="The model that drafts and is trained.")]
    feedback: Annotated[
        ModelSpec | None, Field(description="The model that critiques, revises and labels; null: the policy.")
    ] = None
    engine: EngineSettings = EngineSettings()
    prompts: Annotated[PromptsSource | None, Field(description="Your prompts. Give either this or `lab`.")] = None
    lab: Annotated[LabSettings | None, Field(description="Prompts from the lab's world. Give either this or `prompts`.")] = None
    holdout_share: Annotated[
        float, Field(ge=0.0, le=0.5, description="Share of `prompts` kept out of training, for before and after.")
    ] = 0.1
    loop: LoopSettings = LoopSettings()
    labels: LabelSettings = LabelSettings()
    filters: FilterRules = FilterRules()
    review: ReviewSettings = ReviewSettings()
    sft: Annotated[SFTSettings | None, Field(description="Supervised fine-tuning on the revisions before DPO; null: none.")] = (
        None
    )
    dpo: Annotated[DPOSettings | None, Field(description="Preference training; null: none.")] = DPOSettings()
    rl: Annotated[RLSettings, Field(description="Online optimisation against a reward, for `cai rl`.")] = RLSettings()
    reward: Annotated[
        RewardSettings | None, Field(description="A reward model of the pairs, which `cai reward` trains; null: none.")
    ] = None
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()
    export_format: Annotated[Literal["jsonl", "parquet", "both"], Field(description="Files of the data sets.")] = "jsonl"
    export_rows_per_file: Annotated[
        int | None,
        Field(ge=1, description="Most rows of a file; more go to `sft-00001-of-00003.jsonl` …; null: one file."),
    ] = None
    export_licence: Annotated[
        str | None,
        Field(
            pattern=LICENCE,
            description="Licence of the data sets, as the hub names it (`apache-2.0`, `cc-by-4.0`, `other`); null: the "
            "card says that nobody has said.",
        ),
    ] = None
    export_languages: Annotated[
        tuple[Annotated[str, Field(pattern=LANGUAGE)], ...],
        Field(description="Languages of the data sets, as ISO 639 codes (`en`), for the card."),
    ] = ()

    @property
    def feedback_or_policy(self) -> ModelSpec:
        return self.feedback or self.policy

    @property
    def labellers(self) -> tuple[ModelSpec, ...]:
        """The models that label."""
        return self.labels.models or (self.feedback_or_policy,)

    @property
    def models(self) -> dict[str, ModelSpec]:
        """Role → model."""
        named = {f"labeller {number}": spec for number, spec in enumerate(self.labels.models, start=1)}
        return {"policy": self.policy, "feedback": self.feedback_or_policy, **named}

    @model_validator(mode="after")
    def _one_source_of_prompts(self) -> RunConfig:
        if (self.prompts is None) == (self.lab is None):
            raise ValueError("give exactly one of `prompts` and `lab`")
        return self

    @model_validator(mode="after")
    def _detectors_look(self) -> RunConfig:
        switches = [name for name, each in FilterRules.model_fields.items() if isinstance(each.default, bool | str)]
        for name in self.review.detectors:
            if name not in switches:
                near = nearest(name, switches)
                told = f"; did you mean {near!r}?" if near else f"; there are {', '.join(switches)}"
                raise ValueError(f"`review.detectors`: no rule {name!r} in `filters`{told}")
            if self.filters.action(name) == "off":
                raise ValueError(f"`review.detectors`: the rule {name!r} is off; write `filters.{name}: flag`")
        return self

    @model_validator(mode="after")
    def _samples_are_drawn(self) -> RunConfig:
        if self.labels.candidates == "samples" and self.loop.replicas < 2:
            raise ValueError("`labels.candidates: samples` needs `loop.replicas: 2` or more")
        return self
