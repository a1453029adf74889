"""What training tells while it works and when it is done. Importing this module costs nothing: no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Phase: TypeAlias = Literal["reference", "train"]
RowKind: TypeAlias = Literal["pair", "anchor", "row", "mixed"]
DropReason: TypeAlias = Literal["overlong", "identical", "empty_reply", "unrenderable", "held_out"]


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
    round: int | None = None
    kind: RowKind
    reason: DropReason
    detail: str


class MixedRows(BaseModel):
    """What was drawn from a file to be mixed in.

    `rows` were drawn, held-out ones among them; with their `tokens` they are a `share`, in [0, 1], of all that is learned in an
    epoch. `exhausted`: every row of the file was drawn, and they were too few for the share that was asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    rows: int
    tokens: int
    share: float
    wanted_share: float
    exhausted: bool


class TrainingResult(BaseModel):
    """How a training run ended; also written to `training.json` in its folder.

    `folder` holds the trained model (loadable with `from_pretrained`), `adapter` the LoRA adapter alone (None after full
    training), `first_metrics` and `last_metrics` the first and last line of `metrics.jsonl`, named as TRL names them.
    The ledger balances: rows in = `trained_rows` + `anchors` + `held_out` + dropped; of a file that is mixed in (`mixed`) the
    rows drawn are the rows in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    folder: Path
    adapter: Path | None
    steps: int
    planned_steps: int = 0
    """More than `steps` where training stopped early."""
    kept_step: int = 0
    """After which the saved weights were taken: the last one, or the one with the lowest held-out loss."""
    resumed_from_step: int
    trained_rows: int
    anchors: int
    held_out: int = 0
    """Pairs (with their anchors) or rows that were evaluated and not trained on."""
    mixed: tuple[MixedRows, ...] = ()
    dropped: tuple[DroppedRow, ...]
    path: Literal["blocks", "flex", "mask", "padded"]
    """How sequences of a pass were kept apart: see `cai.training.attention`."""
    dtype: str
    reference_computed: int
    """Sequences whose reference log-probability had to be computed; the others came from the cache."""
    first_metrics: dict[str, float]
    last_metrics: dict[str, float]
    held_out_metrics: dict[str, float] = {}
    """Of the kept weights; {} where nothing was held out."""
    warnings: tuple[str, ...]
    seconds: float

    @property
    def ending(self) -> str:
        """Why training ended, and which weights were kept; "" where it made all steps and kept the last."""
        if self.kept_step in {0, self.planned_steps}:
            return ""
        why = (
            "made all steps" if self.steps == self.planned_steps else f"stopped after step {self.steps} of {self.planned_steps}"
        )
        return f"{why}: the held-out loss was lowest after step {self.kept_step}, whose weights were kept"

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
