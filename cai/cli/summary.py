"""What a run or a training came to, on the terminal. Model text is printed as text: never as markup, never as control codes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cai.cli.eval_shown import print_suites, suites_json
from cai.cli.label_quality import print_label_quality
from cai.cli.terminal import visible
from cai.diffs import word_diff
from cai.evaluation.results import BehaviourRow, EvaluationResult
from cai.loop import GateTally
from cai.pipeline import RunSummary
from cai.records import GateCheck, Outcome, RevisionRecord
from cai.training.results import TrainingResult
from constitution.tool_text import as_text

_STYLES = {"kept": "", "removed": "red strike", "added": "green"}
_MARKS = {"kept": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
_REWRITTEN = 0.3
"""With less than this share of its signs kept, a text was written anew: a diff would only hide it."""


def diff_text(before: str, after: str, *, colour: bool) -> Text:
    """Both texts as one, with what was taken out and put in: by colour, or as `[-out-]` and `{+in+}`.

    A text written anew is shown as it is.
    """
    pieces = word_diff(before, after)
    kept = sum(len(piece.text) for piece in pieces if piece.kind == "kept")
    if kept < _REWRITTEN * len(after):
        return Text(visible(after), style=_STYLES["added"])
    text = Text()
    for piece in pieces:
        left, right = ("", "") if colour else _MARKS[piece.kind]
        text.append(f"{left}{visible(piece.text)}{right}", style=_STYLES[piece.kind])
    return text


def print_summary(summary: RunSummary, console: Console | None = None) -> None:
    """Ledger, labels, training, before and after, and where everything lies."""
    out = console or Console(highlight=False)
    out.print(_ledger(summary))
    if summary.gate is not None:
        out.print(Text(gate_line(summary.gate)))
    if summary.bad_calls:
        call = " calls" if summary.bad_calls == 1 else "s call"
        out.print(Text(f"{summary.bad_calls:,} revision{call} a tool as it cannot be called; the text before was kept."))
    if summary.quality is not None:
        print_label_quality(summary.quality, out)
    for stage, result in summary.training.items():
        print_training(stage, result, out)
    if summary.evaluation is not None:
        print_evaluation(summary.evaluation, out)
    if summary.suites:
        print_suites(summary.suites, out)
    if summary.waiting:
        out.print(Text(f"{summary.waiting}; they are in no data set before `cai review {summary.folder}`.", style="yellow"))
    print_places(summary, out)


def print_places(summary: RunSummary, out: Console) -> None:
    """Where everything lies."""
    places: list[tuple[str, Any]] = [("report", summary.report)]
    if (summary.folder / "datasets").is_dir():
        places.append(("data sets", summary.folder / "datasets"))
    if summary.model is not None:
        places.append(("trained model", summary.model))
    table = Table.grid(padding=(0, 2))
    for name, place in places:
        table.add_row(name, Text(str(place), overflow="fold"))
    out.print(table)


def print_training(name: str, result: TrainingResult, console: Console | None = None) -> None:
    """One line of figures, and every warning."""
    out = console or Console(highlight=False)
    last = result.last_metrics
    figures = [f"{key} {last[key]:.3f}" for key in ("loss", "rewards/accuracies", "rewards/margins") if key in last]
    first = {row.reason: row.uid for row in reversed(result.dropped)}
    dropped = "".join(
        f", {count} left out ({reason}; the first is {visible(first[reason])})"
        for reason, count in result.dropped_counts.items()
    )
    anchors = f" and {result.anchors} anchors" if result.anchors else ""
    out.print(
        Text(
            f"{name}: {_counted(result.trained_rows, 'row')}{anchors} in {_counted(result.steps, 'step')}, "
            f"{result.seconds:.0f} s{dropped}; "
            f"last step: {', '.join(figures)}"
        )
    )
    held_out = result.held_out_metrics
    if held_out:
        names = ("loss", "rewards/accuracies", "rewards/margins", "kl")
        told = [f"{name} {_with_interval(held_out, f'eval/{name}')}" for name in names if f"eval/{name}" in held_out]
        out.print(Text(f"  held out ({result.held_out} rows): {', '.join(told)}"))
    if result.ending:
        out.print(Text(f"  {result.ending}"))
    for mixed in result.mixed:
        out.print(Text(f"  {mixed.rows} rows of {visible(mixed.path)} mixed in: {mixed.share:.1%} of what was learned"))
    for warning in result.warnings:
        out.print(Text(f"  ! {warning}", style="yellow"))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _with_interval(metrics: dict[str, float], name: str) -> str:
    low, high = metrics.get(f"{name}/low"), metrics.get(f"{name}/high")
    return f"{metrics[name]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")


def print_evaluation(result: EvaluationResult, console: Console | None = None) -> None:
    """The before/after table with intervals; faults first, then controls."""
    out = console or Console(highlight=False)
    out.print(_before_after(f"Before and after, judged by {result.judge}; share of bad answers, 95 % intervals", result.rows))
    for line in result.verdicts():
        out.print(Text(f"  {line}"))
    if result.failures:
        out.print(Text(f"  {result.failures} answers could not be given or judged, and are in no share.", style="yellow"))
    for shown in result.showcase:
        out.print()
        out.print(Text(f"“{visible(shown.prompt)}”", style="bold"))
        out.print(Text(f"  before: {visible(shown.before)}"))
        out.print(Text(f"  after:  {visible(shown.after)}"))
    out.print()


def print_transcripts(records: Iterable[RevisionRecord], out: Console) -> None:
    """Prompt, draft → revision as word diff, the critique between them, and what the gate made of it."""
    for record in records:
        out.print(Text(f"“{visible(as_text(record.messages)[-1].content)}”", style="bold"))
        before = record.draft
        out.print(Text(f"  draft:    {visible(before)}"))
        for each in record.rounds:
            out.print(Text(f"  critique: {visible(each.critique)}  [{each.principle_id}]", style="cyan"))
            if each.gate is not None:
                for rejected in each.gate.rejected:
                    _print_revision("  rejected: ", before, rejected.revision or "(nothing)", out)
                    out.print(Text(f"  gate:     {_checks(rejected.checks)}", style="red"))
            if each.note and each.revision is None:
                out.print(Text(f"  revision: none: {visible(each.note)}", style="yellow"))
            if each.revision is not None:
                _print_revision("  revision: ", before, each.revision, out)
                before = each.revision
            if each.gate is not None:
                ruling = f"let in: {_checks(each.gate.checks)}" if each.gate.accepted else "the text before is kept"
                out.print(Text(f"  gate:     {ruling}", style="green" if each.gate.accepted else "red"))
        out.print()


def _print_revision(title: str, before: str, after: str, out: Console) -> None:
    out.print(Text(title).append_text(diff_text(before, after, colour=out.color_system is not None)))


def _checks(checks: Iterable[GateCheck]) -> str:
    """Log-odds in nats before → after for each principle that was asked; what got worse comes first."""
    shown = [
        f"{'worse' if each.worse else 'no worse'} under {visible(each.principle_id)} ({each.role}): "
        f"{each.before_nats:+.1f} → {each.after_nats:+.1f} nats"
        for each in sorted(checks, key=lambda each: not each.worse)
    ]
    return "; ".join(shown) or "nothing to ask: the text is the same"


def gate_line(tally: GateTally) -> str:
    """What the gate did, in one line."""
    if not tally.revisions:
        return "gate: no revision came before it"
    parts = [
        f"gate: {tally.turned_down} of {tally.revisions} revisions turned down ({tally.turned_down / tally.revisions:.0%})"
    ]
    if tally.retries:
        parts.append(f"{tally.let_in_after_retry} let in after a retry ({tally.retries} retries)")
    if tally.reasons:
        worse = (f"{visible(each.principle_id)} ({each.role}) {each.count}" for each in tally.reasons)
        parts.append(f"worse under {', '.join(worse)}")
    return "; ".join(parts)


def summary_json(summary: RunSummary) -> str:
    """The same for programs."""
    content: dict[str, Any] = {
        "folder": str(summary.folder),
        "ledger": {outcome.value: count for outcome, count in summary.ledger.items()},
        "reasons": [
            {"outcome": outcome.value, "reason": reason, "count": count} for (outcome, reason), count in summary.reasons.items()
        ],
        "gate": summary.gate.model_dump(mode="json") if summary.gate else None,
        **({"bad_calls": summary.bad_calls} if summary.bad_calls else {}),
        "labels": summary.quality.model_dump(mode="json") if summary.quality else None,
        "training": {stage.value: result.model_dump(mode="json") for stage, result in summary.training.items()},
        "evaluation": summary.evaluation.model_dump(mode="json", exclude={"answers"}) if summary.evaluation else None,
        **(suites_json(summary.suites) if summary.suites else {}),
        "model": str(summary.model) if summary.model else None,
        "report": str(summary.report),
        "waiting_for_review": {"pairs": summary.waiting.pairs, "rows": summary.waiting.rows},
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _ledger(summary: RunSummary) -> Table:
    total = sum(summary.ledger.values())
    table = Table(title=f"What became of {total} input rows", title_justify="left", title_style="bold")
    table.add_column("outcome")
    table.add_column("reason")
    table.add_column("rows", justify="right")
    order = list(Outcome)
    for (outcome, reason), count in sorted(summary.reasons.items(), key=lambda entry: (order.index(entry[0][0]), -entry[1])):
        table.add_row(outcome.value, Text(reason), str(count), style="red" if outcome is Outcome.FAILED else "")
    return table


def _before_after(title: str, rows: Sequence[BehaviourRow]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("behaviour")
    for name in ("before", "after", "change", "p", "prompts"):
        table.add_column(name, justify="right")
    for kind in ("fault", "control"):
        for row in (each for each in rows if each.kind == kind):
            table.add_row(
                Text(row.label + (" (control)" if kind == "control" else "")),
                f"{row.before:.0%} [{row.before_low:.0%}, {row.before_high:.0%}]".replace("[", "\\["),
                f"{row.after:.0%} [{row.after_low:.0%}, {row.after_high:.0%}]".replace("[", "\\["),
                f"{100 * row.difference:+.0f} [{100 * row.difference_low:+.0f}, {100 * row.difference_high:+.0f}]".replace(
                    "[", "\\["
                ),
                "<0.001" if row.mcnemar_p < 0.001 else f"{row.mcnemar_p:.3f}",
                str(row.prompts) + ("" if row.enough else " (too few)"),
            )
        table.add_section()
    broken = [(row.broken_before * row.answers, row.broken_after * row.answers, row.answers) for row in rows]
    if broken:
        answers = sum(n for _, _, n in broken)
        table.add_row(
            "broken text",
            f"{sum(b for b, _, _ in broken) / answers:.1%}",
            f"{sum(a for _, a, _ in broken) / answers:.1%}",
            "",
            "",
            "",
        )
    return table
