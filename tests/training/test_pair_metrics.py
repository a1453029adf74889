"""What the objective makes of a pass with pairs: its part of the loss, and sums of metrics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from training_runs import DPO, make_pairs, metrics_of, spec_of

from cai.training.dpo import train_dpo
from cai.training.objectives import PreferenceObjective, StepSize
from cai.training.packing import TokenGroup
from cai.training.rows import Pair, PreferenceRow
from cai.training.settings import DPOSettings

CHOSEN, REJECTED = [-12.0, -7.0, -30.0], [-20.0, -6.5, -28.0]
REFERENCE = [(-14.0, -18.0), (-8.0, -6.0), (-25.0, -29.0)]
TOKENS = [(5, 8), (4, 3), (16, 10)]
LABELS = [0.9, 0.6, 0.75]
STEP = StepSize(pairs=7, replies=0, reply_tokens=0)


def rows_of(*, openings: bool = False, with_reference: bool = True) -> list[PreferenceRow]:
    """With `openings`, as much of each log-probability lies in the first tokens as their share of all."""
    rows: list[PreferenceRow] = []
    for at, (label, lengths) in enumerate(zip(LABELS, TOKENS, strict=True)):
        shorter = min(lengths)
        replies = tuple(tuple(range(10 * side, 10 * side + length)) for side, length in enumerate(lengths, 1))
        group = TokenGroup((1,), replies, beginnings=((0, shorter), (1, shorter)) if openings else ())
        reference = [*REFERENCE[at]]
        if openings:
            reference += [logp * shorter / length for logp, length in zip(reference, lengths, strict=True)]
        rows.append(PreferenceRow(group, (Pair(f"pair-{at}", 0, 0, 1, label),), tuple(reference) if with_reference else ()))
    return rows


def means(settings: dict[str, Any], *, with_reference: bool = True) -> tuple[float, dict[str, float]]:
    openings = settings.get("loss") == "ld_dpo"
    rows = rows_of(openings=openings, with_reference=with_reference)
    logps: list[float] = []
    for at, lengths in enumerate(TOKENS):
        both = [CHOSEN[at], REJECTED[at]]
        logps += both
        logps += [logp * min(lengths) / length for logp, length in zip(both, lengths, strict=True)] if openings else []
    objective = PreferenceObjective(DPOSettings.model_validate(settings))
    tokens = [length for row in rows for length in row.group.sequence_lengths]
    loss, sums = objective(rows, torch.tensor(logps, dtype=torch.float64), torch.tensor(tokens), STEP)
    assert set(sums) <= set(objective.metric_names)
    assert {count for _, count in sums.values()} == {len(rows)}
    return loss.item(), {name: value.item() / count for name, (value, count) in sums.items()}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_dpo_with_all_its_metrics() -> None:
    beta = 0.2
    loss, found = means({"beta": beta, "nll_weight": 0.5})
    rises = [a - ref[0] for a, ref in zip(CHOSEN, REFERENCE, strict=True)]  # 2, 1, −5
    falls = [b - ref[1] for b, ref in zip(REJECTED, REFERENCE, strict=True)]  # −2, −0.5, 1
    margins = [beta * (a - b) for a, b in zip(rises, falls, strict=True)]  # 0.8, 0.3, −1.2
    losses = [p * math.log1p(math.exp(-m)) + (1 - p) * math.log1p(math.exp(m)) for p, m in zip(LABELS, margins, strict=True)]
    nll = [-a / n for a, (n, _) in zip(CHOSEN, TOKENS, strict=True)]
    longer = [a - b for a, b in TOKENS]
    wanted = {
        "rewards/chosen": beta * mean(rises),
        "rewards/rejected": beta * mean(falls),
        "rewards/margins": mean(margins),
        "rewards/accuracies": 2 / 3,
        "logps/chosen": mean(CHOSEN),
        "logps/rejected": mean(REJECTED),
        "loss/preference": mean(losses),
        "nll/chosen": mean(nll),
        "logps_per_token/chosen": -mean(nll),
        "logps_per_token/rejected": mean([b / n for b, (_, n) in zip(REJECTED, TOKENS, strict=True)]),
        "length/chosen": mean([a for a, _ in TOKENS]),
        "length/rejected": mean([b for _, b in TOKENS]),
        "drift/chosen": mean([a / n for a, (n, _) in zip(rises, TOKENS, strict=True)]),
        "drift/rejected": mean([b / n for b, (_, n) in zip(falls, TOKENS, strict=True)]),
        # σ(0.8) = 0.69 < 0.9; σ(0.3) = 0.574 < 0.6; σ(−1.2) < 0.75
        "satisfied": 0.0,
        "length_margin/product": mean([d * m for d, m in zip(longer, margins, strict=True)]),
        "length_margin/length_squared": mean([float(d * d) for d in longer]),
        "length_margin/margin_squared": mean([m * m for m in margins]),
    }
    assert found == pytest.approx(wanted, abs=1e-12)
    assert loss == pytest.approx((sum(losses) + 0.5 * sum(nll)) / STEP.pairs)


def test_pairs_that_reached_their_label_are_satisfied() -> None:
    """With β = 0.3 the second pair has σ(0.45) = 0.61 ≥ 0.6."""
    assert means({"beta": 0.3})[1]["satisfied"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_without_a_reference_none_is_asked_for_and_no_drift_told(loss: str) -> None:
    settings = {"loss": loss, "beta": 2.0, **({"target_margin": 0.5} if loss == "simpo" else {})}
    _, found = means(settings, with_reference=False)
    assert not {name for name in found if name.startswith("drift/")}
    if loss == "simpo":
        assert found["rewards/chosen"] == pytest.approx(2.0 * found["logps_per_token/chosen"])
        assert found["rewards/rejected"] == pytest.approx(2.0 * found["logps_per_token/rejected"])


def test_ld_dpo_gets_its_openings() -> None:
    """A tail of weight 0 leaves the openings alone: here each is the whole's log-ratio times its share of the tokens."""
    _, found = means({"loss": "ld_dpo", "tail_weight": 0.0, "beta": 1.0})
    assert found["rewards/chosen"] == pytest.approx(mean([2.0, 3 / 4 * 1.0, 10 / 16 * -5.0]))
    assert found["rewards/rejected"] == pytest.approx(mean([5 / 8 * -2.0, -0.5, 1.0]))
    _, whole = means({"loss": "ld_dpo", "tail_weight": 1.0, "beta": 1.0})
    _, plain = means({"beta": 1.0})
    assert whole == pytest.approx(plain)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "robust", "label_noise": 0.1},
        {"loss": "rdpo", "length_penalty": 0.01},
        {"loss": "simpo", "beta": 2.0, "target_margin": 0.5},
        {"loss": "orpo", "nll_weight": 1.0},
    ],
    ids=lambda settings: settings["loss"],
)
def test_a_real_model_learns_by_it(settings: dict[str, Any], tmp_path: Path, tiny: Path) -> None:
    values = DPO.model_dump() | {"epochs": 3, "logging_steps": 1, "anchor_weight": 0.0, "learning_rate": 5e-3} | settings
    result = train_dpo(spec_of(tiny), make_pairs(8), [], DPOSettings.model_validate(values), tmp_path / "out")
    lines = metrics_of(result.folder)
    assert all(math.isfinite(value) for line in lines for value in line.values())

    def epoch(at: int, name: str) -> float:
        return lines[2 * at][name] + lines[2 * at + 1][name]

    assert epoch(2, "loss") < epoch(0, "loss")
    assert epoch(2, "rewards/margins") > epoch(0, "rewards/margins")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))
