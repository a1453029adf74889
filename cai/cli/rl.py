"""`cai rl`: online optimisation of a policy against a reward, on a leash."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.run import AsJson, Settings, read, resumable
from cai.cli.train import Config, Model

if TYPE_CHECKING:
    from cai.config.settings import RunConfig
    from cai.rl.course import RLCourse
    from cai.rl.dry_run import RLDryRun
    from cai.rl.results import RLResult
    from cai.training.results import TrainingEvent

SHOWN_PROMPTS = 3
_TOLD = ("steps", "kept_step", "replies", "failed_draws", "failed_rewards", "failed_truths", "idle_steps", "seconds")
_FIGURES = ("reward", "truth", "kl", "entropy", "length", "repeated", "duplicates")

Data = Annotated[Path | None, typer.Option(help="Prompts of your own (.jsonl, .csv, .parquet, .txt).")]
Output = Annotated[Path | None, typer.Option(help="Folder for the trained model; default: `rl` in the run's folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be trained; reads no weights and writes nothing.")]


def rl(
    config: Config = None,
    data: Data = None,
    model: Model = None,
    output: Output = None,
    settings: Settings = None,
    *,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Optimise the policy against a reward (PPO, RLOO, GRPO, online DPO), with KL to the reference as a leash.

    Goes on from the newest model of a run, or from --model on the prompts of --data. Each step's reward, truth, KL, entropy and
    length are in `metrics.jsonl`. A killed run resumes by itself.
    """
    import json as json_

    with _course(config, data, model, settings) as (course, wanted):
        if dry_run:
            from cai.rl.dry_run import rl_dry_run

            found = rl_dry_run(course)
            typer.echo(json_.dumps(found.as_json(), indent=1, ensure_ascii=False)) if json else _print_dry_run(found)
            return
        result = _train(course, wanted, output, json=json)
    if json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        _print(result)


@contextmanager
def _course(
    config: Path | None, data: Path | None, model: str | None, settings: list[str] | None
) -> Generator[tuple[RLCourse, RunConfig | None]]:
    """What is to be trained, and the run that it belongs to."""
    from cai.pipeline.reinforcing import course_of_data, course_of_run

    if data is None:
        if config is None:
            raise typer.BadParameter("give a CONFIG.yaml, or --data, --model and --output")
        if model is not None:
            raise typer.BadParameter("--model goes with --data; a CONFIG.yaml names its policy")
        wanted = read(config, settings).config
        with course_of_run(wanted) as course:
            yield course, wanted
        return
    from cai.config import read_section
    from cai.models.spec import ModelSpec
    from cai.rl.settings import RLSettings

    if model is None:
        raise typer.BadParameter("with --data, --model is needed too")
    chosen = read_section(RLSettings, "rl", settings or [])
    with course_of_data(data, ModelSpec(name=model), chosen) as course:
        yield course, None


def _train(course: RLCourse, config: RunConfig | None, output: Path | None, *, json: bool) -> RLResult:
    from cai.cli.progress import ProgressDisplay
    from cai.pipeline.metering import Meter
    from cai.pipeline.reinforcing import begin_run
    from cai.pipeline.tracking import Tracking, tracking
    from cai.report.leash import FOLDER
    from cai.rl.run import train_rl

    folder = output if output is not None or config is None else config.run / FOLDER
    if folder is None:
        raise typer.BadParameter("with --data, --output is needed too")
    if config is not None:
        begin_run(config)

    def tell(event: TrainingEvent) -> None:
        loss = "" if event.loss is None else f"loss {event.loss:.3f}, "
        meter.tell("rl training", event.step, event.total_steps, f"{loss}{event.tokens_per_second:.0f} tokens/s")

    with (
        resumable(),
        ProgressDisplay(json=json) as display,
        nullcontext(Tracking()) if config is None else tracking(config) as trackers,
        Meter(trackers.listening(display.show)) as meter,
    ):
        result = train_rl(course, folder, on_event=tell, on_metrics=partial(trackers.note_step, FOLDER))
        trackers.note(FOLDER, {name: getattr(result, name) for name in _TOLD})
        return result


def _print(result: RLResult) -> None:
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import tables, visible

    out = tables()
    against = f"{result.reward}" + (f", watched by {result.truth}" if result.truth else "")
    out.print(
        Text(
            f"rl: {result.algorithm} against {visible(against)}, {result.steps} of {result.planned_steps} steps, "
            f"{result.replies:,} replies to {result.prompts:,} prompts, {result.seconds:.0f} s; weights of step "
            f"{result.kept_step} kept in {result.folder}"
        )
    )
    table = Table("mean of a window of steps", "first", "last", "kept")
    for name in _FIGURES:
        if name in result.last:
            table.add_row(name, *(_figure(each.get(name)) for each in (result.first, result.last, result.kept)))
    out.print(table)
    for dropped in result.dropped[:SHOWN_PROMPTS]:
        out.print(Text(visible(f"  ! {dropped.uid}: left out ({dropped.reason})"), style="yellow"))
    for warning in result.warnings:
        out.print(Text(visible(f"  ! {warning}"), style="yellow"))


def _print_dry_run(found: RLDryRun) -> None:
    from rich.table import Table
    from rich.text import Text

    from cai.cli.quantities import memory
    from cai.cli.terminal import tables, visible

    out = tables()
    out.print(Text("rl: a dry run; nothing was trained or written.", style="bold"))
    table = Table.grid(padding=(0, 2))
    watched = f", watched by {found.truth}" if found.truth else ", watched by nothing: set rl.truth"
    size = found.memory
    figures = [
        ("model", f"{found.model}: {found.parameters:,} parameters, {found.trainable:,} trained"),
        ("method", f"{found.algorithm} against {found.reward}{watched}"),
        ("prompts", f"{found.prompts:,}, {len(found.dropped):,} left out"),
        ("replies", f"{found.replies:,} in {found.steps:,} steps, {found.most_reply_tokens:,} tokens at most"),
        ("optimizer", f"{found.optimizer_steps:,} steps, learning rate {found.learning_rate:g} at most"),
        ("memory", f"about {memory(size.process_bytes)} for the policy ({memory(found.free_bytes)} free)"),
    ]
    for label, value in figures:
        table.add_row(label, Text(visible(value), overflow="fold"))
    out.print(table)
    for uid, reason in list(found.dropped.items())[:SHOWN_PROMPTS]:
        out.print(Text(visible(f"  ! {uid}: left out ({reason})"), style="yellow"))
    out.print(
        Text(f"First prompts, {min(SHOWN_PROMPTS, len(found.first_prompts))} of {len(found.first_prompts)}", style="bold")
    )
    for prompt in found.first_prompts[:SHOWN_PROMPTS]:
        out.print(Text(visible(prompt), overflow="fold"))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
