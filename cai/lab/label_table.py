"""The label study as a table: what each way of labelling does to labels, and to the model after DPO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cai.lab.suite import BEHAVIOURS
from cai.labels.calibration import calibration
from cai.statistics import Interval, cluster_bootstrap, wilson_interval

Row = Mapping[str, Any]
HEADER = (
    "labels by",
    "probes right",
    "ECE",
    "Brier",
    "pairs",
    "pairs right",
    "faults",
    "their change",
    "controls",
    "their change",
)


def table(probes: Iterable[Row], rows: Iterable[Row]) -> str:
    """One line for each way of labelling, over all seeds, in Markdown.

    - `probes right`: of the probes, those whose good answer is preferred; an undecided one is not. With `ECE` and `Brier`:
      whether the labels are as sure as they are right.
    - `pairs`: drafts against revisions, judged, all seeds; `pairs right`: of those in which the truth prefers one. Undecided
      ones are not right, and train nothing.
    - `faults`, `controls`: bad answers of the trained models, over the behaviours of a kind; `change`: against the plain model,
      in points.

    All intervals are of 95 %: Wilson's for shares, a bootstrap of prompts for changes.
    """
    by_way: dict[str, list[Row]] = {}
    for row in rows:
        by_way.setdefault(row["way"], []).append(row)
    of_probes = {row["way"]: row["probes"] for row in probes}
    lines = [HEADER, ("---",) * len(HEADER)]
    for way, own in by_way.items():
        labels = [label for row in own for label in row["labels"]]
        told = [label for label in labels if label["truth"]]
        trained = all("answers" in row for row in own)
        lines.append(
            (
                way,
                *(_probes(of_probes[way]) if way in of_probes else ("–",) * 3),
                str(len(labels)),
                _share(sum(map(_is_right, told)), len(told)),
                *(_answers(own, "fault") if trained else ("–",) * 2),
                *(_answers(own, "control") if trained else ("–",) * 2),
            )
        )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _is_right(label: Mapping[str, Any]) -> bool:
    return label["margin_nats"] * label["truth"] > 0


def _probes(labels: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    decided = [label for label in labels if label["margin_nats"]]
    right = _share(sum(map(_is_right, labels)), len(labels))
    if not decided:
        return right, "–", "–"
    p_N = np.array([max(label["p_first"], 1 - label["p_first"]) for label in decided])
    measured = calibration(p_N, np.array([float(_is_right(label)) for label in decided]))
    low, high = measured.ece_interval.low, measured.ece_interval.high
    return right, f"{measured.ece:.2f} [{low:.2f}, {high:.2f}]", f"{measured.brier:.2f}"


def _answers(rows: Sequence[Row], kind: str) -> tuple[str, str]:
    """Share of bad answers after training, and its change in points; every behaviour has as many prompts."""
    of_kind = {behaviour.id for behaviour in BEHAVIOURS.values() if behaviour.kind == kind}
    asked = [
        (f"{row['seed']}/{uid}", before, after) for row in rows for uid, b, before, after in row["answers"] if b in of_kind
    ]
    steps = [float(after) - float(before) for _, before, after in asked]
    change = cluster_bootstrap(steps, [uid for uid, _, _ in asked])
    mean = 100 * sum(steps) / len(steps)
    return (
        f"{sum(after for _, _, after in asked) / len(asked):.0%}",
        f"{mean:+.0f} [{100 * change.low:+.0f}, {100 * change.high:+.0f}]",
    )


def _share(count: int, total: int) -> str:
    if not total:
        return "–"
    interval: Interval = wilson_interval(count, total)
    return f"{count / total:.0%} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
