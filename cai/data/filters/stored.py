"""What the filters of a run found, as it is stored with its records."""

from __future__ import annotations

from pydantic import ValidationError

from cai.data.filters.overview import EXAMPLES, Counting, Example, Overview, excerpt, text_at
from cai.data.filters.settings import FilterRules
from cai.data.filters.sieve import RULE_IDS, of_rows, reply_of
from cai.errors import StoreError
from cai.records import FindingRecord, Outcome, RecordKind, RevisionRecord
from cai.store import RunFolder


def rules_of(folder: RunFolder) -> FilterRules:
    """The rules that a run asks, by its manifest; of a shard, those that need no other rows.

    Raises:
        StoreError: If the manifest is missing or of another version.
    """
    manifest = folder.whole_manifest
    try:
        rules = FilterRules.model_validate(manifest["config"]["filters"])
    except (KeyError, TypeError, ValidationError) as error:
        raise StoreError(
            f"{folder.path}: its manifest names no filters of this version.", "Run `cai run` again: model calls are kept."
        ) from error
    return of_rows(rules) if manifest.get("shard") else rules


def stored_overview(folder: RunFolder) -> Overview:
    """What the filters of the run found, as it is stored with the records."""
    counting = Counting(rules_of(folder))
    counting.rows = folder.count_records(RecordKind.REVISION)
    for (outcome, reason), count in folder.ledger_reasons().items():
        if outcome is Outcome.FILTERED and reason in RULE_IDS:
            counting.dropped[reason] += count
    examples: dict[tuple[str, int], list[FindingRecord]] = {}
    row: tuple[str, int] | None = None
    rows_found = 0
    for found in folder.records(RecordKind.FINDING, FindingRecord):
        if (found.uid, found.replica) != row:
            rows_found, row = rows_found + 1, (found.uid, found.replica)
        counting.found[found.rule] += 1
        if counting.found[found.rule] <= EXAMPLES:
            examples.setdefault((found.uid, found.replica), []).append(found)
    counting.flagged = rows_found - counting.dropped.total()
    for record in folder.records(RecordKind.REVISION, RevisionRecord) if examples else ():
        for found in examples.pop((record.uid, record.replica), ()):
            shown = excerpt(text_at(reply_of(record), found.place), found.span)
            counting.show(found.rule, Example(found.uid, found.replica, found.detail, shown))
        if not examples:
            break
    return counting.overview(folder.path.name)
