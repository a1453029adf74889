"""The filters over any file of preference or supervised rows: kept rows out as they came in, dropped ones with their rule.

Of a preference row the chosen reply is judged: as a revision of the rejected one where the row says so. In a stream; a file is
gone through twice where a rule has to see all rows first. A row that is no training row is counted and told, and goes into
neither file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from cai.data.filters.findings import Finding, Reply
from cai.data.filters.leakage import EvaluationSet
from cai.data.filters.overview import Counting, Explanation, Overview
from cai.data.filters.preferences import MADE_WORSE, made_worse
from cai.data.filters.settings import FilterRules
from cai.data.filters.sieve import Looked, Sieve, is_on, sieve_for
from cai.data.text_files import BadRow, RawRow
from cai.data.training_rows import json_line, rows_in_stream
from cai.errors import DataError
from cai.records import PreferenceRecord, SFTRecord
from cai.store.files import atomic_file

SHOWN_UNREADABLE = 10
RULE_COLUMN = "filtered"
"""Column of a dropped row that names its rule."""


def filter_file(
    path: Path,
    rules: FilterRules,
    sets: Sequence[EvaluationSet] = (),
    *,
    kept: Path | None = None,
    dropped: Path | None = None,
) -> Overview:
    """Judge every row of a file.

    Args:
        path: The rows.
        rules: What is looked for.
        sets: Evaluation sets, for `leakage`.
        kept: Where rows that nothing drops go, as JSONL, with their own columns.
        dropped: Where the others go, with a column `filtered` more.

    Raises:
        DataError: If the file cannot be read.
        StoreError: If a file cannot be written.
    """
    sieve = sieve_for(rules, (reply_in(record) for _, record in _readable(path)), sets)
    counting, unreadable, bad = Counting(rules, revisions=0), list[str](), 0
    with ExitStack() as stack:
        kept_file = stack.enter_context(atomic_file(kept)) if kept is not None else None
        dropped_file = stack.enter_context(atomic_file(dropped)) if dropped is not None else None
        for row in rows_in_stream(path):
            if isinstance(row, BadRow):
                bad += 1
                if len(unreadable) < SHOWN_UNREADABLE:
                    unreadable.append(f"{row.place}: {row.detail}")
                continue
            raw, record = row
            findings, dropped_by = _judged(sieve, record)
            counting.add(reply_in(record), record.replica, findings, dropped_by)
            if dropped_by is None:
                _write(kept_file, raw.values)
            else:
                _write(dropped_file, raw.values | {RULE_COLUMN: dropped_by})
    return counting.overview(path.name, tuple(unreadable), bad)


def explain_row(path: Path, name: str, rules: FilterRules, sets: Sequence[EvaluationSet] = ()) -> Explanation:
    """What every rule says of one row.

    Args:
        path: The rows.
        name: A uid, `uid#replica`, or `file:line` as messages name rows without a uid; the line alone will do.
        rules: What is looked for.
        sets: Evaluation sets.

    Raises:
        DataError: If there is no such row.
    """
    sieve = sieve_for(rules, (reply_in(record) for _, record in _readable(path)), sets)
    for row in rows_in_stream(path):
        place = row.place if isinstance(row, BadRow) else row[0].place
        here = name in (place, place.rpartition(":")[2])
        if isinstance(row, BadRow):
            if here:
                return Explanation(place, 0, f"no training row: {row.detail}", None, ())
            continue
        record = row[1]
        if here or name in (record.uid, f"{record.uid}#{record.replica}"):
            reply = reply_in(record)
            looked = tuple(_with_label(each, record, rules) for each in sieve.explain(reply))
            outcome = next((f"dropped by {e.rule.id}" for e in looked if e.finding and e.action == "drop"), "kept")
            return Explanation(record.uid, record.replica, outcome, reply, looked)
        sieve.sift(reply_in(record))  # later rows may be like this one
    raise DataError(f"{path}: no row {name!r}.", "Give a uid, uid#replica, or the number of a line.")


def reply_in(record: PreferenceRecord | SFTRecord) -> Reply:
    """The reply that a training row teaches."""
    if isinstance(record, SFTRecord):
        return Reply(record.messages, record.reply, uid=record.uid)
    chosen, rejected = record.chosen, record.rejected
    is_revision = record.chosen_source == "revision" or chosen == rejected  # a pair of one text teaches nothing: `unchanged`
    return Reply(record.prompt, chosen, rejected if is_revision else None, rejected, uid=record.uid)


def _readable(path: Path) -> Iterator[tuple[RawRow, PreferenceRecord | SFTRecord]]:
    return (row for row in rows_in_stream(path) if not isinstance(row, BadRow))


def _judged(sieve: Sieve, record: PreferenceRecord | SFTRecord) -> tuple[tuple[Finding, ...], str | None]:
    sifted = sieve.sift(reply_in(record))
    found = _of_label(record, sieve.rules)
    if found is None:
        return sifted.findings, sifted.dropped_by
    drops = sieve.rules.action(found.rule) == "drop"
    return (*sifted.findings, found), sifted.dropped_by or (found.rule if drops else None)


def _of_label(record: PreferenceRecord | SFTRecord, rules: FilterRules) -> Finding | None:
    if isinstance(record, SFTRecord) or not is_on(rules, MADE_WORSE):
        return None
    return made_worse(record, rules)


def _with_label(looked: Looked, record: PreferenceRecord | SFTRecord, rules: FilterRules) -> Looked:
    if looked.rule is not MADE_WORSE:
        return looked
    return Looked(looked.rule, looked.action, looked.limits, _of_label(record, rules))


def _write(file: BinaryIO | None, values: Mapping[str, Any]) -> None:
    if file is not None:
        file.write(json_line(values))
