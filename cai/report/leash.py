"""What `cai rl` left beside a run, for the report: reward against truth against KL, and replies to be read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cai.report.charts import Curves, Plot, training_plots
from cai.rl.results import RLResult

FOLDER = "rl"
SHOWN_SAMPLES = 6

_CURVES: Curves = (
    ("reward", "what is optimised", ("reward",)),
    ("truth", "measured on the same replies, never optimised", ("truth",)),
    ("kl", "nats a reply, policy against reference", ("kl", "kl/k3")),
    ("entropy", "nats a token", ("entropy",)),
    ("length", "tokens of a reply", ("length",)),
    ("repetition", "shares: words in repeated phrases, replies said twice", ("repeated", "duplicates")),
    ("clip fraction", "share of tokens whose ratio was clipped", ("clip_fraction",)),
    ("loss", "what training minimises", ("loss",)),
)
_BY_DISTANCE: Curves = (
    ("reward by √KL", "in order of the distance from the reference", ("reward",)),
    ("truth by √KL", "over-optimised where it falls", ("truth",)),
)


@dataclass(frozen=True, slots=True)
class LeashView:
    """`result` is None while the run is not finished; `first` and `last` are replies of its first and its last steps."""

    result: RLResult | None
    metrics: tuple[dict[str, float], ...]
    first: tuple[dict[str, Any], ...]
    last: tuple[dict[str, Any], ...]


def leash_view(folder: Path, metrics: Sequence[dict[str, float]]) -> LeashView | None:
    """What lies in the folder of `cai rl`; None where it has made no step. `metrics` are the rows of its `metrics.jsonl`."""
    if not metrics:
        return None
    samples = _samples(folder / "samples.jsonl")
    return LeashView(_result(folder), tuple(metrics), tuple(samples[:SHOWN_SAMPLES]), tuple(samples[-SHOWN_SAMPLES:]))


def leash_plots(metrics: Sequence[Mapping[str, float]]) -> list[Plot]:
    """The curves over steps; what was not measured is left out."""
    return training_plots(metrics, _CURVES)


def distance_plots(metrics: Sequence[Mapping[str, float]]) -> list[Plot]:
    """Reward and truth over √KL, the axis of Gao et al. 2022 (arXiv 2210.10760, figure 1)."""
    measured = [{**line, "step": math.sqrt(max(0.0, line["kl"]))} for line in metrics if "kl" in line and "truth" in line]
    return training_plots(sorted(measured, key=lambda line: line["step"]), _BY_DISTANCE)


def _result(folder: Path) -> RLResult | None:
    try:
        data = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        adapter = folder / data["adapter"] if data["adapter"] else None
        return RLResult.model_validate({**data, "folder": folder, "adapter": adapter})
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def _samples(path: Path) -> list[dict[str, Any]]:
    """Whole lines; a torn one ends them."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    samples: list[dict[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line)
            kept = {name: row.get(name) for name in ("reward", "truth", "kl")}
            samples.append({"step": int(row["step"]), "prompt": str(row["prompt"]), "reply": str(row["reply"]), **kept})
        except (ValueError, KeyError, TypeError):
            break
    return samples
