"""The filters as part of a run: rules over the loop's records before the labels, and over the labels.

A shard asks only the rules that judge a row by itself. Those of the whole data set (boilerplate, near-duplicates, leakage) are
asked after the merge, which therefore leaves the labels to be put together again, from stored calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from cai.config.settings import RunConfig
from cai.data.filters.boilerplate import BOILERPLATE, learned
from cai.data.filters.findings import Finding
from cai.data.filters.leakage import LEAKAGE, OWN_SETS, EvaluationSet, evaluation_set_fingerprints, file_set
from cai.data.filters.preferences import MADE_WORSE, worst
from cai.data.filters.settings import LAB_SET, FilterRules
from cai.data.filters.sieve import Sieve, Sifted, is_on, of_rows, reply_of
from cai.labels import ItemLabels
from cai.pipeline.preflight import Inputs
from cai.records import FindingRecord, Item, LedgerEntry, Outcome, RevisionRecord

Records: TypeAlias = Callable[[], Iterable[RevisionRecord]]
"""Gives the records of a run, in order, as often as it is asked."""
LAB_PROMPTS_PER_FAMILY = 200


def rules_in_force(config: RunConfig, *, of_shard: bool) -> FilterRules:
    """The rules that a run asks, or a shard of it."""
    return of_rows(config.filters) if of_shard else config.filters


def filters_key(rules: FilterRules) -> list[Any]:
    """All that their findings depend on besides the records: settings, and the content of evaluation sets."""
    sets = evaluation_set_fingerprints(rules.evaluation_sets) if is_on(rules, LEAKAGE) else []
    return [rules.model_dump(mode="json"), sets]


def evaluation_sets(rules: FilterRules, held_out: Iterable[Item] = ()) -> list[EvaluationSet]:
    """The sets that nothing may leak from.

    Args:
        rules: Name them.
        held_out: The run's own held-out prompts.

    Raises:
        DataError: If a file cannot be read, or nothing in it could be found.
    """
    if not is_on(rules, LEAKAGE):
        return []
    return [
        EvaluationSet.of(name, _texts(name, held_out)) if name in OWN_SETS else file_set(name) for name in rules.evaluation_sets
    ]


@dataclass(frozen=True, slots=True)
class FilteredLabels:
    """What became of one record, and what the filters found in it."""

    labels: ItemLabels
    findings: tuple[FindingRecord, ...] = ()


class RunFilters:
    """The filters at work on one run, in a stream.

    Args:
        inputs: Of the run.
        records: All that will be judged; gone through once here where a rule has to see all of them first.
    """

    def __init__(self, inputs: Inputs, records: Records) -> None:
        self._records = records
        self._rules = rules_in_force(inputs.config, of_shard=inputs.shard is not None)
        self._sets = evaluation_sets(self._rules, inputs.held_out_items)
        self._habits = learned(reply_of(record) for record in records()) if is_on(self._rules, BOILERPLATE) else None
        self._dropped: list[FilteredLabels] = []
        self._waiting: dict[tuple[str, int], tuple[RevisionRecord, tuple[FindingRecord, ...]]] = {}

    def sound(self) -> Iterator[RevisionRecord]:
        """The records that no rule drops, from the first on. For a look ahead: nothing is kept of them."""
        return (record for record, sifted in self._sifted() if sifted.dropped_by is None)

    def judging(self) -> Iterator[RevisionRecord]:
        """The same; the others are set aside, and what was found waits for the labels, each of which `judged` has to see."""
        for record, sifted in self._sifted():
            findings = tuple(self._stored(record, found) for found in sifted.findings)
            if sifted.dropped_by is not None:
                self._dropped.append(FilteredLabels(ItemLabels(_entry(record, sifted.dropped_by)), findings))
                continue
            self._waiting[record.uid, record.replica] = record, findings
            yield record

    def dropped(self) -> Iterator[FilteredLabels]:
        """The records that were set aside since the last time."""
        aside, self._dropped = self._dropped, []
        yield from aside

    def judged(self, made: ItemLabels) -> FilteredLabels:
        """The labels of a sound record, or why they are dropped."""
        record, findings = self._waiting.pop((made.entry.uid, made.entry.replica))
        found = worst(made.pairs, record, self._rules) if is_on(self._rules, MADE_WORSE) else None
        if found is None:
            return FilteredLabels(made, findings)
        if self._rules.action(found.rule) == "drop":
            made = ItemLabels(_entry(record, found.rule))
        return FilteredLabels(made, (*findings, self._stored(record, found)))

    def _sifted(self) -> Iterator[tuple[RevisionRecord, Sifted]]:
        sieve = Sieve(self._rules, sets=self._sets, habits=self._habits)
        return ((record, sieve.sift(reply_of(record))) for record in self._records())

    def _stored(self, row: RevisionRecord, found: Finding) -> FindingRecord:
        action = self._rules.action(found.rule)
        assert action != "off", "a rule that is off finds nothing"
        return FindingRecord(
            uid=row.uid,
            replica=row.replica,
            rule=found.rule,
            action=action,
            detail=found.detail,
            place=found.place,
            span=found.span,
            score=found.score,
            limit=found.limit,
        )


def _entry(record: RevisionRecord, rule: str) -> LedgerEntry:
    return LedgerEntry(uid=record.uid, replica=record.replica, outcome=Outcome.FILTERED, reason=rule)


def _texts(name: str, held_out: Iterable[Item]) -> Iterator[str]:
    items = held_out
    if name == LAB_SET:
        from cai.lab.suite import LabSuite

        items = (trial.item for trial in LabSuite.draw(LAB_PROMPTS_PER_FAMILY).trials)
    for item in items:
        yield from (message.content for message in item.messages if message.role != "system")
