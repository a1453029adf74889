"""`cai test`: unit tests of principles against the labelling model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from cai.cli.check import CHECKS_FAILED
from cai.cli.run import ROWS_FAILED, AsJson, resumable
from cai.cli.try_ import EMBEDDED

if TYPE_CHECKING:
    from cai.authoring.principle_tests import ConstitutionReport
    from cai.cli.principle_test_plan import Plan
    from cai.engines.base import Engine
    from cai.store import RunFolder

MethodChoice: TypeAlias = Literal["pointwise", "letters", "yes_no", "contrast", "both"]

PolicyName = Annotated[
    str | None, typer.Option("--model", help=f"The policy: folder, hub id or the embedded model; default: {EMBEDDED}.")
]
JudgeName = Annotated[
    str | None,
    typer.Option(
        "--feedback", help="The model that judges, NAME or NAME+ADAPTER; default: the policy, the embedded with its adapter."
    ),
]
FromRun = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="RUN.yaml", help="Take feedback model, label settings and principles from this run; flags win."
    ),
]
CacheFolder = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="Where judged calls are kept; default: the user's cache folder.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Judge everything anew, and keep nothing.")]


def principle_tests(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATHS]…", help="Principle files and folders; default: the shipped ones.")
    ] = None,
    principle: Annotated[
        list[str] | None, typer.Option("--principle", "-p", help="Test only this principle. May be repeated.")
    ] = None,
    text: Annotated[
        str, typer.Option("-k", metavar="TEXT", help="Only tests whose principle, prompt or replies hold this text.")
    ] = "",
    model: PolicyName = None,
    feedback: JudgeName = None,
    config: FromRun = None,
    method: Annotated[
        MethodChoice | None,
        typer.Option(help="How to judge; `both`: pointwise and letters; default: as the run's labels do (`pointwise`)."),
    ] = None,
    min_margin: Annotated[
        float | None, typer.Option(min=0.0, metavar="NATS", help="Below it a test is undecided; default: as the labels (0.1).")
    ] = None,
    cache: CacheFolder = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the results as JUnit XML, too.")] = None,
    *,
    metamorphic: Annotated[
        bool, typer.Option("--metamorphic/--no-metamorphic", help="Try changes that must not change a verdict, too.")
    ] = True,
    allow_undecided: Annotated[bool, typer.Option("--allow-undecided", help="Undecided tests are no failures.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Broken metamorphic relations are failures.")] = False,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """Is each test of each principle judged as its author says? Exit code 4 if not, 3 if requests failed.

    Judged calls are kept by what determines them, so a second run judges only what an edit has changed. Metamorphic relations
    (on by default: they about double the calls) are reported beside the results; n/a where the test itself is undecided or
    position-biased, and so has no verdict to keep.
    """
    from cai.cli.principle_test_plan import opened_cache, plan_tests

    plan = plan_tests(paths, principle or [], text, model, feedback, config, cache, junit, no_cache=no_cache)
    from cai.authoring.metamorphic import Kept
    from cai.authoring.principle_tests import Result

    started = time.monotonic()
    chosen = method or plan.labels.method
    _refuse_unscored(plan, chosen)
    margin = plan.labels.min_margin_nats if min_margin is None else min_margin
    kept = "" if no_cache else " What is judged is kept; the same command goes on from here."
    with resumable(kept), opened_cache(cache, no_cache=no_cache) as folder:
        report = _judged(plan, chosen, margin, folder, metamorphic=metamorphic)
    seconds = time.monotonic() - started
    if junit is not None:
        from cai.authoring.junit import junit_xml
        from cai.store import write_bytes_atomically

        content = junit_xml(
            report, name=plan.constitution.name, seconds=seconds, allow_undecided=allow_undecided, strict=strict
        )
        write_bytes_atomically(junit, content)
    from cai.cli.tested import print_report, report_json

    if json:
        typer.echo(report_json(report, model=str(plan.model), min_margin_nats=margin, seconds=seconds))
    else:
        print_report(report, model=str(plan.model), seconds=seconds)
    results, outcomes = report.results(), report.outcomes()
    failed = results[Result.FAILED] + results[Result.BIASED] + (0 if allow_undecided else results[Result.UNDECIDED])
    if failed or (strict and outcomes[Kept.BROKEN]):
        raise typer.Exit(CHECKS_FAILED)
    if results[Result.ERROR] or outcomes[Kept.ERROR]:
        raise typer.Exit(ROWS_FAILED)


def _refuse_unscored(plan: Plan, chosen: MethodChoice) -> None:
    """A server has to give the log-probabilities that the method needs."""
    if plan.model.server is None:
        return
    from cai.engines.server import check_scoring
    from cai.errors import ProblemList

    problems = check_scoring(plan.model, {f"the method `{chosen}`": "letters" if chosen == "letters" else "verdicts"})
    if problems:
        raise ProblemList("These tests cannot be run:", problems)


def _judged(
    plan: Plan, chosen: MethodChoice, min_margin_nats: float, folder: RunFolder, *, metamorphic: bool
) -> ConstitutionReport:
    from cai.authoring.judgements import Judge
    from cai.authoring.metamorphic import BOTH, RELATIONS
    from cai.authoring.principle_tests import run_tests
    from cai.cli.progress import ProgressDisplay
    from cai.engines.opening import open_engine
    from cai.pipeline.metering import Meter

    with ProgressDisplay() as display, Meter(display.show) as meter:
        engine: Engine = open_engine(plan.model, plan.engine)
        return run_tests(
            plan.cases,
            Judge(engine, folder, ground_tokens=plan.labels.ground_tokens, contrast_against=plan.labels.contrast_against),
            BOTH if chosen == "both" else (chosen,),
            RELATIONS if metamorphic else (),
            min_margin_nats=min_margin_nats,
            untested=[each.id for each in plan.constitution.principles if not each.tests],
            on_judged=lambda method, done, total: meter.tell(f"judge ({method})", done, total),
        )
