"""What an evaluation by suites found, on the terminal and as JSON. Labels and names come from files: printed as text only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cai.cli.terminal import tables, visible
from cai.evaluation.agents.scenarios import behaviours
from cai.evaluation.results import BehaviourRow
from cai.evaluation.suite_files import BehaviourEntry
from cai.evaluation.suite_reading import AGENT_SUITE, LAB_SUITE, read_suite, shipped_suites
from cai.evaluation.suite_results import Comparison, MeasureChange, ModelResult, SuiteResult
from cai.evaluation.suites import Behaviour
from cai.evaluation.wording import amount, read, read_measure, sentences

_TONES = {"better": "green", "worse": "bold red", "few": "yellow", "unclear": "", "same": ""}


def _with_twins(counted: Mapping[str, Behaviour | BehaviourEntry]) -> list[str]:
    """Each fault with its twin, in words."""
    faults = [each for each in counted.values() if each.kind == "fault"]
    return [f"{each.label} ↔ {counted[each.twin].label}" if each.twin else each.label for each in faults]


def print_list() -> None:
    """The shipped suites, with what they count."""
    out = tables()
    table = Table(title="Suites", title_justify="left", title_style="bold")
    for column in ("suite", "what it asks", "counts"):
        table.add_column(column)
    for name, path in shipped_suites().items():
        file = read_suite(path).file
        sections = [each for each in ("calibration", "drift", "preference") if getattr(file, each) is not None]
        counted = _with_twins({each.id: each for each in file.behaviours})
        table.add_row(name, Text(file.description.strip()), Text("\n".join([*counted, *sections])))
    table.add_row(LAB_SUITE, "The embedded small world's held-out prompts, judged by exact truth.", "seven families")
    faults = _with_twins({each.id: each for each in behaviours()})
    table.add_row(
        AGENT_SUITE, "What a model does with files and mails in a small world, judged by facts.", Text("\n".join(faults))
    )
    out.print(table)


def suites_json(results: Sequence[SuiteResult]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "suites": [result.model_dump(mode="json") for result in results],
        "sentences": {
            result.suite: {comparison.after: sentences(comparison) for comparison in result.comparisons} for result in results
        },
    }


def print_suites(results: Sequence[SuiteResult], console: Console | None = None) -> None:
    """Every suite: tables, then what they say."""
    out = console or tables()
    for result in results:
        out.print()
        _heading(result, out)
        if result.comparisons:
            for comparison in result.comparisons:
                out.print(_compared(result, comparison))
                for line in sentences(comparison):
                    out.print(Text(f"  {visible(line)}"))
        else:
            out.print(_alone(result.models[0]))
        for model in result.models:
            _footnotes(model, out)
    tests = max((result.tests_corrected_for for result in results), default=0)
    if tests:
        out.print()
        note = (
            "Intervals: 95 %; of shares Wilson's over clusters (prompts about one thing), of changes a bootstrap of clusters. "
            f"p: McNemar with the changes of a cluster going together, corrected for {tests} tests ({results[0].correction})."
        )
        out.print(Text(note))


def _heading(result: SuiteResult, out: Console) -> None:
    answers = ", ".join("greedy" if each == 0 else f"T={each:g}" for each in result.temperatures)
    out.print(Text(visible(result.suite), style="bold").append(Text(f"  {visible(result.description)}", style="not bold")))
    if result.judge:
        out.print(Text(f"  judged by {visible(result.judge)}; {answers}, seeds: {result.seeds}"))
    for quality in result.judges:
        right = f"right in {quality.right}" if quality.right is not None else "gave no verdict"
        slot = f"; same letter in both orders {quality.same_slot}" if quality.same_slot is not None else ""
        warning = "; NOT SHOWN TO BE BETTER THAN A COIN" if quality.at_chance else ""
        out.print(
            Text(
                f"  the judge, {visible(quality.judge)}, on pairs whose better answer is known: {right}{slot}{warning}",
                style="yellow" if quality.at_chance else "",
            )
        )


def _compared(result: SuiteResult, comparison: Comparison) -> Table:
    several = len(result.comparisons) > 1
    title = f"{visible(comparison.before)} → {visible(comparison.after)}"
    table = Table(title=Text(title) if several else None, title_justify="left")
    table.add_column("what")
    for name in ("before", "after", "change", "p", "prompts (clusters)"):
        table.add_column(name, justify="right")
    for row in sorted(comparison.rows, key=lambda row: row.kind == "control"):
        _add_behaviour(table, row)
    table.add_section()
    for change in comparison.measures:
        _add_measure(table, change)
    return table


def _add_behaviour(table: Table, row: BehaviourRow) -> None:
    few = "" if row.enough else " too few"
    table.add_row(
        Text(visible(row.label) + (" (control)" if row.kind == "control" else "")),
        Text(f"{row.before:.0%} [{row.before_low:.0%}, {row.before_high:.0%}]"),
        Text(f"{row.after:.0%} [{row.after_low:.0%}, {row.after_high:.0%}]"),
        Text(f"{100 * row.difference:+.0f} [{100 * row.difference_low:+.0f}, {100 * row.difference_high:+.0f}]"),
        _p(row.p_corrected if row.p_corrected is not None else row.mcnemar_p),
        f"{row.prompts} ({row.independent}){few}",
        style=_TONES[read(row)],
    )


def _add_measure(table: Table, change: MeasureChange) -> None:
    scale = 100 if change.unit == "share" else 1
    form = "+.0f" if scale == 100 else "+.2g"
    table.add_row(
        Text(visible(change.label)),
        Text(amount(change.before, change.unit)),
        Text(amount(change.after, change.unit)),
        Text(f"{scale * change.difference:{form}} [{scale * change.low:{form}}, {scale * change.high:{form}}]"),
        "" if change.p is None else _p(change.p_corrected if change.p_corrected is not None else change.p),
        f"{change.rows} ({change.clusters})",
        style=_TONES[read_measure(change)],
    )


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _alone(model: ModelResult) -> Table:
    table = Table(title=Text(visible(model.model)), title_justify="left")
    table.add_column("what")
    table.add_column("found", justify="right")
    table.add_column("prompts (clusters)", justify="right")
    for row in model.behaviours:
        name = visible(row.label) + (" (control)" if row.kind == "control" else "")
        table.add_row(Text(name), Text(f"{row.share:.0%} [{row.low:.0%}, {row.high:.0%}]"), f"{row.prompts} ({row.clusters})")
    for figure in model.measures:
        low, high = amount(figure.low, figure.unit), amount(figure.high, figure.unit)
        table.add_row(
            Text(visible(figure.label)),
            Text(f"{amount(figure.value, figure.unit)} [{low}, {high}]"),
            f"{figure.rows} ({figure.clusters})",
        )
    return table


def _footnotes(model: ModelResult, out: Console) -> None:
    for each in model.confidence:
        found = each.calibration
        gap = each.mean_confidence - each.accuracy
        unparsed = f"; {each.unparsed} answers do not say how sure they are" if each.unparsed else ""
        words = f"; {each.by_word} say it in a word" if each.by_word else ""
        out.print(
            Text(
                f"  {visible(model.model)}: {each.way} confidence {each.mean_confidence:.0%}, right {each.accuracy:.0%} "
                f"({'over' if gap > 0 else 'under'}-confident by {abs(100 * gap):.0f} points); "
                f"ECE {found.ece:.2f} [{found.ece_interval.low:.2f}, {found.ece_interval.high:.2f}], Brier {found.brier:.3f}, "
                f"{found.labels} answers{unparsed}{words}"
            )
        )
        for part in found.bins:
            held = f"sure {part.mean_p:.2f}  right {part.mean_target:.2f} {'█' * round(20 * part.mean_target)}"
            out.print(Text(f"      {part.low:.2f}–{part.high:.2f}  {held} n={part.labels}"))
    for measure, reason in model.unmeasured.items():
        out.print(Text(f"  {visible(model.model)}: {visible(measure)} is not measured: {visible(reason)}", style="yellow"))
    for cause, count in model.failures.items():
        out.print(Text(f"  {visible(model.model)}: {count} left out ({visible(cause)})", style="yellow"))
