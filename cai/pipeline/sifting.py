"""What filters would find in a finished run, and what they say of one of its rows. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from cai.data.filters.findings import Finding
from cai.data.filters.leakage import EvaluationSet
from cai.data.filters.overview import Counting, Explanation, Overview
from cai.data.filters.preferences import MADE_WORSE, worst
from cai.data.filters.settings import FilterRules
from cai.data.filters.sieve import Looked, is_on, reply_of, sieve_for
from cai.errors import StoreError
from cai.pipeline.filtering import evaluation_sets
from cai.pipeline.generating import HELD_OUT
from cai.records import FindingRecord, Item, LedgerEntry, PreferenceRecord, RecordKind, RevisionRecord
from cai.store import RunFolder


def trial_overview(folder: RunFolder, rules: FilterRules) -> Overview:
    """What these rules would find in the records of a run. Pairs that were dropped after their label are not labelled here."""
    sieve = sieve_for(rules, (reply_of(record) for record in _records(folder)), _sets(folder, rules))
    counting = Counting(rules)
    pairs = _pairs_of_rows(folder) if is_on(rules, MADE_WORSE) else iter(())
    next_pairs = next(pairs, None)
    for record in _records(folder):
        sifted = sieve.sift(reply_of(record))
        findings, dropped_by = sifted.findings, sifted.dropped_by
        if next_pairs is not None and next_pairs[0] == (record.uid, record.replica):
            found = worst(next_pairs[1], record, rules)
            next_pairs = next(pairs, None)
            if found is not None and dropped_by is None:
                findings = (*findings, found)
                dropped_by = found.rule if rules.action(found.rule) == "drop" else None
        counting.add(reply_of(record), record.replica, findings, dropped_by)
    return counting.overview(folder.path.name)


def explain(folder: RunFolder, name: str, rules: FilterRules) -> Explanation:
    """What every rule says of one row of a run.

    Args:
        folder: Of the run.
        name: A uid, or `uid#replica`.
        rules: Those of the run, or others.

    Raises:
        StoreError: If there is no such row.
    """
    entry = _entry(folder, name)
    outcome = f"{entry.outcome}: {entry.reason}" if entry.reason else str(entry.outcome)
    sieve = sieve_for(rules, (reply_of(record) for record in _records(folder)), _sets(folder, rules))
    for record in _records(folder):
        if (record.uid, record.replica) != (entry.uid, entry.replica):
            sieve.sift(reply_of(record))  # later rows may be like this one
            continue
        looked = tuple(_with_label(each, folder, record, rules) for each in sieve.explain(reply_of(record)))
        return Explanation(entry.uid, entry.replica, outcome, reply_of(record), looked)
    return Explanation(entry.uid, entry.replica, outcome, None, ())


def _with_label(looked: Looked, folder: RunFolder, record: RevisionRecord, rules: FilterRules) -> Looked:
    if looked.rule is not MADE_WORSE or looked.action == "off":
        return looked
    key = (record.uid, record.replica)
    pairs = next((pairs for of, pairs in _pairs_of_rows(folder) if of == key), None)
    if pairs is not None:
        found = worst(pairs, record, rules)
    else:  # the pair was dropped: what was found in it is all that is left of it
        stored = (each for each in folder.records(RecordKind.FINDING, FindingRecord) if each.rule == MADE_WORSE.id)
        kept = next((each for each in stored if (each.uid, each.replica) == key), None)
        found = None if kept is None else Finding(kept.rule, kept.detail, score=kept.score, limit=kept.limit)
    return Looked(looked.rule, looked.action, looked.limits, found)


def _records(folder: RunFolder) -> Iterator[RevisionRecord]:
    return folder.records(RecordKind.REVISION, RevisionRecord)


def _pairs_of_rows(folder: RunFolder) -> Iterator[tuple[tuple[str, int], list[PreferenceRecord]]]:
    """The labelled pairs, row by row."""
    pairs = folder.records(RecordKind.PREFERENCE, PreferenceRecord)
    return ((key, list(group)) for key, group in groupby(pairs, key=lambda pair: (pair.uid, pair.replica)))


def _sets(folder: RunFolder, rules: FilterRules) -> list[EvaluationSet]:
    return evaluation_sets(rules, _held_out(folder))


def _held_out(folder: RunFolder) -> Iterator[Item]:
    entries = (entry for entry in folder.ledger() if entry.replica == 0)
    return (item for entry, item in zip(entries, folder.items(), strict=False) if entry.reason == HELD_OUT)


def _entry(folder: RunFolder, name: str) -> LedgerEntry:
    """The ledger's line of a row; a whole uid goes before one that is read as `uid#replica`."""
    second: LedgerEntry | None = None
    for entry in folder.ledger():
        if entry.uid == name:
            return entry
        if f"{entry.uid}#{entry.replica}" == name:
            second = second or entry
    if second is None:
        raise StoreError(f"{folder.path}: no row {name!r} in this run.", "Give a uid as the report and the data sets name it.")
    return second
