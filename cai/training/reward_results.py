"""What a reward training tells when it is done: how it went, and what the model is worth. Importing it costs nothing."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cai.models.fingerprints import write_atomically
from cai.training.results import TrainingResult
from cai.training.reward_quality import RewardQuality

QUALITY = "reward-quality.json"
REWARD = "reward"
"""Name of the section in a run's configuration, and of the folder in the run."""


class RewardResult(BaseModel):
    """A finished training; `quality` is that on held-out pairs, None where none were held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingResult
    quality: RewardQuality | None


def kept_quality(result: TrainingResult) -> RewardQuality | None:
    """What was measured of the model of this very training; None if nothing was, or of another one."""
    return read_quality(result.folder, result.fingerprint)


def read_quality(folder: Path, fingerprint: str | None = None) -> RewardQuality | None:
    """The quality that lies beside a finished model; None without one, or if it is that of another training.

    Args:
        folder: Of the model.
        fingerprint: Of its training; None: as `training.json` has it.
    """
    try:
        if fingerprint is None:
            fingerprint = json.loads((folder / "training.json").read_text(encoding="utf-8"))["fingerprint"]
        kept = json.loads((folder / QUALITY).read_text(encoding="utf-8"))
        if kept["training"] != fingerprint:
            return None
        return RewardQuality.model_validate(kept["quality"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def keep_quality(result: TrainingResult, quality: RewardQuality) -> None:
    """Write it beside the model, under the fingerprint of its training."""
    kept = {"training": result.fingerprint, "quality": quality.model_dump(mode="json")}
    write_atomically(result.folder / QUALITY, json.dumps(kept, indent=1) + "\n")
