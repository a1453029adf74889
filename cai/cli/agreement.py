"""`cai agreement`: the labelling model against pairs labelled by people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from cai.cli.run import ROWS_FAILED, AsJson, resumable
from cai.cli.testing import CacheFolder, FromRun, JudgeName, NoCache, PolicyName

if TYPE_CHECKING:
    from cai.cli.agreement_plan import AgreementPlan
    from cai.labels.human_labels import HumanAgreement
    from cai.store import RunFolder

MethodName: TypeAlias = Literal["pointwise", "letters", "yes_no", "contrast"]


def agreement(
    pairs: Annotated[
        str | None,
        typer.Argument(
            metavar="PAIRS",
            help="Pairs labelled by people: `chosen` and `rejected` with `prompt`, or as hh-rlhf has them; default: the run's.",
        ),
    ] = None,
    constitution: Annotated[
        list[str] | None,
        typer.Option("--constitution", "-c", help="Principle files, folders; default: the run's, or shipped."),
    ] = None,
    principle: Annotated[
        list[str] | None, typer.Option("--principle", "-p", help="Judge by this principle only. May be repeated.")
    ] = None,
    model: PolicyName = None,
    feedback: JudgeName = None,
    config: FromRun = None,
    method: Annotated[MethodName | None, typer.Option(help="How to judge; default: as the run's labels do.")] = None,
    max_pairs: Annotated[int | None, typer.Option(min=1, help="Pairs to judge, drawn by their text; default: 400.")] = None,
    fit_share: Annotated[
        float | None, typer.Option(min=0.01, max=0.99, help="Share that a temperature is fitted on; default: 0.5.")
    ] = None,
    cache: CacheFolder = None,
    *,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """How often labeller and people prefer the same answer, beside simple judges; and is it as sure as it is right?

    Fits the temperature of the labels on a part of the pairs, measures it on the others, and prints the setting to write.
    Exit code 3 if some pairs got no answer.
    """
    from cai.cli.agreement_plan import plan_agreement
    from cai.cli.principle_test_plan import opened_cache

    plan = plan_agreement(pairs, constitution or [], principle or [], model, feedback, config, method, max_pairs, fit_share)
    started = time.monotonic()
    kept = "" if no_cache else " What is judged is kept; the same command goes on from here."
    with resumable(kept), opened_cache(cache, no_cache=no_cache) as folder:
        found = _measured(plan, folder, json=json)
    seconds, judges = time.monotonic() - started, ", ".join(map(str, plan.labellers))
    if json:
        import json as json_

        content = {"labellers": [str(spec) for spec in plan.labellers], "method": plan.labels.method, "seconds": seconds}
        typer.echo(json_.dumps(content | found.model_dump(mode="json"), indent=1, ensure_ascii=False))
    else:
        from rich.console import Console

        from cai.cli.label_quality import print_human

        out = Console(highlight=False)
        print_human(found, out, title=f"{judges} ({plan.labels.method}) against people; 95 % intervals")
        typer.echo(f"{seconds:.0f} s")
    if found.failed:
        raise typer.Exit(ROWS_FAILED)


def _measured(plan: AgreementPlan, folder: RunFolder, *, json: bool) -> HumanAgreement:
    from cai.cli.progress import ProgressDisplay
    from cai.engines.opening import open_engine
    from cai.labels import check_labeller
    from cai.labels.debate import with_advocate
    from cai.labels.human_labels import compare_with_people
    from cai.pipeline.metering import Meter
    from cai.store import MemoisedEngine

    with ProgressDisplay(json=json) as display, Meter(display.show) as meter:
        opened = [MemoisedEngine(open_engine(spec, plan.engine), folder) for spec in plan.labellers]
        labellers = with_advocate(
            opened, lambda: MemoisedEngine(open_engine(plan.policy, plan.engine), folder), plan.labels.debate
        )
        for each in labellers:
            check_labeller(each, plan.labels.method)
        found = compare_with_people(
            plan.human,
            plan.constitution,
            labellers,
            plan.labels,
            plan.asked,
            seed=plan.seed,
            on_done=lambda done, total: meter.tell("people's pairs", done, total),
        )
        folder.calls.flush()
        return found
