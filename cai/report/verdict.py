"""What the before/after table says, in words: one sentence for all of it, a few words for each row.

A change counts as clear when its interval leaves out zero; a control holds while it is at most 3 points worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cai.evaluation.results import MIN_ROWS, BehaviourRow, EvaluationResult
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
        return Reading("few", f"too few prompts to conclude from: {row.prompts}, at least {MIN_ROWS} are needed")
    clear = row.difference_low > 0 or row.difference_high < 0
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


def headline(result: EvaluationResult) -> str:
    """The whole table in one sentence, the bad news included."""
    solid = [row for row in result.rows if row.enough]
    few = len(result.rows) - len(solid)
    parts = [*_of_faults([r for r in solid if r.kind == "fault"]), *_of_controls([r for r in solid if r.kind == "control"])]
    before, after = broken_shares(result)
    if after - before > BROKEN_LIMIT:
        parts.append(f"broken text rose from {percent(before)} to {percent(after)}")
    if few:
        which = _count(few, "behaviour") if solid else _all_of(few, "behaviour")
        parts.append(f"{which} had too few prompts to conclude from")
    if not parts:
        return "Nothing was measured."
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def broken_shares(result: EvaluationResult) -> tuple[float, float]:
    """Share of broken text before and after, over all judged answers."""
    answers = sum(row.answers for row in result.rows) or 1
    before = sum(row.broken_before * row.answers for row in result.rows) / answers
    after = sum(row.broken_after * row.answers for row in result.rows) / answers
    return before, after


def _of_faults(rows: Sequence[BehaviourRow]) -> list[str]:
    if not rows:
        return []
    fallen = [row for row in rows if read_row(row).tone == "good"]
    risen = [row.label for row in rows if read_row(row).tone == "bad"]
    parts: list[str] = []
    if fallen:
        falls = sorted(1 - row.after / row.before for row in fallen)
        least, most = percent(falls[0]), percent(falls[-1])
        by = most if least == most else f"{least} to {most}"
        which = _all_of(len(rows), "fault") if len(fallen) == len(rows) else None
        parts.append(f"{which or f'{len(fallen)} of {len(rows)} faults'} fell, by {by}")
    else:
        parts.append("the fault did not clearly fall" if len(rows) == 1 else f"none of {len(rows)} faults clearly fell")
    if risen:
        parts.append(f"{_named(risen)} rose")
    return parts


def _of_controls(rows: Sequence[BehaviourRow]) -> list[str]:
    worse = [f"{_named([row.label])} by {_points(row.difference)}" for row in rows if read_row(row).tone == "bad"]
    if not rows:
        return []
    if not worse:
        return [f"{_all_of(len(rows), 'control')} held"]
    return [f"{len(worse)} of {_count(len(rows), 'control')} got worse: {', '.join(worse)}"]


def _all_of(number: int, noun: str) -> str:
    return f"the {noun}" if number == 1 else f"both {noun}s" if number == 2 else f"all {number} {noun}s"


def _named(labels: Sequence[str]) -> str:
    return " and ".join(f"“{label}”" for label in labels)


def _points(difference: float) -> str:
    return _count(round(100 * difference), "point")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
