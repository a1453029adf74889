"""Settings of the two training stages. Importing this module costs nothing: no torch."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Schedule: TypeAlias = Literal["constant", "linear", "cosine"]
Overlong: TypeAlias = Literal["drop", "refuse"]
PreferenceLoss: TypeAlias = Literal["sigmoid", "ipo"]


class LoraSettings(BaseModel):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: Annotated[int, Field(ge=1, le=1024, description="Rank of the update of each weight matrix.")] = 16
    alpha: Annotated[float, Field(gt=0, description="The update is scaled by alpha / r.")] = 32
    target: Annotated[
        str | tuple[str, ...], Field(description='Modules to adapt: "all-linear" (all but the output head) or their names.')
    ] = "all-linear"


class TrainingSettings(BaseModel):
    """What supervised and preference training share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float, Field(gt=0, le=1, description="Peak learning rate of AdamW.")]
    epochs: Annotated[int, Field(ge=1, description="Passes over the rows.")]
    max_length_tokens: Annotated[
        int, Field(ge=8, description="Longest prompt plus reply, in tokens. Nothing is ever cut: see `overlong`.")
    ] = 1024
    overlong: Annotated[
        Overlong, Field(description='Rows longer than that: "drop" leaves them out and counts them, "refuse" stops.')
    ] = "drop"
    lora: Annotated[LoraSettings | None, Field(description="Adapters to train; null trains every weight.")] = LoraSettings()
    merge: Annotated[
        bool, Field(description="With LoRA: also save the whole model with the adapter merged in, ready for `from_pretrained`.")
    ] = True
    warmup_share: Annotated[float, Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises.")] = 0.1
    schedule: Annotated[Schedule, Field(description="Course of the learning rate after the warm-up.")] = "linear"
    weight_decay: Annotated[float, Field(ge=0, le=1, description="AdamW's decoupled weight decay.")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, description="Gradients longer than this are scaled down to it.")] = 1.0
    seed: Annotated[int, Field(ge=0, description="Decides order of rows and the adapters' first weights.")] = 0
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Field(description='Precision of the forward pass; "auto" takes bfloat16 where the machine is faster with it.'),
    ] = "auto"
    tokens_per_forward: Annotated[
        int, Field(ge=1, description="Most tokens (padding included) in one forward pass: lower it when memory runs out.")
    ] = 2048
    gradient_checkpointing: Annotated[
        bool, Field(description="Recompute activations in the backward pass: less memory, about a third slower.")
    ] = False
    save_every_steps: Annotated[
        int, Field(ge=0, description="Steps between checkpoints that a killed run resumes from; 0: only at the end.")
    ] = 50
    logging_steps: Annotated[int, Field(ge=1, description="Steps averaged into one line of `metrics.jsonl`.")] = 1


class DPOSettings(TrainingSettings):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) with a soft label for each pair."""

    learning_rate: Annotated[float, Field(gt=0, le=1, description="Peak learning rate of AdamW.")] = 2e-4
    epochs: Annotated[int, Field(ge=1, description="Passes over the pairs.")] = 3
    batch_pairs: Annotated[int, Field(ge=1, description="Pairs in one optimizer step.")] = 8
    beta: Annotated[float, Field(gt=0, description="How dear it is to leave the reference model; larger stays nearer.")] = 0.1
    loss: Annotated[
        PreferenceLoss, Field(description='"sigmoid" is DPO; "ipo" (arXiv 2310.12036) does not drive margins to infinity.')
    ] = "sigmoid"
    nll_weight: Annotated[
        float,
        Field(
            ge=0,
            description="Weight of the negative log-likelihood per token of the chosen reply, which keeps it from falling "
            "together with the rejected one (Iterative RPO, arXiv 2404.19733, eq. 2).",
        ),
    ] = 0.1
    anchor_weight: Annotated[
        float,
        Field(ge=0, description="Weight of the negative log-likelihood per token of kept drafts: what was good stays."),
    ] = 0.1
    anchors_per_pair: Annotated[
        float, Field(ge=0, le=16, description="Kept drafts in one step, for each pair in it (when there are any).")
    ] = 0.5
    max_p_chosen: Annotated[
        float,
        Field(
            gt=0.5,
            le=1,
            description="Labels are taken as at most this sure; below 1 it bounds the margin (conservative DPO).",
        ),
    ] = 1.0
    reference_cache: Annotated[
        str | None, Field(description="Folder of the reference log-probabilities; null: inside the output folder.")
    ] = None


class SFTSettings(TrainingSettings):
    """Supervised fine-tuning: the negative log-likelihood of the replies, averaged over the tokens of a step."""

    learning_rate: Annotated[float, Field(gt=0, le=1, description="Peak learning rate of AdamW.")] = 2e-4
    epochs: Annotated[int, Field(ge=1, description="Passes over the rows.")] = 1
    batch_rows: Annotated[int, Field(ge=1, description="Rows in one optimizer step.")] = 16
