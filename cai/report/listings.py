"""The long lists of a report: transcripts, answers before and after, answers to suites; each cut to what fits in the page.

Also what can only be counted while all transcripts go by: how often each principle was used, and how long texts are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cai.evaluation.results import EvaluationResult
from cai.evaluation.suite_results import SuiteAnswer, SuiteResult
from cai.records import (
    SUITE_ANSWERS,
    FindingRecord,
    PreferenceRecord,
    RecordKind,
    RevisionRecord,
    UndecidedRecord,
    Verdict,
)
from cai.report import answer_rows
from cai.report.data import LengthRow
from cai.report.listing import Listing, Row, pack
from cai.report.transcript_rows import Context, Label, transcript_facets, transcript_name, transcript_row
from cai.store import RunFolder

BYTES_PER_PART, ROWS_PER_PART = 4_700_000, 10_000
"""Lists take so many bytes of the page for each so many transcripts, a part of them counted as whole."""
ANSWERS_SHARE = 0.15
"""Of these bytes, that answers before and after may take, and answers to suites."""
BINS = 20

Wanted = Callable[[str], bool]


@dataclass
class Tally:
    """Counted over all transcripts, shown or not."""

    uses: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """(principle, `drawn` | `faults` | `revisions`) → how often."""
    bad_calls: int = 0
    """Revisions left out since they call a tool as it cannot be called."""
    revised: int = 0
    draft_words: int = 0
    final_words: int = 0
    """Of revised transcripts, as `draft_words` are."""

    def add(self, record: RevisionRecord) -> None:
        for each in record.rounds:
            self.uses[each.principle_id, "drawn"] += 1
            self.uses[each.principle_id, "faults"] += each.verdict is Verdict.FAULT
            self.uses[each.principle_id, "revisions"] += each.revision is not None
        self.bad_calls += record.bad_calls
        if record.changed:
            self.revised += 1
            self.draft_words += len(record.draft.split())
            self.final_words += len(record.final.split())

    def lengths(self) -> Iterator[LengthRow]:
        """Drafts against what they were revised to."""
        if self.revised:
            mean_draft, mean_final = self.draft_words / self.revised, self.final_words / self.revised
            yield LengthRow("revised transcripts", "draft", mean_draft, "last revision", mean_final, self.revised)


@dataclass
class Pairs:
    """The stored pairs in one pass: their labels in words, a histogram of `p_chosen`, and how long they are."""

    labels: dict[tuple[str, int], list[Label]] = field(default_factory=dict[tuple[str, int], list[Label]])
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    count: int = 0
    chosen_words: int = 0
    rejected_words: int = 0

    @classmethod
    def of(cls, folder: RunFolder) -> Pairs:
        """Every pair of a run, decided or not."""
        made = cls()
        for pair in folder.records(RecordKind.PREFERENCE, PreferenceRecord):
            made._add(pair)
            made.count += 1
            made.histogram[min(BINS - 1, int((pair.p_chosen - 0.5) * 2 * BINS))] += 1
            made.chosen_words += len(pair.chosen.split())
            made.rejected_words += len(pair.rejected.split())
        for pair in folder.records(RecordKind.UNDECIDED, UndecidedRecord):
            made._add(pair)
        return made

    def _add(self, pair: PreferenceRecord | UndecidedRecord) -> None:
        self.labels.setdefault((pair.uid, pair.replica), []).append(Label.of(pair))

    def lengths(self) -> Iterator[LengthRow]:
        """Chosen against rejected."""
        if self.count:
            chosen, rejected = self.chosen_words / self.count, self.rejected_words / self.count
            yield LengthRow("labelled pairs", "rejected", rejected, "chosen", chosen, self.count)


def budget_bytes_of(transcripts: int, asked: float | None) -> float:
    """What lists may take in the page."""
    return BYTES_PER_PART * -(-max(1, transcripts) // ROWS_PER_PART) if asked is None else asked


def list_transcripts(
    folder: RunFolder, pairs: Pairs, budget: float, *, other: RunFolder | None = None, other_name: str = "another run"
) -> tuple[Listing | None, Tally]:
    """The transcripts of a run, where another is given each beside that run's, and what was counted on the way."""
    tally = Tally()
    found: dict[str, list[str]] = {}
    for finding in folder.records(RecordKind.FINDING, FindingRecord):
        found.setdefault(finding.uid, []).append(finding.rule)

    def beside(record: RevisionRecord) -> str | None:
        assert other is not None
        others = other.records_of(RecordKind.REVISION, RevisionRecord, record.uid, record.replica)
        return others[0][1].final if others and others[0][1].messages == record.messages else None

    context = Context(
        entries={(entry.uid, entry.replica): entry for entry in folder.ledger()},
        labels=pairs.labels,
        rules=found,
        other_name=other_name,
        other=beside if other is not None else None,
    )

    def rows(wanted: Wanted) -> Iterator[Row]:
        for record in folder.records(RecordKind.REVISION, RevisionRecord):
            tally.add(record)
            if wanted(transcript_name(record)):
                yield transcript_row(record, context)

    return pack(rows, folder.count_records(RecordKind.REVISION), transcript_facets(context), budget_bytes=budget), tally


def list_answers(evaluation: EvaluationResult | None, budget: float) -> Listing | None:
    """The answers of the held-out prompts, before and after."""
    if evaluation is None:
        return None
    labels = {row.behaviour: row.label for row in evaluation.rows}

    def rows(wanted: Wanted) -> Iterable[Row]:
        return (answer_rows.answer_row(each, labels) for each in evaluation.answers if wanted(answer_rows.answer_name(each)))

    return pack(rows, len(evaluation.answers), answer_rows.answer_facets(labels), budget_bytes=budget)


def list_suite_answers(folder: RunFolder, suites: Iterable[SuiteResult], budget: float) -> Listing | None:
    """What every model answered to every prompt of the suites."""
    order: dict[str, None] = {}
    labels: dict[str, str] = {}
    for suite in suites:
        order |= dict.fromkeys(model.model for model in suite.models)
        labels |= {each.behaviour: each.label for model in suite.models for each in model.behaviours}
    together = answer_rows.asked_together(folder.measurements(SUITE_ANSWERS, SuiteAnswer), list(order))

    def rows(wanted: Wanted) -> Iterable[Row]:
        return (
            answer_rows.suite_answer_row(each, labels) for each in together if wanted(answer_rows.suite_answer_name(each[0]))
        )

    return pack(rows, len(together), answer_rows.suite_answer_facets(labels), budget_bytes=budget)
