"""Results of principle tests on the terminal and as JSON. Texts of files and models are printed as text, never as markup."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from cai.authoring.metamorphic import Kept, Relation
from cai.authoring.principle_tests import CaseReport, ConstitutionReport, Result, Tally, tally
from cai.authoring.wording import explained, explained_check, margin_text
from cai.cli.terminal import tables, visible
from cai.engines.base import RequestFailure
from cai.records import Method

PROMPT_CHARS = 48
STYLES = {
    Result.PASSED: "green",
    Result.FAILED: "red",
    Result.BIASED: "red",
    Result.UNDECIDED: "yellow",
    Result.ERROR: "red",
}


def print_report(report: ConstitutionReport, *, model: str, seconds: float) -> None:
    """Every test, every failure in full, the principles, and what the relations came to."""
    out = tables()
    out.print(_tests(report, model))
    for each in report.tested:
        if each.result is not Result.PASSED:
            out.print()
            out.print(Text(f"{each.case.name} ({each.method}): {each.result.value}", style=STYLES[each.result]))
            for line in explained(each):
                out.print(Text(f"  {visible(line)}"))
    out.print()
    out.print(_principles(report))
    if any(each.checks for each in report.tested):
        out.print()
        out.print(_relations(report))
        for each in report.tested:
            for check in each.checks:
                # Swapped replies are told of above, where the test is called position-biased.
                if check.outcome in {Kept.BROKEN, Kept.ERROR} and check.relation.change is not None:
                    told = visible(explained_check(check, each.answer))
                    name = f"{each.case.name} ({each.method}), {check.relation.name}"
                    out.print(Text(f"  {check.outcome.value}: {name}: {told}", style="yellow"))
    if report.untested:
        out.print(Text(f"Without tests: {', '.join(report.untested)}.", style="yellow"))
    for method in _methods(report):
        counted = tally(each for each in report.tested if each.method == method)
        others = [f"{n} {result.value}" for result, n in counted.counts.items() if n and result is not Result.PASSED]
        out.print(Text(f"{method}: {_share(counted)} passed{''.join(f', {each}' for each in others)}", style="bold"))
    if "letters" not in (methods := _methods(report)) and methods:
        alone = " and ".join(methods)
        out.print(Text(f"{alone} sees one reply at a time: no orders to swap, no labels to rename; --method both adds them"))
    critic = report.critic()
    if critic.judged:
        out.print(
            Text(
                f"The critic finds a fault in {critic.faulted} of {critic.judged} worse replies, "
                f"and nothing to change in {critic.kept} of {critic.judged} better ones"
            )
        )
    out.print(Text(f"{report.computed} judged, {report.remembered} from the cache, {seconds:.0f} s"))


def _tests(report: ConstitutionReport, model: str) -> Table:
    title = Text(f"Tests of principles, judged by {visible(model)}; margins in nats")
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("principle", overflow="fold")
    table.add_column("test", justify="right")
    table.add_column("method")
    table.add_column("margin", justify="right")
    table.add_column("result", no_wrap=True)
    table.add_column("prompt")
    before = ""
    for each in report.tested:
        principle = each.case.principle.id
        table.add_row(
            "" if principle == before else principle,
            str(each.case.number),
            each.method,
            margin_text(each.answer),
            Text(each.result.value, style=STYLES[each.result]),
            Text(f"“{visible(_start(each.case.test.prompt))}”"),
        )
        before = principle
    return table


def _principles(report: ConstitutionReport) -> Table:
    table = Table(title="By principle", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("principle", overflow="fold")
    for method in _methods(report):
        table.add_column(f"{method}: passed, 95 % interval")
    if any(each.checks for each in report.tested):
        table.add_column("broken by", overflow="fold")
    for principle in _principle_ids(report):
        own = [each for each in report.tested if each.case.principle.id == principle]
        broken = [c.relation.name for each in own for c in each.checks if c.outcome is Kept.BROKEN]
        shares = [Text(_share(tally(each for each in own if each.method == method))) for method in _methods(report)]
        last = [", ".join(dict.fromkeys(broken))] if any(each.checks for each in report.tested) else []
        table.add_row(principle, *shares, *last)
    return table


def _relations(report: ConstitutionReport) -> Table:
    table = Table(title="What must not change a verdict", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("relation", no_wrap=True)
    table.add_column("method")
    for outcome in (Kept.HOLDS, Kept.BROKEN, Kept.UNDECIDED, Kept.NOT_APPLICABLE, Kept.ERROR):
        table.add_column("n/a" if outcome is Kept.NOT_APPLICABLE else outcome.value, justify="right")
    table.add_column("what must hold", overflow="fold")
    for row in _relation_rows(report):
        table.add_row(
            row["relation"],
            row["method"],
            *(str(row["outcomes"][outcome.value]) for outcome in Kept),
            Text(f"{row['statement']} ({row['source']})"),
        )
    return table


def report_json(report: ConstitutionReport, *, model: str, min_margin_nats: float, seconds: float) -> str:
    """The same for programs, with every margin."""
    content: dict[str, Any] = {
        "model": model,
        "min_margin_nats": min_margin_nats,
        "tests": [_test_json(each) for each in report.tested],
        "principles": [
            {"principle": principle, "method": method} | _tally_json(own)
            for principle in _principle_ids(report)
            for method in _methods(report)
            if (own := [e for e in report.tested if e.case.principle.id == principle and e.method == method])
        ],
        "overall": [
            {"method": method} | _tally_json([each for each in report.tested if each.method == method])
            for method in _methods(report)
        ],
        "critic": dataclasses.asdict(report.critic()),
        "relations": _relation_rows(report),
        "untested": list(report.untested),
        "judged": report.computed,
        "from_cache": report.remembered,
        "seconds": round(seconds, 1),
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _test_json(each: CaseReport) -> dict[str, Any]:
    return {
        "principle": each.case.principle.id,
        "test": each.case.number,
        "method": each.method,
        "result": each.result.value,
        **each.case.test.model_dump(),
        **_outcome_json(each.answer.outcome, each.method),
        "from_cache": each.answer.remembered,
        "relations": [
            {"relation": check.relation.name, "outcome": check.outcome.value, "note": check.note}
            | (_outcome_json(check.answer.outcome, each.method) if check.answer else {})
            for check in each.checks
        ],
    }


def _outcome_json(outcome: Any, method: Method) -> dict[str, Any]:
    if isinstance(outcome, RequestFailure):
        return {"margin_nats": None, "error": dataclasses.asdict(outcome)}
    first, second = outcome.parts_nats
    if method == "letters":
        return {"margin_nats": outcome.margin_nats, "orders": {"better_first": first, "better_second": second}}
    grounds = dict(zip(("better", "worse"), outcome.grounds, strict=False))  # pointwise has them
    return {"margin_nats": outcome.margin_nats, "log_odds": {"better": first, "worse": second}, "grounds": grounds}


def _tally_json(tested: Sequence[CaseReport]) -> dict[str, Any]:
    counted = tally(tested)
    return {
        "passed": counted.passed,
        "judged": counted.judged,
        "low": counted.interval.low if counted.interval else None,
        "high": counted.interval.high if counted.interval else None,
        "results": {result.value: count for result, count in counted.counts.items()},
    }


def _relation_rows(report: ConstitutionReport) -> list[dict[str, Any]]:
    found: dict[tuple[str, Method], list[tuple[str, Kept]]] = {}
    relations: dict[str, Relation] = {}
    for each in report.tested:
        for check in each.checks:
            relations[check.relation.name] = check.relation
            found.setdefault((check.relation.name, each.method), []).append((each.case.principle.id, check.outcome))
    return [
        {
            "relation": name,
            "method": method,
            "statement": relations[name].statement,
            "source": relations[name].source,
            "outcomes": {kept.value: sum(outcome is kept for _, outcome in each) for kept in Kept},
            "broken_principles": list(dict.fromkeys(principle for principle, outcome in each if outcome is Kept.BROKEN)),
        }
        for (name, method), each in found.items()
    ]


def _methods(report: ConstitutionReport) -> list[Method]:
    return list(dict.fromkeys(each.method for each in report.tested))


def _principle_ids(report: ConstitutionReport) -> list[str]:
    return list(dict.fromkeys(each.case.principle.id for each in report.tested))


def _share(counted: Tally) -> str:
    if counted.interval is None:
        return "none judged"
    return f"{counted.passed}/{counted.judged} [{counted.interval.low:.0%}, {counted.interval.high:.0%}]"


def _start(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= PROMPT_CHARS else f"{line[: PROMPT_CHARS - 1].rstrip()}…"
