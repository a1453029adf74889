"""What two runs have in common and what not, in words: for the terminal and the report alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

from cai.pipeline.causes import NOT_NOTED, ChangedSetting
from cai.pipeline.changes import leaves
from cai.pipeline.effects import NOTHING, Effects, FileDifference, MetricDifference
from cai.store.pairing import Common


def row_lines(effects: Effects) -> Iterator[str]:
    """Input rows, drafts and transcripts: in both runs, and not the same."""
    for name, common in (("input rows", effects.items), ("drafts", effects.drafts), ("transcripts", effects.revisions)):
        if common != NOTHING:
            yield f"{name}: {_counted(common)}"
    if effects.changed_rows:
        rows = ", ".join(uid + (f" (replica {replica})" if replica else "") for uid, replica in effects.changed_rows)
        yield f"  the first that are not the same: {rows}"
    yield from (f"{rows} row{'s' * (rows != 1)}: {one} → {other}" for (one, other), rows in effects.changed_outcomes.items())
    yield from (f"{name}: {one} → {other} rows" for name, (one, other) in effects.totals.items() if one != other)


def label_lines(effects: Effects) -> Iterator[str]:
    """Labels of the same two answers, and which fell the other way."""
    labels = effects.labels
    if labels.judged:
        told = f"{labels.flips} of {labels.decided} fell the other way"
        if (interval := effects.flip_interval) is not None:
            told += f" ({labels.flips / labels.decided:.1%} [{interval.low:.1%}, {interval.high:.1%}])"
        if labels.mean_change is not None:
            told += f"; p_chosen moved by {labels.mean_change:.3f} on average"
        yield f"labels of the same two answers: {told}; {labels.undecided_once} decided in one run only"
    yield from (f"{kind} records: {_counted(each)}" for kind, each in effects.label_records.items() if not each.alike)


def metric_lines(effects: Effects) -> Iterator[str]:
    """Figures of the last step of training; of a training that only one run has, that it is so."""
    yield from training_lines(effects)
    for each in trained_in_both(effects):
        yield f"{each.stage}, last step: {each.name} {shown_value(each.first)} → {shown_value(each.second)}"


def training_lines(effects: Effects) -> Iterator[str]:
    """Of each training that only one run has, that it is so."""
    yield from (f"{stage}: trained in the {side} run only" for stage, side in _trained_once(effects).items())


def trained_in_both(effects: Effects) -> Iterator[MetricDifference]:
    """The figures of the other trainings."""
    once = _trained_once(effects)
    yield from (each for each in effects.metrics if each.stage not in once)


def _trained_once(effects: Effects) -> dict[str, Literal["first", "second"]]:
    found: dict[str, Literal["first", "second"]] = {}
    for stage in dict.fromkeys(each.stage for each in effects.metrics):
        values = [(each.first, each.second) for each in effects.metrics if each.stage == stage]
        if (side := _only([second is None for _, second in values], [first is None for first, _ in values])) is not None:
            found[stage] = side
    return found


def file_lines(effects: Effects) -> Iterator[str]:
    """Files that are not the same; of a folder that only one run has, how many."""
    folders: dict[str, list[FileDifference]] = {}
    for each in effects.files:
        folders.setdefault(each.path.partition("/")[0], []).append(each)
    for name, found in folders.items():
        states = [each.state for each in found]
        side = _only([each == "only first" for each in states], [each == "only second" for each in states])
        if side is not None and len(found) > 1:
            yield f"{name}/: {len(found)} files in the {side} run only"
            continue
        yield from (f"{each.path}: {each.state}" for each in found if each.state != "same")


def _only(first: Sequence[bool], second: Sequence[bool]) -> Literal["first", "second"] | None:
    """The run that has all of it, if the other has nothing."""
    return "first" if all(first) else "second" if all(second) else None


def _counted(common: Common) -> str:
    alone = [f"{n} only in the {side}" for n, side in ((common.only_first, "first"), (common.only_second, "second")) if n]
    return ", ".join([f"{common.common} in both, {common.different} of them not the same", *alone])


def shown_setting(each: ChangedSetting) -> tuple[str, str]:
    """What a setting is in both runs, on one line each: `null` where it is switched off, as in a configuration's file."""
    sides = (each.first, each.first_origin), (each.second, each.second_origin)
    one, other = (_setting(value, origin) for value, origin in sides)
    return one, other


def _setting(value: object, origin: str) -> str:
    if value is None:
        return NOT_NOTED if origin == NOT_NOTED else "null"
    if isinstance(value, dict):
        return f"a section of {len(list(leaves(cast('dict[str, Any]', value))))} settings"
    return shown_value(value)


def shown_value(value: object) -> str:
    """A fact or a figure on one line."""
    text = "not noted" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:119]}…"
