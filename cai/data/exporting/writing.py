"""Records → the folder of an export, in a stream: one pass for each file, and nothing held but counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from cai.data.exporting.files import file_name, write_table
from cai.data.exporting.folders import refuse_foreign_folder, whole_folder
from cai.data.exporting.formats import ExportFormat, Judge, SoftLabels, Table, Unfit
from cai.data.exporting.lengths import TokenCounter
from cai.data.exporting.outcomes import ExportOutcome, Lengths, TableOutcome
from cai.data.prompts import parse_messages
from cai.data.rows import TOOLS, Row, RowKind
from cai.data.tool_messages import parse_tools
from cai.data.transcripts import split_exchange
from cai.errors import DataError
from cai.records import PreferenceRecord
from cai.store.files import write_bytes_atomically
from constitution.messages import Message, spelt, tools_of, with_tools

CARD = "README.md"
Given = TypeVar("Given")
Exchanges: TypeAlias = tuple[tuple[Message, ...], tuple[str, ...]]
"""A prompt, and the replies to it."""


@dataclass(frozen=True)
class Source:
    """Where rows come from. Both give all their rows anew at each call.

    Args:
        pairs: The labelled pairs.
        supervised: Supervised rows, as `cai.data.rows.sft_rows` makes them.
        constitution: Name of the constitution.
        judges: The principles, for formats that tell them.
    """

    pairs: Callable[[], Iterator[PreferenceRecord]]
    supervised: Callable[[], Iterator[Row]]
    constitution: str = ""
    judges: tuple[Judge, ...] = ()


@dataclass(frozen=True)
class Choices:
    """What a user chose.

    Args:
        threshold: Leave out pairs whose `p_chosen` is below, in [0.5, 1].
        test_share: Share of the prompts that goes to a test part, in (0, 1); None: no parts.
        counter: Counts lengths; None: nobody does.
        tokenizer: What to say of it.
    """

    threshold: float | None = None
    test_share: float | None = None
    counter: TokenCounter | None = None
    tokenizer: str = ""


def write_export(
    source: Source, form: ExportFormat, folder: Path, choices: Choices, card: Callable[[ExportOutcome], str]
) -> ExportOutcome:
    """Write a whole export, its card included: there under its name when all is written, and not before.

    Args:
        source: Of the rows.
        form: The format.
        folder: Where to: a new or an empty folder, or that of an earlier export, which is replaced.
        choices: Threshold, parts, lengths.
        card: Makes the card.

    Raises:
        DataError: If there are no rows, or labels that the format cannot carry and nobody said from where on they count.
        StoreError: If something else stands there, the disk is full, or it cannot be written.
    """
    refuse_foreign_folder(folder)
    _refuse_hardening(source, form, choices)
    outcome = ExportOutcome(form, [], choices.threshold, choices.tokenizer)
    measured: dict[tuple[RowKind, int], Lengths] = {}
    with whole_folder(folder, form.name) as work:
        for pairs in form.pairs:
            outcome.tables.append(
                _Writer(pairs, source.pairs, _of_pair, "preferences", form, choices, source).write(work, measured)
            )
        for supervised in form.supervised:
            given = source.supervised
            outcome.tables.append(_Writer(supervised, given, _of_row, "sft", form, choices, source).write(work, measured))
        _refuse_nothing(outcome)
        files = {each.table.name: each.files for each in outcome.written()}
        if form.extras is not None:
            for name, text in form.extras(files).items():
                write_bytes_atomically(work / name, text.encode())
        write_bytes_atomically(work / CARD, card(outcome).encode())
    return outcome


def part_of(prompt: Sequence[Message], test_share: float) -> int:
    """0 for the training part, 1 for the test part: decided by the prompt alone, so that no prompt is in both."""
    digest = hashlib.sha256("\0".join(":".join(spelt(each)) for each in prompt).encode("utf-8", "surrogatepass")).digest()
    return int(int.from_bytes(digest[:8]) < test_share * 2**64)


@dataclass
class _Writer(Generic[Given]):
    """Writes one table, part by part."""

    table: Table[Given]
    given: Callable[[], Iterator[Given]]
    read: Callable[[Given], Exchanges]
    kind: RowKind
    form: ExportFormat
    choices: Choices
    source: Source

    def write(self, work: Path, measured: dict[tuple[RowKind, int], Lengths]) -> TableOutcome:
        """Write the files into `work`; `measured` are the lengths that other tables of the same rows have counted."""
        self._outcome = TableOutcome(self.table)
        self._to_count: Lengths | None = None
        if self.choices.counter is not None and self.table.limit is not None:
            key = (self.kind, self.table.limit.tokens)
            if key not in measured:
                self._to_count = measured[key] = Lengths()
            self._outcome.lengths = measured[key]
        head = self.form.head(self.source.constitution, self.source.judges) if self.form.head else None
        named = self.form.split_names.get(self.table.name)
        parts = list(named or ("train", "test"))
        if self.choices.test_share is None:
            parts = parts[:1]
        for number, split in enumerate(parts):
            shown = split if named or self.choices.test_share is not None else ""
            name = file_name(self.table.name, self.form.container, shown)
            count = write_table(work / name, self.form.container, self.kind, self._rows(number), head)
            if count:
                self._outcome.files[split], self._outcome.rows[split] = name, count
            else:
                self._outcome.empty.append(split)
        return self._outcome

    def _rows(self, part: int) -> Iterator[Row]:
        share = self.choices.test_share
        for each in self.given():
            prompt, replies = self.read(each)
            if share is not None and part_of(prompt, share) != part:
                continue
            row = self._row(each, prompt, replies)
            if row is None:
                continue
            if self._to_count is not None:
                self._measure(prompt, replies, self._to_count)
            yield row

    def _row(self, given: Given, prompt: Sequence[Message], replies: Sequence[str]) -> Row | None:
        """The row, or None where it is left out, which is counted."""
        outcome, threshold = self._outcome, self.choices.threshold
        pair = given if isinstance(given, PreferenceRecord) else None
        if pair is not None and threshold is not None and pair.p_chosen < threshold:
            outcome.below_threshold += 1
            return None
        try:
            _refuse_without_utf8(prompt, replies)
            self._refuse_tools(prompt)
            row = self.table.row(given, outcome.notes)
        except Unfit as unfit:
            outcome.left_out[str(unfit)] += 1
            return None
        outcome.tools += bool(tools_of(prompt))
        if pair is not None:
            outcome.soft += pair.p_chosen < 1.0
            outcome.gaps.add(pair)
        return row

    def _refuse_tools(self, prompt: Sequence[Message]) -> None:
        if tools_of(prompt) and not self.form.tools:
            raise Unfit(f"a conversation with tools, for which {self.form.name} has no place")

    def _measure(self, prompt: Sequence[Message], replies: Sequence[str], lengths: Lengths) -> None:
        assert self.choices.counter is not None, "lengths are counted only where there is one"
        assert self.table.limit is not None, "and a limit"
        tokens = [self.choices.counter.exchange(prompt, reply) for reply in replies]
        known = [each for each in tokens if each is not None]
        if len(known) < len(tokens):
            lengths.unrendered += 1
            return
        lengths.counted += 1
        lengths.over += max(known) > self.table.limit.tokens


def _of_pair(pair: PreferenceRecord) -> Exchanges:
    return pair.prompt, (pair.chosen, pair.rejected)


def _of_row(row: Row) -> Exchanges:
    if TOOLS in row:
        exchange = split_exchange(with_tools(parse_messages(row["messages"]), parse_tools(row[TOOLS])))
        return exchange.prompt, (exchange.reply or "",)
    messages = tuple(Message.model_validate(each) for each in row["messages"])
    return messages[:-1], (messages[-1].content,)


def _refuse_without_utf8(prompt: Sequence[Message], replies: Sequence[str]) -> None:
    try:
        "".join((*(text for each in prompt for text in spelt(each)), *replies)).encode()
    except UnicodeEncodeError as error:
        raise Unfit("half a surrogate pair, which has no UTF-8 form") from error


def _refuse_hardening(source: Source, form: ExportFormat, choices: Choices) -> None:
    """Labels short of certain go into a format without a place for them only when it was said from where on they count."""
    if choices.threshold is not None or not any(each.labels is SoftLabels.NONE for each in form.pairs):
        return
    soft = sum(pair.p_chosen < 1.0 for pair in source.pairs())
    if soft:
        raise DataError(
            f"{form.name} has no place for how sure a label is, and {soft:,} of the labels are short of certain.",
            "Say from where on a label counts: --threshold 0.75 leaves out the weaker ones, --threshold 0.5 takes them all.",
        )


def _refuse_nothing(outcome: ExportOutcome) -> None:
    if outcome.written():
        return
    reasons = [f"- {each}" for each in outcome.told() if each not in outcome.format.options]
    what = "pairs" if not outcome.format.supervised else "rows"
    told = "\n".join([f"There are no {what} to write as {outcome.format.name}.", *reasons])
    raise DataError(told, "Lower --threshold, take another format, or see `cai status` for what became of the inputs.")
