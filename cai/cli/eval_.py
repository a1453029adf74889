"""`cai eval`: a run's evaluation stage, and behaviour suites on the models of a run or on any others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from cai.cli.check import CHECKS_FAILED
from cai.cli.run import ROWS_FAILED, AsJson, Settings, perform, read, resumable
from cai.cli.testing import CacheFolder, NoCache
from cai.models.spec import DtypeName
from cai.records import Stage

if TYPE_CHECKING:
    from cai.cli.eval_plan import EvalPlan
    from cai.evaluation.by_suites import SuiteEvaluation

CorrectionName: TypeAlias = Literal["holm", "benjamini-hochberg", "none"]
MODEL_FORMS = "folder, hub id, NAME+ADAPTER or NAME@http://HOST/v1"


def evaluate(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run, as its YAML file or its folder; none: models of your own.")
    ] = None,
    settings: Settings = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite", "-s", help="A shipped suite, `lab`, `agents`, or a YAML file. May be repeated; default: all shipped."
        ),
    ] = None,
    before: Annotated[str | None, typer.Option(metavar="MODEL", help=f"The model to compare with: {MODEL_FORMS}.")] = None,
    after: Annotated[list[str] | None, typer.Option(metavar="MODEL", help="A model to compare. May be repeated.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="A model; of several, the first is compared with.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Judges where a suite asks for it; default: the run's feedback model.")
    ] = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="At most so many prompts of each behaviour.")] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(help="Answer every prompt at this temperature. May be repeated; default: 0 and 1.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=64, help="Answers to a prompt at each temperature above 0.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, where a suite does not say.")] = None,
    dtype: Annotated[
        DtypeName | None, typer.Option(help="Precision of the models named here; in float32 no text depends on batches.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the noise, the same for every model.")] = None,
    correction: Annotated[
        CorrectionName | None, typer.Option(help="How p-values are corrected for their number; default: holm.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write results and every judged answer there.")] = None,
    export: Annotated[
        tuple[str, str], typer.Option(metavar="FORMAT FOLDER", help="Write the suites as tasks for `lm-eval` or `inspect`.")
    ] = ("", ""),
    cache: CacheFolder = None,
    *,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also the checkpoints that the run's training has kept so far.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Code 4 if anything clearly got worse.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at --out.")] = False,
    no_cache: NoCache = False,
    list_: Annotated[bool, typer.Option("--list", help="Name the shipped suites.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a suite file.")] = False,
    json: AsJson = False,
) -> None:
    """Measure behaviour before and after: sycophancy, harm, confidence, calibration, courtesy, style, or what you like.

    Every fault has a twin that a cure would overdo. `cai eval RUN.yaml` alone is the run's own evaluation stage; with --suite
    or --checkpoints, suites are asked of the run's models, and what they say is kept in the run. Code 3 if some answers failed.
    """
    if list_ or schema or export[0]:
        _without_models(suite or [], export, list_=list_, schema=schema)
        return
    named = [*([before] if before else []), *(model or []), *(after or [])]
    if run is not None and not (suite or named or checkpoints):
        perform(read(run, settings), until=Stage.EVALUATE, json=json)
        return
    from cai.cli.eval_plan import Asked, plan_evaluation
    from cai.cli.output_files import refuse_existing
    from cai.pipeline.run_models import CHECKPOINT

    if out is not None:
        refuse_existing(out, force=force)
    changes: dict[str, object] = {
        "suite_prompts": prompts,
        "temperatures": tuple(temperature) if temperature else None,
        "seeds": seeds,
        "max_tokens": max_tokens,
        "correction": correction,
    }
    asked = Asked(run, tuple(settings or ()), tuple(suite or ()), tuple(named), judge, checkpoints, changes, seed, dtype)
    with plan_evaluation(asked) as plan:
        for name in plan.left_out:
            typer.echo(f"The suite {name} is left out: it needs a judge (--judge MODEL).", err=True)
        if checkpoints and not any(CHECKPOINT in each.name for each in plan.models):
            told = "There are no checkpoints: a training keeps its own with dpo.keep_checkpoints or sft.keep_checkpoints."
            typer.echo(told, err=True)
        kept = "" if no_cache else None
        with resumable(kept):
            found = _evaluated(plan, cache, no_cache=no_cache, json=json)
    _show(found, out, json=json)
    from cai.evaluation.wording import got_worse

    worse = [label for each in found for comparison in each.result.comparisons for label in got_worse(comparison)]
    if strict and worse:
        raise typer.Exit(CHECKS_FAILED)
    if any(each.result.failures for each in found):
        raise typer.Exit(ROWS_FAILED)


def _without_models(names: list[str], export: tuple[str, str], *, list_: bool, schema: bool) -> None:
    """What needs no model: the list of suites, the schema, tasks for other programs."""
    if list_:
        from cai.cli.eval_shown import print_list

        print_list()
    elif schema:
        import json as json_

        from cai.evaluation.suite_files import SuiteFile

        typer.echo(json_.dumps(SuiteFile.model_json_schema(by_alias=True), indent=1))
    else:
        from cai.evaluation.exporting import export_tasks
        from cai.evaluation.suite_reading import read_suites, shipped_suites

        written = export_tasks(read_suites(names or list(shipped_suites())), export[0], Path(export[1]))
        for line in written.lines:
            typer.echo(line)


def _evaluated(plan: EvalPlan, cache: Path | None, *, no_cache: bool, json: bool) -> list[SuiteEvaluation]:
    from cai.cli.principle_test_plan import opened_cache
    from cai.cli.progress import ProgressDisplay
    from cai.evaluation.by_suites import evaluate_suites
    from cai.pipeline.evaluating import contestants, judge_of, plan_suites, store
    from cai.pipeline.metering import Meter
    from cai.store import RunFolder

    kept = RunFolder.open(plan.folder) if plan.folder is not None else opened_cache(cache, no_cache=no_cache)
    with kept as folder, ProgressDisplay(json=json) as display, Meter(display.show) as meter:
        judge = (
            judge_of(plan.judge, plan.engine, folder, ground_tokens=plan.ground_tokens, seed=plan.seed)
            if plan.judge is not None
            else None
        )
        found = evaluate_suites(
            plan_suites(plan.suites, judge, plan.settings, seed=plan.seed),
            contestants(plan.models, plan.engine, folder),
            judge,
            plan.settings,
            max_tokens=plan.settings.max_tokens,
            seed=plan.seed,
            correction=plan.settings.correction,
            on_progress=meter.tell,
        )
        folder.calls.flush()
        if plan.folder is not None:
            store(folder, found)
        return found


def _show(found: list[SuiteEvaluation], out: Path | None, *, json: bool) -> None:
    import json as json_

    from cai.cli.eval_shown import print_suites, suites_json

    results = [each.result for each in found]
    if out is not None:
        from cai.cli.output_files import write

        answers = [answer.model_dump(mode="json") for each in found for answer in each.answers]
        content = {**suites_json(results), "answers": answers}
        write(out, json_.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if json:
        typer.echo(json_.dumps(suites_json(results), indent=1, ensure_ascii=False))
    else:
        print_suites(results)
