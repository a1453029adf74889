"""What a run of `cai rl` tells when it is done. Importing this module costs nothing: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class DroppedPrompt(BaseModel):
    """A prompt that was left out, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uid: str
    reason: str


class RLResult(BaseModel):
    """How a run ended; also written to `training.json` in its folder.

    `first` and `last` are means of the rows of metrics over the first and last windows of steps (`rl.leash.window`); `kept`
    over those that end with the step whose weights were kept. The ledger balances: replies asked for =
    `replies` + `failed_draws`, and of the replies `failed_rewards` had no reward.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    folder: Path
    adapter: Path | None
    algorithm: str
    reward: str
    truth: str | None
    steps: int
    planned_steps: int
    kept_step: int
    stopped: str = ""
    """Why training ended before its last step; "" where it did not."""
    resumed_from_step: int
    prompts: int
    dropped: tuple[DroppedPrompt, ...]
    replies: int
    failed_draws: int
    failed_rewards: int
    failed_truths: int = 0
    """Replies that `truth` could not judge."""
    idle_steps: int
    """Steps in which nothing could be learned: no reward, or the same one for all replies to each prompt."""
    path: str
    dtype: str
    first: dict[str, float]
    last: dict[str, float]
    kept: dict[str, float]
    warnings: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For `training.json`: relative paths, so that the folder can be moved."""
        data = self.model_dump(mode="json")
        data["folder"] = "."
        data["adapter"] = None if self.adapter is None else self.adapter.name
        return data
