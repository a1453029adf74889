"""What two runs have in common and what not, in words: for the terminal and the report alike."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cai.pipeline.effects import NOTHING, Effects
from cai.store.pairing import Common


def row_lines(effects: Effects) -> Iterator[str]:
    """Input rows, drafts and transcripts: in both runs, and not the same."""
    for name, common in (("input rows", effects.items), ("drafts", effects.drafts), ("transcripts", effects.revisions)):
        if common != NOTHING:
            yield f"{name}: {_counted(common)}"
    if effects.changed_rows:
        rows = ", ".join(uid + (f" (replica {replica})" if replica else "") for uid, replica in effects.changed_rows)
        yield f"  the first that are not the same: {rows}"
    yield from (f"{rows} rows: {one} → {other}" for (one, other), rows in effects.changed_outcomes.items())
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


def _counted(common: Common) -> str:
    alone = [f"{n} only in the {side}" for n, side in ((common.only_first, "first"), (common.only_second, "second")) if n]
    return ", ".join([f"{common.common} in both, {common.different} of them not the same", *alone])


def shown_value(value: object) -> str:
    """A setting or a figure on one line."""
    text = "not noted" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:119]}…"
