"""Settings of the training stages. Importing this module costs nothing: no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cai.data.rows import Rounds
from cai.training.loss_table import LOSS_SETTINGS, LOSSES, NOT_OFFERED, LossOptions, LossSetting, PreferenceLoss, misfits

Schedule: TypeAlias = Literal["constant", "linear", "cosine"]
Overlong: TypeAlias = Literal["drop", "refuse"]
LearnedTurns: TypeAlias = Literal["last", "all"]

LORA_LEARNING_RATE = 2e-4
"""Of QLoRA's supervised training of models to 13B (arXiv 2305.14314, table 9). Adapters bear and need about ten times the rate
of full training."""


class LoraSettings(BaseModel):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: Annotated[int, Field(ge=1, le=1024, description="Rank of the update of each weight matrix.")] = 16
    alpha: Annotated[float, Field(gt=0, description="The update is scaled by alpha / r.")] = 32
    target: Annotated[
        str | tuple[str, ...], Field(description='Modules to adapt: "all-linear" (all but the output head) or their names.')
    ] = "all-linear"


class MixSettings(BaseModel):
    """Rows of a file, mixed into supervised training at a stated share of what is learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[
        str,
        Field(
            min_length=1, description="Supervised rows, in any form that `cai sft --data` reads; a file, a folder or a hub id."
        ),
    ]
    share: Annotated[
        float,
        Field(gt=0, lt=1, description="Of all tokens learned in an epoch, since it is tokens that the loss weighs."),
    ]
    seed: Annotated[int, Field(ge=0, description="Which of its rows are drawn.")] = 0


class TrainingSettings(BaseModel):
    """What all kinds of training share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[
        float | None,
        Field(
            gt=0, le=1, description="Peak learning rate of AdamW; null: 2e-4 with LoRA, without it much less (see the stage)."
        ),
    ] = None
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
    optimizer: Annotated[
        str, Field(description="transformers' name for it: adamw_torch, adamw_torch_fused, adamw_8bit, adafactor, …")
    ] = "adamw_torch"
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
    keep_checkpoints: Annotated[
        bool,
        Field(
            description="Keep the weights of every checkpoint after training, without the optimizer's state, so that "
            "`cai eval RUN --checkpoints` shows the way there."
        ),
    ] = False
    logging_steps: Annotated[int, Field(ge=1, description="Steps averaged into one line of `metrics.jsonl`.")] = 1
    report_to: Annotated[
        tuple[str, ...], Field(description="Trackers that get each line too: tensorboard, wandb, mlflow, trackio, …")
    ] = ()
    holdout_share: Annotated[
        float,
        Field(
            ge=0,
            le=0.5,
            description="Share of the prompts that is not trained on but evaluated. A prompt's own text decides, so that it is "
            "on the same side in every stage and with every seed. 0: none; below 20 pairs the figures say little.",
        ),
    ] = 0.0
    eval_every_steps: Annotated[
        int, Field(ge=0, description="Steps between evaluations of the held-out rows; 0: after each epoch. Always at the end.")
    ] = 0
    patience: Annotated[
        int | None,
        Field(
            ge=1,
            description="Evaluations without a lower held-out loss after which training stops; the weights with the lowest are "
            "kept. null: all steps are made, and the last weights kept. Needs holdout_share.",
        ),
    ] = None

    full_learning_rate: ClassVar[float]
    """The peak learning rate of a training of all weights, where none is given."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is trained with."""
        if self.learning_rate is not None:
            return self.learning_rate
        return LORA_LEARNING_RATE if self.lora is not None else self.full_learning_rate

    @model_validator(mode="after")
    def _hold_out_to_stop_early(self) -> Self:
        if self.patience is not None and self.holdout_share == 0:
            raise ValueError("patience goes by the loss of held-out rows: set holdout_share, 0.1 for example")
        return self


class DPOSettings(TrainingSettings):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) and its kin, with a soft label for each pair."""

    full_learning_rate = 1e-6
    """TRL's default; between 5e-7 (Zephyr, arXiv 2310.16944; Tülu 3, 2411.15124) and what small models bear."""

    epochs: Annotated[int, Field(ge=1, description="Passes over the pairs.")] = 3
    batch_pairs: Annotated[int, Field(ge=1, description="Pairs in one optimizer step.")] = 8
    beta: Annotated[
        float,
        Field(
            gt=0,
            description="How dear it is to leave the reference model; larger stays nearer. Losses that divide by length "
            '("sigmoid_norm", "ipo_norm", "simpo") want one larger by about as many times as replies have tokens (2 to 10 for '
            '"simpo"); for "orpo" it is the weight of the odds ratio (with a nll_weight of 1 the paper\'s lambda, 0.1 there).',
        ),
    ] = 0.1
    loss: Annotated[
        PreferenceLoss,
        Field(
            description='"sigmoid" is DPO. Margins that end: "ipo", "ipo_norm", "hinge", "exo_pair". Swapped labels: "cdpo", '
            '"robust". Each reply against the reference: "apo_zero", "apo_down". Length: "rdpo", "ld_dpo", "sigmoid_norm". No '
            'reference, and no pass for it: "simpo", "orpo". The formulas are in `cai/training/losses.py`.'
        ),
    ] = "sigmoid"
    label_noise: Annotated[
        float | None,
        Field(ge=0, lt=0.5, description='Share of labels that are swapped, for "cdpo" and "robust" (their epsilon).'),
    ] = None
    length_penalty: Annotated[
        float | None, Field(ge=0, le=10, description='Reward that each token of a reply costs, for "rdpo" (its alpha).')
    ] = None
    tail_weight: Annotated[
        float | None,
        Field(ge=0, le=1, description='Weight of tokens beyond the shorter reply\'s length, for "ld_dpo" (its alpha).'),
    ] = None
    target_margin: Annotated[
        float | None, Field(ge=0, le=100, description='Margin of rewards that "simpo" asks for (its gamma).')
    ] = None
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

    @field_validator("loss", mode="before")
    @classmethod
    def _say_what_to_take_instead(cls, loss: object) -> object:
        if isinstance(loss, str) and loss in NOT_OFFERED:
            raise ValueError(NOT_OFFERED[loss])
        return loss

    @model_validator(mode="after")
    def _fit_the_loss(self) -> Self:
        given: dict[LossSetting, float | None] = {name: getattr(self, name) for name in LOSS_SETTINGS}
        if problems := misfits(self.loss, given, max_p_chosen=self.max_p_chosen, nll_weight=self.nll_weight):
            raise ValueError("; ".join(problems))
        return self

    @property
    def loss_options(self) -> LossOptions:
        """The numbers in the loss's formula."""
        return LossOptions(self.beta, **{name: getattr(self, name) for name in LOSSES[self.loss].takes})


class RewardSettings(TrainingSettings):
    """A reward model: Bradley and Terry's probability σ(reward of chosen − reward of rejected) that a reply is the better one.

    As in InstructGPT (arXiv 2203.02155, eq. 1), with the labeller's probability as target (RLAIF, 2309.00267, section 2.2.2);
    the loss is a mean over pairs, where InstructGPT's is one over prompts. With LoRA the head is trained in all its weights.
    """

    full_learning_rate = 1e-5
    """Of Llama 2's reward models (arXiv 2307.09288, section 3.2.2); InstructGPT's is 9e-6."""

    epochs: Annotated[int, Field(ge=1, description="Passes over the pairs; more than one soon learns them by heart.")] = 1
    batch_pairs: Annotated[int, Field(ge=1, description="Pairs in one optimizer step.")] = 16
    labels: Annotated[
        Literal["soft", "hard"],
        Field(
            description='"soft": the target is each pair\'s p_chosen; "hard": that the chosen reply is better, whatever it is.'
        ),
    ] = "soft"
    max_p_chosen: Annotated[float, Field(gt=0.5, le=1, description="Soft labels are taken as at most this sure.")] = 1.0
    margin: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="Rewards of a pair are to differ by this · (2·p_chosen − 1) more: the surer the label, the further "
            "(Llama 2, arXiv 2307.09288, eq. 2, whose margins go up to 1 or 3). 0: none.",
        ),
    ] = 0.0
    centre_weight: Annotated[
        float,
        Field(
            ge=0,
            description="Weight of (reward of chosen + reward of rejected)², which keeps rewards near 0 (Eisenstein et al., "
            "arXiv 2312.09244); 0: their level is left to chance.",
        ),
    ] = 0.01
    heads: Annotated[
        int,
        Field(ge=1, le=64, description="Heads on the one model, each a reward of its own; the reward is their mean."),
    ] = 1
    bootstrap: Annotated[
        bool,
        Field(
            description="With several heads: each weighs each pair by a Poisson draw of its own, as if it had been given a "
            "sample of the pairs. Without, heads differ by their first weights alone, and soon hardly at all."
        ),
    ] = True
    holdout_share: Annotated[
        float,
        Field(
            ge=0,
            le=0.5,
            description="Share of the prompts that is not trained on: accuracy and calibration are measured there. A prompt's "
            "own text decides, as in the other stages. 0: nothing is measured.",
        ),
    ] = 0.1

    @model_validator(mode="after")
    def _save_it_whole(self) -> Self:
        if self.lora is not None and not self.merge:
            raise ValueError(
                "merge: a reward model is saved whole, with its adapter merged in (the adapter alone lies beside it)"
            )
        return self


class SFTSettings(TrainingSettings):
    """Supervised fine-tuning: the negative log-likelihood of the replies, averaged over the tokens of a step."""

    full_learning_rate = 2e-5
    """Of Zephyr's supervised stage (arXiv 2310.16944, section 4.2), and TRL's default."""

    epochs: Annotated[int, Field(ge=1, description="Passes over the rows.")] = 1
    batch_rows: Annotated[
        int, Field(ge=1, description="Rows in one optimizer step, more or less: those with the same prompt come together.")
    ] = 16
    turns: Annotated[
        LearnedTurns,
        Field(description="Which turns of the assistant are learned: the `last` of a conversation, or `all`."),
    ] = "last"
    rounds: Annotated[
        Rounds,
        Field(
            description="Which replies of a run are learned: each item's `final` one, or the revisions of `all` rounds, as in "
            "the paper (arXiv 2212.08073, section 3)."
        ),
    ] = "final"
    mix: Annotated[
        tuple[MixSettings, ...],
        Field(
            description="Rows of your own to mix in, such as helpful answers: what is taught stays a part of what is learned."
        ),
    ] = ()

    @model_validator(mode="after")
    def _leave_room_for_own_rows(self) -> Self:
        if sum(each.share for each in self.mix) >= 1:
            raise ValueError("the shares in mix add up to 1 or more: nothing would be left for the rows themselves")
        return self
