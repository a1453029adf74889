"""What a comparison by suites says, in sentences: each fault together with its twin, and what there are too few rows for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from cai.evaluation.results import MIN_ROWS, SMALLEST_DIFFERENCE, BehaviourRow
from cai.evaluation.suite_results import Comparison, MeasureChange

Reading: TypeAlias = Literal["better", "worse", "same", "unclear", "few"]
"""`same`: no change worth showing; `unclear`: too few rows to tell; `few`: too few to say anything."""

POINTS = f"{SMALLEST_DIFFERENCE:.0%}".replace("%", " points")


def read(row: BehaviourRow) -> Reading:
    """What one behaviour came to."""
    if not row.enough:
        return "few"
    if row.clear:
        return "better" if row.difference < 0 else "worse"
    return "unclear" if row.missing_clusters else "same"


def read_measure(change: MeasureChange) -> Reading:
    """What one figure came to; a figure of which neither way is better has only changed or not."""
    if not change.enough:
        return "few"
    if not change.clear or change.better == "neither":
        return "unclear" if not change.clear else "same"
    return "better" if (change.difference < 0) == (change.better == "less") else "worse"


def got_worse(comparison: Comparison) -> list[str]:
    """Labels of what clearly got worse."""
    rows = [row.label for row in comparison.rows if read(row) == "worse"]
    return rows + [change.label for change in comparison.measures if read_measure(change) == "worse"]


def sentences(comparison: Comparison) -> list[str]:
    """The comparison in sentences: faults with their twins first, then controls without one, then figures."""
    by_id = {row.behaviour: row for row in comparison.rows}
    faults = [row for row in comparison.rows if row.kind == "fault"]
    told = {row.behaviour for row in faults} | {row.twin for row in faults}
    said = [_pair(row, by_id.get(row.twin or "")) for row in faults]
    said += [_alone(row) for row in comparison.rows if row.behaviour not in told]
    return said + list(_measures(comparison.measures))


def _pair(fault: BehaviourRow, twin: BehaviourRow | None) -> str:
    if twin is None:
        return _alone(fault)
    outcomes = read(fault), read(twin)
    verdicts: dict[tuple[Reading, Reading], str] = {
        ("better", "better"): "better on both sides",
        ("better", "same"): "better, and the twin held",
        ("better", "unclear"): "better; whether the twin held, there are too few rows to tell",
        ("better", "worse"): "OVER-CORRECTED: better, at the twin's cost",
        ("worse", "worse"): "WORSE on both sides",
        ("worse", "better"): "WORSE, though the twin got better",
    }
    verdict = verdicts.get(outcomes)
    if verdict is None and outcomes[1] == "worse":
        verdict = "the twin got WORSE"
    parts = f"{_change(fault)}; twin: {_change(twin)}"
    return f"{parts}. {_capital(verdict)}.{_missing(fault, twin)}" if verdict else f"{parts}.{_missing(fault, twin)}"


def _alone(row: BehaviourRow) -> str:
    return f"{_change(row)}.{_missing(row)}"


def _change(row: BehaviourRow) -> str:
    words = {
        "better": f"fell by {-100 * row.difference:.0f} points",
        "worse": f"ROSE by {100 * row.difference:.0f} points",
        "same": f"no change of {POINTS}",
        "unclear": "no change shown",
        "few": "too few rows to conclude from",
    }[read(row)]
    return f"{row.label} {row.before:.0%} → {row.after:.0%} ({words})"


def _missing(*rows: BehaviourRow) -> str:
    lacking = [row for row in rows if row.missing_clusters]
    if not lacking:
        return ""
    have = min(row.independent for row in lacking)
    wanted = max(row.independent + row.missing_clusters for row in lacking)
    return f" NOT ENOUGH ROWS: {have} independent prompts, about {wanted} would show a change of {POINTS} four times in five."


def _measures(changes: Sequence[MeasureChange]) -> Iterator[str]:
    for change in changes:
        about = f"{change.label}: {amount(change.before, change.unit)} → {amount(change.after, change.unit)}"
        match read_measure(change):
            case "few":
                told = f"too few rows to conclude from: {change.clusters} independent, at least {MIN_ROWS} are needed"
            case "unclear":
                told = "no change shown"
            case "better":
                told = "better"
            case "worse":
                told = "WORSE"
            case _:
                told = "changed"
        more = ""
        if change.clusters_needed is not None and not change.clear and change.clusters_needed > change.clusters:
            wanted = f"about {change.clusters_needed} would show a change of {POINTS} four times in five"
            more = f" NOT ENOUGH ROWS: {change.clusters} independent prompts, {wanted}."
        yield f"{about} ({told}).{more}"


def amount(value: float, unit: str) -> str:
    """A figure with its unit."""
    return f"{value:.0%}" if unit == "share" else f"{value:.3g} {unit}".rstrip()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
