"""What the before/after table says, in words: one sentence for all of it, a few words for each row.

A change counts as clear when its interval leaves out zero; a control holds while it is at most 3 points worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cai.evaluation.results import MIN_ROWS, BehaviourRow
from cai.evaluation.suite_results import MeasureChange
from cai.evaluation.wording import read_measure
from cai.report.texts import percent

CONTROL_LIMIT = 0.03
BROKEN_LIMIT = 0.01

Tone: TypeAlias = Literal["good", "bad", "unclear", "few"]


@dataclass(frozen=True, slots=True)
class Reading:
    tone: Tone
    words: str


def read_row(row: BehaviourRow) -> Reading:
    """One behaviour in a few words."""
    if not row.enough:
        return Reading("few", f"too few prompts to conclude from: {row.independent}, at least {MIN_ROWS} are needed")
    clear = row.clear if row.p_corrected is not None else row.difference_low > 0 or row.difference_high < 0
    if not clear and row.clusters_needed is not None and row.missing_clusters:
        wanted = row.independent + row.missing_clusters
        return Reading("few", f"no change shown, and not enough rows to say there is none: about {wanted} would do")
    return _read_control(row, clear=clear) if row.kind == "control" else _read_fault(row, clear=clear)


def _read_control(row: BehaviourRow, *, clear: bool) -> Reading:
    if row.difference > CONTROL_LIMIT:
        return Reading("bad", f"worse by {_points(row.difference)}" + ("" if clear else ", though not certainly"))
    return Reading("good", f"better by {_points(-row.difference)}" if clear and row.difference < 0 else "held")


def _read_fault(row: BehaviourRow, *, clear: bool) -> Reading:
    if row.before == 0 and row.after == 0:
        return Reading("unclear", "no fault to begin with")
    if not clear:
        return Reading("unclear", "no clear change")
    if row.difference > 0:
        return Reading("bad", f"rose by {_points(row.difference)}")
    return Reading("good", "gone" if row.after == 0 else f"fell by {percent(1 - row.after / row.before)}")


def read_figure(change: MeasureChange) -> Reading:
    """One figure that is no behaviour, in a few words."""
    match read_measure(change):
        case "few":
            return Reading("few", f"too few rows to conclude from: {change.clusters}, at least {MIN_ROWS} are needed")
        case "better":
            return Reading("good", "better")
        case "worse":
            return Reading("bad", "worse")
        case "unclear":
            return Reading("unclear", "no change shown")
        case "same":
            return Reading("unclear", "changed")


def by_kind(rows: Sequence[BehaviourRow]) -> list[tuple[str, list[BehaviourRow]]]:
    """(title, rows): faults, then controls."""
    titles = {
        "fault": "Faults: these should fall",
        "control": "Controls: right behaviour beside the faults, which must not suffer",
    }
    return [(title, [row for row in rows if row.kind == kind]) for kind, title in titles.items()]


def with_twins(rows: Sequence[BehaviourRow]) -> list[tuple[str, list[BehaviourRow]]]:
    """(title, rows): every fault with the control that its cure would overdo, then what has no twin."""
    by_id = {row.behaviour: row for row in rows}
    groups: list[tuple[str, list[BehaviourRow]]] = []
    told: set[str] = set()
    for row in rows:
        twin = by_id.get(row.twin or "")
        if row.kind == "fault" and twin is not None:
            groups.append((f"{row.label} ↔ {twin.label}", [row, twin]))
            told |= {row.behaviour, twin.behaviour}
    rest = [row for row in rows if row.behaviour not in told]
    return [*groups, ("Without a twin", rest)]


def headline(rows: Sequence[BehaviourRow]) -> str:
    """The whole table in one sentence, the bad news included."""
    solid = [row for row in rows if read_row(row).tone != "few"]
    few = len(rows) - len(solid)
    faults, controls = ([row for row in rows if row.kind == kind] for kind in ("fault", "control"))
    parts = [
        *_of_faults([row for row in faults if row in solid], len(faults)),
        *_of_controls([row for row in controls if row in solid], len(controls)),
    ]
    before, after = broken_shares(rows)
    if after - before > BROKEN_LIMIT:
        parts.append(f"broken text rose from {percent(before)} to {percent(after)}")
    if few:
        which = _count(few, "behaviour") if solid else _all_of(few, "behaviour")
        parts.append(f"{which} had too few prompts to conclude from")
    if not parts:
        return "Nothing was measured."
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def broken_shares(rows: Sequence[BehaviourRow]) -> tuple[float, float]:
    """Share of broken text before and after, over all judged answers."""
    answers = sum(row.answers for row in rows) or 1
    before = sum(row.broken_before * row.answers for row in rows) / answers
    after = sum(row.broken_after * row.answers for row in rows) / answers
    return before, after


def _of_faults(rows: Sequence[BehaviourRow], total: int) -> list[str]:
    """Of `total`, those that there are enough prompts for."""
    if not rows:
        return []
    fallen = [row for row in rows if read_row(row).tone == "good"]
    risen = [row.label for row in rows if read_row(row).tone == "bad"]
    parts: list[str] = []
    if fallen:
        falls = sorted(1 - row.after / row.before for row in fallen)
        least, most = percent(falls[0]), percent(falls[-1])
        by = most if least == most else f"{least} to {most}"
        which = _all_of(total, "fault") if len(fallen) == total else None
        parts.append(f"{which or f'{len(fallen)} of {total} faults'} fell, by {by}")
    else:
        parts.append("the fault did not clearly fall" if total == 1 else f"none of {total} faults clearly fell")
    if risen:
        parts.append(f"{_named(risen)} rose")
    return parts


def _of_controls(rows: Sequence[BehaviourRow], total: int) -> list[str]:
    worse = [f"{_named([row.label])} by {_points(row.difference)}" for row in rows if read_row(row).tone == "bad"]
    if not rows:
        return []
    if not worse:
        return [f"{_all_of(total, 'control') if len(rows) == total else f'{len(rows)} of {total} controls'} held"]
    which = "the control" if total == 1 else f"{len(worse)} of {total} controls"
    return [f"{which} got worse: {', '.join(worse)}"]


def _all_of(number: int, noun: str) -> str:
    return f"the {noun}" if number == 1 else f"both {noun}s" if number == 2 else f"all {number} {noun}s"


def _named(labels: Sequence[str]) -> str:
    return " and ".join(f"“{label}”" for label in labels)


def _points(difference: float) -> str:
    return _count(round(100 * difference), "point")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
