"""Transcripts as rows of a list: draft → critique → revision with its word diff, how it ended, and its label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cai.records import (
    GateCheck,
    LedgerEntry,
    Outcome,
    PreferenceRecord,
    RevisionRecord,
    Round,
    UndecidedRecord,
    Verdict,
)
from cai.report.listing import Facet, Part, Row, Turn, diff, sides, turn
from cai.report.texts import shortened, signed_nats
from constitution.tool_text import as_text

CUT = ("warn", "cut at its token limit")
TRIMMED = ("note", "cut at its token limit; ends with its last whole sentence")
OUTCOMES: dict[Outcome, str] = {
    Outcome.PAIR: "became a pair",
    Outcome.KEPT: "kept without a pair",
    Outcome.FILTERED: "filtered out",
    Outcome.FAILED: "failed",
    Outcome.PENDING: "pending",
}
LABELS = {
    "better": "the revision is preferred",
    "worse": "got worse: the draft is preferred",
    "samples": "one of two samples is preferred",
    "undecided": "undecided",
    "none": "no label",
}
BESIDE = {"other": "another final answer", "same": "the same final answer", "missing": "not in the other run"}


@dataclass(frozen=True, slots=True)
class Label:
    """What was said of one pair of answers. `kind`: a key of `LABELS`."""

    kind: str
    words: str

    @classmethod
    def of(cls, pair: PreferenceRecord | UndecidedRecord) -> Label:
        """Of a stored pair."""
        if isinstance(pair, UndecidedRecord):
            return cls("undecided", f"The label is undecided: {pair.reason} (margin {signed_nats(pair.margin_nats)})")
        sources = pair.chosen_source, pair.rejected_source
        kind = "better" if sources == ("revision", "draft") else "worse" if sources == ("draft", "revision") else "samples"
        chosen = f"The {pair.chosen_source}" if pair.chosen_source != "sample" else f"Sample {pair.chosen_index}"
        by = ", by people" if pair.label_source == "people" else ""
        return cls(
            kind, f"{chosen} was chosen with probability {pair.p_chosen:.2f} (margin {signed_nats(pair.margin_nats)}){by}"
        )


@dataclass(frozen=True)
class Context:
    """What transcripts are shown with.

    Args:
        entries: (uid, replica) → its line in the ledger.
        labels: (uid, replica) → what was said of its pairs.
        rules: uid → rules of the filters that found something.
        other_name: Of the run beside this one, "" for none.
        other: The final answer there, None where there is none.
    """

    entries: Mapping[tuple[str, int], LedgerEntry]
    labels: Mapping[tuple[str, int], Sequence[Label]]
    rules: Mapping[str, Sequence[str]]
    other_name: str = ""
    other: Callable[[RevisionRecord], str | None] | None = None


def transcript_facets(context: Context) -> list[Facet]:
    """What transcripts can be filtered by."""
    facets = [
        Facet("changed_by", "Changed by"),
        Facet("principle", "Principle asked"),
        Facet("verdict", "Verdict", {"fault": "fault found", "nothing_to_change": "nothing to change"}),
        Facet("changed", "Text", {"yes": "changed", "no": "kept"}),
        Facet("label", "Label", LABELS),
        Facet("outcome", "Outcome", {str(outcome): words for outcome, words in OUTCOMES.items()}),
        Facet("gate", "Gate", {"open": "let in", "closed": "turned down"}),
        Facet("calls", "Calls of tools", {"bad": "a revision’s cannot be made"}),
        Facet("rule", "Filter found"),
        Facet("tag", "Tag"),
    ]
    return [*facets, Facet("beside", f"In {context.other_name}", BESIDE)] if context.other else facets


def transcript_name(record: RevisionRecord) -> str:
    """The name that a transcript is linked to by."""
    return f"{record.uid}/{record.replica}" if record.replica else record.uid


def transcript_row(record: RevisionRecord, context: Context) -> Row:
    """One transcript, in words."""
    key = record.uid, record.replica
    entry = context.entries.get(key) or LedgerEntry(uid=record.uid, replica=record.replica, outcome=Outcome.PENDING)
    labels = context.labels.get(key, ())
    other = context.other(record) if context.other else None
    turns = [turn(message.role, message.role, body=message.content) for message in as_text(record.messages)]
    cut = [CUT] if record.draft_cut else [TRIMMED] if record.draft_trimmed else []
    turns.append(turn("draft", "draft", *cut, body=record.draft))
    turns += _rounds(record)
    if other is not None:
        turns.append(
            sides(("this run", record.final, ()), (context.other_name, other, ()))
            if other != record.final
            else turn("note", body=f"{context.other_name} ends with the same words.")
        )
    facets: dict[str, Sequence[str]] = {
        "changed_by": _changed_by(record),
        "principle": [each.principle_id for each in record.rounds],
        "verdict": [str(each.verdict) for each in record.rounds],
        "changed": ["yes" if record.changed else "no"],
        "label": [label.kind for label in labels] or ["undecided" if entry.reason.startswith("undecided") else "none"],
        "outcome": [str(entry.outcome)],
        "gate": ["open" if each.gate.accepted else "closed" for each in record.rounds if each.gate],
        "calls": ["bad"] if record.bad_calls else [],
        "rule": context.rules.get(record.uid, ()),
        "tag": record.tags,
        "beside": ["missing" if other is None else "same" if other == record.final else "other"] if context.other else [],
    }
    return Row(
        name=transcript_name(record),
        line=shortened(as_text(record.messages)[-1].content, 140),
        tags=tuple(_tags(record, labels)),
        turns=tuple(turns),
        end=tuple(_end(record, entry, labels)),
        facets=facets,
    )


def _rounds(record: RevisionRecord) -> Iterator[Turn]:
    several, current = len(record.rounds) > 1, record.draft
    for each in record.rounds:
        number = f" {each.round + 1}" if several else ""
        yield _critique(each, number)
        for retry, rejected in enumerate(each.gate.rejected if each.gate else ()):
            yield turn(
                "rejected",
                f"revision{number}{f', retry {retry}' if retry else ''}",
                ("bad", "turned down by the gate"),
                *([CUT] if rejected.revision_cut else []),
                *([("muted", rejected.note)] if rejected.note else []),
                body=diff(current, rejected.revision),
                notes=_checks(rejected.checks),
            )
        if each.revision is not None:
            yield turn(
                "revision",
                f"revision{number}",
                *([CUT] if each.revision_cut else []),
                *([("muted", each.note)] if each.note else []),
                body=diff(current, each.revision),
                notes=_checks(each.gate.checks) if each.gate else (),
            )
            current = each.revision
        elif each.note:
            yield turn("note", body=each.note)


def _critique(of: Round, number: str) -> Turn:
    fault = of.verdict is Verdict.FAULT
    return turn(
        "critique",
        f"critique{number}",
        ("principle", of.principle_id),
        ("bad", "fault found") if fault else ("good", "nothing to change"),
        *([CUT] if of.critique_cut else []),
        body=of.critique or "No critique was asked for.",
    )


def _checks(made: Sequence[GateCheck]) -> list[tuple[str, str]]:
    return [
        (
            "worse" if each.worse else "held",
            f"{'worse' if each.worse else 'no worse'} under {each.principle_id} ({each.role}): "
            f"{signed_nats(each.before_nats)} → {signed_nats(each.after_nats)}",
        )
        for each in sorted(made, key=lambda each: not each.worse)
    ]


def _changed_by(record: RevisionRecord) -> list[str]:
    """Principles whose revision stands and is not the text before it."""
    found: list[str] = []
    current = record.draft
    for each in record.rounds:
        if each.revision is not None and each.revision != current:
            found.append(each.principle_id)
            current = each.revision
    return found


def _tags(record: RevisionRecord, labels: Sequence[Label]) -> Iterator[tuple[str, str]]:
    if record.changed:
        yield "after", "revised"
    elif record.gate_closed:
        yield "bad", "turned down"
    else:
        yield "unclear", "kept" if record.rounds else "no principle applies"
    if record.bad_calls:
        yield "bad", "bad call"
    kinds = {label.kind for label in labels}
    if "worse" in kinds:
        yield "bad", "got worse"
    if "undecided" in kinds:
        yield "few", "undecided"


def _end(record: RevisionRecord, entry: LedgerEntry, labels: Sequence[Label]) -> Iterator[Part]:
    reason = f": {entry.reason}" if entry.reason else ""
    yield "swatch", str(entry.outcome)
    yield f"{OUTCOMES[entry.outcome]}{reason}. {' '.join(f'{label.words}.' for label in labels)} ".replace("  ", " ")
    yield "mono", record.uid + (f" replica {record.replica}" if record.replica else "")
