"""Settings of online optimisation against a reward. Importing this module costs nothing: no torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cai.training.settings import LORA_LEARNING_RATE, LoraSettings, TrainingSettings

Algorithm: TypeAlias = Literal["ppo", "rloo", "grpo", "online_dpo"]
Average: TypeAlias = Literal["token", "reply", "sum"]
KLPlace: TypeAlias = Literal["reward", "loss"]

CONSTITUTION = "constitution"
LAB = "lab"
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A Python function as `module:function`."""

_KL_PLACES: dict[Algorithm, KLPlace] = {"ppo": "reward", "rloo": "reward", "grpo": "loss", "online_dpo": "loss"}
_AVERAGES: dict[Algorithm, Average] = {"ppo": "token", "rloo": "sum", "grpo": "token", "online_dpo": "reply"}


class LeashSettings(BaseModel):
    """When a run is stopped for its own good: the reward it is trained on is not the thing that is wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    window: Annotated[
        int,
        Field(
            ge=2,
            le=1000,
            description="Steps in each of two windows that are compared, the last one and one that lies 1, 2, 4, 8 … windows "
            "before it: training stops when from one to the other the reward rose while the truth (`rl.truth`) fell.",
        ),
    ] = 20
    sigmas: Annotated[
        float,
        Field(
            gt=0,
            le=10,
            description="Both must have moved by so many standard errors of the windows' difference; those further apart by "
            "more, so that false alarms at most double.",
        ),
    ] = 2.0
    stop: Annotated[bool, Field(description="False: the run goes on, and the report says where it should have stopped.")] = True
    max_kl_nats: Annotated[
        float | None, Field(gt=0, description="Stop when a step's replies are this far from the reference, on average.")
    ] = None


class RLSettings(BaseModel):
    """Online optimisation: the policy writes, a reward judges, the policy is moved, and KL to the reference is the leash."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    algorithm: Annotated[
        Algorithm,
        Field(
            description="`ppo`: value head and GAE (arXiv 1707.06347, 1506.02438). Without one: `rloo` (each reply against its "
            "siblings; arXiv 2402.14740), `grpo` (in standard deviations of its group; arXiv 2402.03300). `online_dpo`: two "
            "replies, the better one by the reward, DPO's loss (arXiv 2402.04792)."
        ),
    ] = "rloo"
    reward: Annotated[
        str,
        Field(
            min_length=1,
            description="What is optimised: `constitution` (log-odds, in nats, that the feedback model finds nothing to "
            "change), `lab` (the exact checker; needs the lab's prompts), `module:function` (a Python function, called as TRL "
            "calls its own), or the folder of a reward model.",
        ),
    ] = CONSTITUTION
    truth: Annotated[
        str | None,
        Field(
            description="A second reward, measured on the same replies and never trained on: `lab`, a held-out reward model, … "
            "Without one nothing can say that the reward is being gamed."
        ),
    ] = None
    start: Annotated[
        Literal["newest", "policy"],
        Field(description="Start from the `newest` model that the run has trained, or from its `policy` as it came."),
    ] = "newest"
    steps: Annotated[int, Field(ge=1, description="Batches of replies that are drawn and trained on.")] = 100
    prompts_per_step: Annotated[int, Field(ge=1, le=4096, description="Prompts in one batch.")] = 8
    samples_per_prompt: Annotated[int, Field(ge=1, le=256, description="Replies to each prompt.")] = 4
    max_tokens: Annotated[int, Field(ge=1, description="Longest reply, in tokens. Drawn from all tokens.")] = 64
    temperature: Annotated[
        float,
        Field(
            ge=0.05,
            le=5,
            description="Replies are drawn at it, and what is optimised is the policy at it: log-probabilities, KL "
            "and entropy are those of logits divided by it, of the reference too. Above 1: more varied replies to compare.",
        ),
    ] = 1.0
    cut_penalty: Annotated[float, Field(ge=0, description="Taken off the reward of a reply that had not ended by then.")] = 0.0
    beta: Annotated[
        float,
        Field(
            ge=0,
            description="What a nat of KL to the reference costs, in units of the reward; for `online_dpo` DPO's beta. Too "
            "small, and the reward is hacked.",
        ),
    ] = 0.05
    kl: Annotated[
        KLPlace | None,
        Field(
            description="Where it is paid: in the `reward` of each token (k1, as InstructGPT), or in the `loss` (k3, as GRPO). "
            "null: in the loss for `grpo`, else in the reward."
        ),
    ] = None
    learning_rate: Annotated[float | None, Field(gt=0, le=1, description="Of AdamW; null: 2e-4 with LoRA, 1e-6 without.")] = (
        None
    )
    warmup_steps: Annotated[int, Field(ge=0, description="Steps in which the learning rate rises from 0.")] = 5
    epochs: Annotated[int, Field(ge=1, le=64, description="Passes over each batch of replies.")] = 1
    minibatches: Annotated[int, Field(ge=1, le=256, description="Optimizer steps in each pass.")] = 1
    clip: Annotated[
        float, Field(gt=0, lt=1, description="PPO's epsilon: how far a token's probability may move for gain, as a ratio.")
    ] = 0.2
    average: Annotated[
        Average | None,
        Field(
            description="How tokens' losses are averaged: all `token`s alike, all replies alike (`reply`), or each reply by "
            "its length (`sum`). null: `sum` for `rloo`, else `token`."
        ),
    ] = None
    scale_groups: Annotated[bool, Field(description="grpo: divide by each group's standard deviation.")] = True
    whiten: Annotated[bool, Field(description="ppo: shift and scale a batch's advantages to mean 0, deviation 1.")] = True
    gamma: Annotated[float, Field(ge=0, le=1, description="ppo: discount of a token later.")] = 1.0
    lam: Annotated[float, Field(ge=0, le=1, description="ppo: GAE's lambda; 0 trusts the values, 1 the returns.")] = 0.95
    value_weight: Annotated[float, Field(ge=0, description="ppo: weight of the value head's loss.")] = 0.1
    value_clip: Annotated[
        float | None, Field(gt=0, description="ppo: how far a value may move in a step, in units of the reward; null: freely.")
    ] = None
    soft_labels: Annotated[
        bool,
        Field(description="online_dpo: p_chosen is the sigmoid of the rewards' difference (log-odds in nats), and not 1."),
    ] = False
    principles_per_reply: Annotated[
        int | None,
        Field(ge=1, description="constitution: so many of the principles that apply, drawn for each prompt; null: all."),
    ] = None
    reward_timeout_s: Annotated[
        float,
        Field(
            gt=0,
            le=86400,
            description="A function that has not answered by then is ended, and its replies count as failed.",
        ),
    ] = 60.0
    reward_limit: Annotated[
        float,
        Field(
            gt=0,
            le=1e100,
            description="A reward larger than this, either way, has exploded: training stops. A larger truth is none.",
        ),
    ] = 1e6
    reward_patience: Annotated[
        int, Field(ge=1, description="Steps in a row without a single usable reward after which training stops.")
    ] = 3
    leash: LeashSettings = LeashSettings()
    lora: Annotated[LoraSettings | None, Field(description="Adapters to train; null trains every weight.")] = LoraSettings()
    merge: Annotated[bool, Field(description="With LoRA: also save the whole model with the adapter merged in.")] = True
    weight_decay: Annotated[float, Field(ge=0, le=1, description="AdamW's decoupled weight decay.")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, description="Gradients longer than this are scaled down to it.")] = 1.0
    max_prompt_tokens: Annotated[int, Field(ge=8, description="Longer prompts are left out and counted.")] = 1024
    seed: Annotated[int, Field(ge=0, description="Decides order of prompts, sampling noise, the adapters' first weights.")] = 0
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], Field(description="Precision of the forward pass, in sampling and training.")
    ] = "auto"
    tokens_per_forward: Annotated[
        int, Field(ge=1, description="Most tokens in one forward pass of training: lower it when memory runs out.")
    ] = 2048
    gradient_checkpointing: Annotated[bool, Field(description="Less memory, about a third slower.")] = False
    save_every_steps: Annotated[int, Field(ge=1, description="Steps between checkpoints that a killed run resumes from.")] = 10
    shown_samples: Annotated[
        int, Field(ge=0, le=1000, description="Replies of each step that are kept in `samples.jsonl`, to be read.")
    ] = 4

    @property
    def kl_in(self) -> KLPlace:
        """Where KL is paid."""
        return self.kl or _KL_PLACES[self.algorithm]

    @property
    def averaged(self) -> Average:
        """How tokens' losses are averaged."""
        return self.average or _AVERAGES[self.algorithm]

    @property
    def training(self) -> TrainingSettings:
        """What loading and saving a policy needs to know."""
        return TrainingSettings(
            epochs=1,
            lora=self.lora,
            merge=self.merge,
            seed=self.seed,
            dtype=self.dtype,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is trained with."""
        return self.learning_rate or (LORA_LEARNING_RATE if self.lora is not None else 1e-6)

    @field_validator("reward", "truth")
    @classmethod
    def _no_surrounding_space(cls, name: str | None) -> str | None:
        return name.strip() if name else name

    @model_validator(mode="after")
    def _fit_the_algorithm(self) -> Self:
        problems: list[str] = []
        few = self.samples_per_prompt < 2
        if self.algorithm in {"rloo", "grpo"} and few:
            problems.append(f"{self.algorithm} compares replies to one prompt: samples_per_prompt must be 2 or more")
        if self.algorithm == "online_dpo":
            if self.samples_per_prompt != 2:
                problems.append("online_dpo compares two replies: set samples_per_prompt to 2")
            if self.beta == 0:
                problems.append("online_dpo needs a beta above 0")
            if self.kl == "reward":
                problems.append("online_dpo has its KL in the loss; leave `kl` out")
        only = {
            "ppo": ("whiten", "gamma", "lam", "value_weight", "value_clip"),
            "grpo": ("scale_groups",),
            "online_dpo": ("soft_labels",),
        }
        for algorithm, names in only.items():
            given = [n for n in names if self.algorithm != algorithm and getattr(self, n) != type(self).model_fields[n].default]
            problems += [f"`{name}` is an option of `{algorithm}`; the algorithm here is {self.algorithm}" for name in given]
        if self.truth is not None and self.truth == self.reward:
            problems.append("`truth` is the reward itself: it would never disagree")
        if self.minibatches > self.prompts_per_step:
            problems.append("more minibatches than prompts_per_step")
        if problems:
            raise ValueError("; ".join(problems))
        return self
