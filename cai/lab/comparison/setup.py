"""What all methods have in common, and the settings of those that draw while they learn."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cai.lab.study.setup import Setup
from cai.rl.settings import RLSettings
from cai.store import fingerprint

UNTIL_THE_BUDGET_ENDS = 1_000_000
"""Steps: a course is ended by what it has cost."""


class ContestSetup(BaseModel):
    """The study's setup (models, loop, filters, SFT, DPO, answers: the demo's), and what is not in it.

    `best_of`: drafts to a prompt, of which the best is learned. `first_share`: of the budget, for what comes first in a
    method of two parts. All methods have one learning rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: Setup = Setup()
    best_of: Annotated[int, Field(ge=2, le=64)] = 4
    first_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    online_dpo: RLSettings = RLSettings(
        algorithm="online_dpo",
        steps=UNTIL_THE_BUDGET_ENDS,
        prompts_per_step=8,
        samples_per_prompt=2,
        max_tokens=56,
        beta=0.1,
        soft_labels=True,
        learning_rate=1e-3,
        warmup_steps=2,
        tokens_per_forward=512,
        save_every_steps=UNTIL_THE_BUDGET_ENDS,
        shown_samples=0,
    )
    rloo: RLSettings = RLSettings(
        algorithm="rloo",
        steps=UNTIL_THE_BUDGET_ENDS,
        prompts_per_step=8,
        samples_per_prompt=4,
        max_tokens=56,
        beta=0.1,
        learning_rate=1e-3,
        warmup_steps=2,
        tokens_per_forward=512,
        save_every_steps=UNTIL_THE_BUDGET_ENDS,
        shown_samples=0,
    )

    @property
    def fingerprint(self) -> str:
        """Hash of all of it, the models' weights and the shipped principles included; no weights are loaded."""
        content = self.model_dump(mode="json", exclude={"study"})
        return fingerprint({**content, "study": self.study.fingerprint})
