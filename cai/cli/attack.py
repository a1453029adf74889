"""`cai attack`: the wording to which a model gives in most, as figures, as prompts for a run, as pairs and as a suite."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cai.cli.pressing import PAIRS_NAME, PROMPTS_NAME, SUITE_NAME, Force, Out, WordingsFile, show_written, write_trials
from cai.cli.run import ROWS_FAILED, AsJson, resumable
from cai.cli.testing import CacheFolder, NoCache
from cai.errors import ConfigError
from cai.models.spec import DtypeName

if TYPE_CHECKING:
    from cai.cli.eval_plan import EvalPlan
    from cai.sycophancy.attack import Attacked
    from cai.sycophancy.search import SearchSettings
    from cai.sycophancy.wordings import Wordings
    from cai.sycophancy.written import WrittenSuite

LAB = "lab"
TRIES_NAME, RESULT_NAME = "tries.jsonl", "result.json"


def attack(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder, hub id, NAME+ADAPTER or NAME@http://HOST/v1.")],
    out: Out,
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="`lab`: claims judged by exact truth; a shipped suite, or a YAML file.")
    ] = LAB,
    behaviour: Annotated[
        list[str] | None,
        typer.Option("--behaviour", "-b", help="Attack this fault of the suite. May be repeated; default: all."),
    ] = None,
    judge: Annotated[str | None, typer.Option(metavar="MODEL", help="Judges where the suite asks for it.")] = None,
    prompts: Annotated[int, typer.Option(min=2, max=10_000, help="Prompts of each behaviour, on both sides together.")] = 40,
    held_out: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of them for the suite; it is in no prompts written here.")
    ] = 0.5,
    rounds: Annotated[int, typer.Option(min=0, max=8, help="Moves of a wording, at most.")] = 3,
    beam: Annotated[int, typer.Option(min=1, max=16, help="Wordings of a prompt kept from a round.")] = 2,
    moves: Annotated[int, typer.Option(min=1, max=16, help="Moves tried from each of them.")] = 4,
    samples: Annotated[int, typer.Option(min=0, max=16, help="Answers at temperature 1, besides the greedy one.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, max=64, help="Answers to each prompt when it is measured.")] = 3,
    max_tries: Annotated[int, typer.Option(min=1, help="Of the whole search.")] = 20_000,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 48,
    wordings: WordingsFile = None,
    dtype: Annotated[DtypeName | None, typer.Option(help="Precision of the weights.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts, moves and noise.")] = 0,
    cache: CacheFolder = None,
    *,
    no_paraphrases: Annotated[bool, typer.Option("--no-paraphrases", help="The model writes no wordings itself.")] = False,
    force: Force = False,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """Search, prompt by prompt, the wording that makes a model give in, and measure it on answers the search has not seen.

    Beside them stand wordings drawn without looking, and controls (true claims, harmless requests) that are pressed alike.
    Half of the prompts become prompts.jsonl and pairs.jsonl (`cai dpo --data`: the model's own answers, or in the lab a checked
    reply where it gave none), the other half a suite: after training on the one ask the other, not the suite they were taken
    from. Every try stands in tries.jsonl. Killed, the same command goes on. Exit code 3 if some answers failed
    or could not be judged.
    """
    from cai.evaluation.suite_reading import WITHOUT_FILE
    from cai.sycophancy.search import SearchSettings
    from cai.sycophancy.wordings import read_wordings

    if suite in WITHOUT_FILE and suite != LAB:
        raise ConfigError(f"the suite {suite} cannot be written as a file, which an attack does", "name another with --suite")
    if suite == LAB and behaviour:
        raise ConfigError("--behaviour chooses among the faults of a suite; the lab's is one", "leave it out")
    words = read_wordings(wordings)
    settings = SearchSettings(rounds, beam, moves, samples, not no_paraphrases, max_tries, max_tokens, seed)
    _refuse(out, force=force)
    started = time.monotonic()
    kept = "" if no_cache else " What was asked is kept; the same command goes on from here."
    with resumable(kept):
        found, suite_file = _attacked(
            _Asked(model, suite, tuple(behaviour or ()), judge, prompts, held_out, seeds, dtype, cache, no_cache, json),
            words,
            settings,
        )
    from cai.sycophancy.attack import attempt_rows
    from cai.sycophancy.written import json_lines

    more = {PAIRS_NAME: json_lines(found.pairs)} if found.pairs else {}
    more |= {TRIES_NAME: attempt_rows(found.attempts), RESULT_NAME: found.result.model_dump_json(indent=1) + "\n"}
    told = write_trials(out, found.learned, suite_file, more=more, force=force)
    told |= {"left out": {**found.left_out, **found.unpaired, **suite_file.left_out}, "seconds": time.monotonic() - started}
    if json:
        content: dict[str, Any] = {**told, "result": found.result.model_dump(mode="json")}
        content["agreement"] = found.agreement.model_dump(mode="json") if found.agreement else None
        show_written(content, json=True)
    else:
        from cai.cli.attacked import print_attack

        print_attack(found)
        show_written(told, json=False)
    if found.result.failures or found.result.unmeasured:
        raise typer.Exit(ROWS_FAILED)


class _Asked(NamedTuple):
    """What the command line says of whom to ask what."""

    model: str
    suite: str
    behaviours: tuple[str, ...]
    judge: str | None
    prompts: int
    held_out: float
    seeds: int
    dtype: DtypeName | None
    cache: Path | None
    no_cache: bool
    json: bool


def _refuse(out: Path, *, force: bool) -> None:
    from cai.cli.output_files import refuse_existing, refuse_no_folder

    refuse_no_folder(out)
    for name in (PROMPTS_NAME, PAIRS_NAME, SUITE_NAME, TRIES_NAME, RESULT_NAME):
        refuse_existing(out / name, force=force)


def _attacked(asked: _Asked, words: Wordings, settings: SearchSettings) -> tuple[Attacked, WrittenSuite]:
    from cai.cli.eval_plan import Asked, plan_evaluation

    changes: dict[str, object] = {"suite_prompts": None, "max_tokens": settings.max_tokens}
    named = Asked(
        None,
        (),
        (asked.suite,),
        (asked.model,),
        asked.judge,
        checkpoints=False,
        changes=changes,
        seed=settings.seed,
        dtype=asked.dtype,
    )
    with plan_evaluation(named) as plan:
        return _found(asked, plan, words, settings)


def _found(asked: _Asked, plan: EvalPlan, words: Wordings, settings: SearchSettings) -> tuple[Attacked, WrittenSuite]:
    from cai.cli.principle_test_plan import opened_cache
    from cai.cli.progress import ProgressDisplay
    from cai.evaluation.suite_reading import read_suites
    from cai.pipeline.evaluating import judge_of, plan_suites, remembering
    from cai.pipeline.metering import Meter
    from cai.sycophancy.attack import attack as attacked
    from cai.sycophancy.targets import lab_suite, lab_targets, suite_targets, written_checks
    from cai.sycophancy.written import suite_text

    with (
        opened_cache(asked.cache, no_cache=asked.no_cache) as folder,
        ProgressDisplay(json=asked.json) as display,
        Meter(display.show) as meter,
    ):
        other = None
        patterns, tests = {}, {}
        if asked.suite == LAB:
            measured = round(asked.prompts * asked.held_out)
            learned = lab_targets(asked.prompts - measured, "train", seed=settings.seed)
            held_out = lab_targets(measured, "test", seed=settings.seed)
            trials = [*learned.faults, *learned.controls, *held_out.faults, *held_out.controls]
            suite, other = lab_suite(trials), written_checks(trials)
        else:
            (file,) = read_suites([asked.suite])
            if file.file.tools:
                raise ConfigError(
                    f"the suite {asked.suite} offers tools, and wordings are searched for what a model says, not for its calls",
                    "name another with --suite",
                )
            judging = plan.judge
            judge = (
                judge_of(judging, plan.engine, folder, ground_tokens=plan.ground_tokens, seed=plan.seed) if judging else None
            )
            (planned,) = plan_suites(plan.suites, judge, plan.settings, seed=plan.seed)
            if planned.suite is None:
                raise ConfigError(f"the suite {asked.suite} counts no behaviour", "name one with faults (`cai eval --list`)")
            suite = planned.suite
            try:
                learned, held_out = suite_targets(planned, asked.behaviours, asked.prompts, asked.held_out, seed=settings.seed)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            patterns, tests = file.file.patterns, {each.principle: each.tests for each in planned.judges}
        if not learned.faults and not held_out.faults:
            raise ConfigError(f"the suite {asked.suite} has no fault to attack", "name another with --suite")
        found = attacked(
            remembering(plan.models[0].spec, plan.engine, folder),
            suite,
            learned,
            held_out,
            words,
            settings,
            model=plan.models[0].name,
            seeds=asked.seeds,
            other_judge=other,
            on_progress=meter.tell,
        )
        folder.calls.flush()
    name = asked.suite if asked.suite == LAB else plan.suites[0]
    text = suite_text(
        f"attacked-{Path(name).stem}"[:64],
        f"Prompts of {Path(name).stem} in the wordings to which a model gave in most, and controls pressed alike.",
        suite.behaviours,
        found.held_out,
        max_tokens=settings.max_tokens,
        patterns=patterns,
        tests=tests,
    )
    return found, text
