"""What training tells while it works and when it is done. Importing this module costs nothing: no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Phase: TypeAlias = Literal["reference", "train"]


@dataclass(frozen=True, slots=True)
class TrainingEvent:
    """One unit of work is done.

    Args:
        phase: "reference": log-probabilities under the reference model, counted in forward passes; "train": optimizer steps.
        step: Units done so far, those of an earlier, interrupted run included.
        total_steps: Units in all.
        loss: Of this step; None in the reference phase.
        tokens_per_second: Over this run so far, without what was resumed.
        eta_s: Seconds until the phase ends, at the pace so far; None before the first unit.
    """

    phase: Phase
    step: int
    total_steps: int
    loss: float | None
    tokens_per_second: float
    eta_s: float | None


OnEvent: TypeAlias = Callable[[TrainingEvent], None]


class DroppedRow(BaseModel):
    """A row that was not trained on, and the rule that left it out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uid: str
    replica: int
    kind: Literal["pair", "anchor", "row"]
    reason: Literal["overlong", "identical", "empty_reply", "unrenderable"]
    detail: str


class TrainingResult(BaseModel):
    """How a training run ended; also written to `training.json` in its folder.

    `folder` holds the trained model (loadable with `from_pretrained`), `adapter` the LoRA adapter alone (None after full
    training), `first_metrics` and `last_metrics` the first and last line of `metrics.jsonl`, named as TRL names them.
    The ledger balances: rows in = `trained_rows` + `anchors` + dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    folder: Path
    adapter: Path | None
    steps: int
    resumed_from_step: int
    trained_rows: int
    anchors: int
    dropped: tuple[DroppedRow, ...]
    layout: Literal["shared", "padded"]
    dtype: str
    reference_computed: int
    """Sequences whose reference log-probability had to be computed; the others came from the cache."""
    first_metrics: dict[str, float]
    last_metrics: dict[str, float]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def dropped_counts(self) -> dict[str, int]:
        """Dropped rows by reason."""
        counts: dict[str, int] = {}
        for row in self.dropped:
            counts[row.reason] = counts.get(row.reason, 0) + 1
        return counts

    def as_json(self) -> dict[str, Any]:
        """For `training.json`: relative paths, so that the folder can be moved."""
        data = self.model_dump(mode="json")
        data["folder"] = "."
        data["adapter"] = None if self.adapter is None else self.adapter.name
        return data
