"""What all cells of a study have in common: models, and the settings of loop, filters, training and answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from cai.data.filters.settings import FilterRules
from cai.evaluation.settings import EvaluationSettings
from cai.loop.settings import LoopSettings
from cai.models.embedded import EMBEDDED_NAME
from cai.models.spec import ModelSpec
from cai.store import fingerprint
from cai.training.settings import DPOSettings, SFTSettings
from constitution.loading import load_constitution

SUITE_SEED = 1000
"""Added to a seed for its held-out prompts: none of the demo's."""
DIVERGENCE_EVERY = 4
"""Every so many-th held-out prompt is also answered at temperature 1, to measure the distance from the start."""


class Setup(BaseModel):
    """Everything but the recipe. The defaults are loop, filters and training of the demo; supervised training has the learning
    rate and the epochs of its DPO.

    `plain` is the model before training, and drafts; `feedback` criticises, revises and labels. Rounds, and whether critiques
    are written, are not those of `loop` but the recipe's; so are `beta` and the seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plain: ModelSpec = ModelSpec(name=EMBEDDED_NAME)
    feedback: ModelSpec = ModelSpec(name=EMBEDDED_NAME, adapter="feedback")
    loop: LoopSettings = LoopSettings.model_validate(
        {
            "draft": {"temperature": 0.8, "top_p": 0.95, "max_tokens": 56},
            "critique": {"temperature": 0.0, "max_tokens": 64},
            "revision": {"temperature": 0.0, "max_tokens": 48},
        }
    )
    filters: FilterRules = FilterRules()
    sft: SFTSettings = SFTSettings(
        epochs=3, batch_rows=8, learning_rate=1e-3, max_length_tokens=256, tokens_per_forward=512, save_every_steps=0
    )
    dpo: DPOSettings = DPOSettings(
        epochs=3,
        batch_pairs=8,
        learning_rate=1e-3,
        nll_weight=1.0,
        anchor_weight=1.0,
        max_length_tokens=256,
        tokens_per_forward=512,
        save_every_steps=0,
    )
    answers: EvaluationSettings = EvaluationSettings(temperatures=(0.0,), max_tokens=40, showcase=())

    @property
    def fingerprint(self) -> str:
        """Hash of all of it, the models' weights and the shipped principles included; no weights are loaded."""
        from cai.models.loading import open_model

        content = {
            "plain": open_model(self.plain).fingerprint,
            "feedback": open_model(self.feedback).fingerprint,
            "principles": load_constitution(["shipped"]).fingerprint,
            "suite": SUITE_SEED,
        }
        for name in ("loop", "filters", "sft", "dpo", "answers"):
            content[name] = getattr(self, name).model_dump(mode="json")
        return fingerprint(content)
