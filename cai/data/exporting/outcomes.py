"""What came of an export: rows, rows left out with the reason, texts that were changed, and rows too long for a trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cai.data.exporting.formats import ExportFormat, Notes, SoftLabels, Table
from cai.data.length_gaps import LengthGaps
from cai.data.rows import TOOLS

TOOLS_HOLD = "what the assistant may call, as JSON; null where it may call nothing"


@dataclass
class Lengths:
    """Of one table: how many rows a trainer's own limit would touch. Counted while they go by."""

    counted: int = 0
    over: int = 0
    unrendered: int = 0
    """Rows that the tokenizer's chat template refuses: it would refuse them in the trainer, too."""


@dataclass
class TableOutcome:
    """Of one table.

    Args:
        table: It.
        files: Part (`train`, `test` …) → path in the export's folder.
        rows: The same parts → rows.
        empty: Parts that no row fell to, and that have no file.
        left_out: Reason → rows.
        notes: What was done to texts so that they fit → rows.
        below_threshold: Pairs left out since their label is weaker than asked for.
        tools: Rows written whose conversation has tools.
        soft: Pairs written whose label is not certain.
        gaps: Of the pairs written.
        lengths: None where no tokenizer was at hand, or no trainer has a limit.
    """

    table: Table[Any]
    files: dict[str, str] = field(default_factory=dict[str, str])
    rows: dict[str, int] = field(default_factory=dict[str, int])
    empty: list[str] = field(default_factory=list[str])
    left_out: Counter[str] = field(default_factory=Counter[str])
    notes: Notes = field(default_factory=Counter[str])
    below_threshold: int = 0
    soft: int = 0
    tools: int = 0
    gaps: LengthGaps = field(default_factory=LengthGaps)
    lengths: Lengths | None = None

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    @property
    def columns(self) -> Mapping[str, str]:
        """Name → what it holds; with that of tools where there are any."""
        return {**self.table.columns, TOOLS: TOOLS_HOLD} if self.tools else self.table.columns


@dataclass
class ExportOutcome:
    """Of a whole export.

    Args:
        format: It.
        tables: Of those with rows or with rows left out, in the format's order.
        threshold: Weakest label that was asked for; None: none.
        tokenizer: By which lengths were counted, in words; or why they were not.
    """

    format: ExportFormat
    tables: list[TableOutcome]
    threshold: float | None = None
    tokenizer: str = ""

    def written(self) -> list[TableOutcome]:
        return [each for each in self.tables if each.total]

    def told(self) -> Iterator[str]:
        """All that a user has to know, a sentence each: nothing is left out, changed or hardened in silence."""
        for each in self.tables:
            yield from self._told_of(each)
        yield from self.format.options
        if self.tokenizer:
            yield self.tokenizer

    def _told_of(self, each: TableOutcome) -> Iterator[str]:
        name = each.table.name
        if each.below_threshold:
            assert self.threshold is not None, "what left them out"
            yield f"{name}: {_rows(each.below_threshold, 'pair')} below p={self.threshold:g} left out"
        for reason, count in sorted(each.left_out.items()):
            yield f"{name}: {_rows(count)} left out: {reason}"
        for note, count in sorted(each.notes.items()):
            yield f"{name}: {_rows(count)}: {note}"
        if not each.total:
            yield f"{name}: no rows, and so no file"
        for part in each.empty if each.total else ():
            yield f"{name}: no row fell to the part `{part}`, and so there is no file of it"
        if each.soft and each.table.labels is not SoftLabels.USED and each.table.labels is not None:
            yield f"{name}: {_rows(each.soft, 'label')} short of certain: {each.table.labels.value}"
        limit, lengths = each.table.limit, each.lengths
        if limit is not None and lengths is not None and lengths.counted:
            share = lengths.over / lengths.counted
            yield (
                f"{name}: {share:.1%} of the rows ({lengths.over:,} of {lengths.counted:,}) are longer than {limit.tokens:,} "
                f"tokens, the default `{limit.setting}` of {limit.trainer}, and would be {limit.beyond}"
            )
        if lengths is not None and lengths.unrendered:
            yield f"{name}: {_rows(lengths.unrendered)} that the tokenizer's chat template refuses"


def _rows(count: int, what: str = "row") -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
