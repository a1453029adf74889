"""`cai lab`: the small world with exact truth, and what it says of the method."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cai.lab.series import Failed
    from cai.lab.study.grid import Grid
    from cai.lab.study.recipes import Cell

app = typer.Typer(help="The embedded small world, whose truth is known.", no_args_is_help=True)

ALL = "all"


@app.command("study")
def study(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the cells; a second call goes on there.")
    ] = Path("runs/study"),
    questions: Annotated[
        str,
        typer.Option(
            metavar="NAME,…",
            help="rounds, sft, critique, beta, principles, data, labels, noise; in the order given they are worked on.",
        ),
    ] = ALL,
    seeds: Annotated[str, typer.Option(metavar="N,…", help="Seeds of each recipe; three at least say something.")] = "0,1,2",
    items: Annotated[int, typer.Option(min=4, help="Prompts for the loop in each cell.")] = 200,
    per_behaviour: Annotated[int, typer.Option(min=1, help="Held-out prompts of each of seven behaviours in each cell.")] = 20,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Model to train: a folder or a hub id; by default the embedded one.")
    ] = None,
    feedback: Annotated[
        str | None, typer.Option(help="Model that gives feedback; by default the embedded one with its adapter, or the policy.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="The page; by default RESULTS.md in the folder. Pictures lie beside it."),
    ] = None,
    *,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say which cells there are, what is done, and how long it takes.")
    ] = False,
    table: Annotated[bool, typer.Option("--table", help="Only write the page anew, of the cells that are done.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Progress, or the plan, as JSON.")] = False,
) -> None:
    """The questions of the method, put to the small world: rounds, SFT, critique, beta, principles, data, labels.

    Each cell is a recipe with a seed: drafts, chains, labels, training, and held-out prompts judged by exact truth. What cells
    have in common is made once. Killed at any moment it loses the cell in work; the same command goes on. After every cell the
    page is written: tables with intervals, pictures, and what was not found.
    """
    from rich.console import Console
    from rich.text import Text

    grid = _grid(output, questions, seeds, items, per_behaviour, policy, feedback)
    page = results or output / "RESULTS.md"
    command = _command(questions, seeds, items, per_behaviour, policy, feedback)
    if plan:
        _print_plan(grid, json=json)
        return
    from cai.pipeline.studying import run_study, write_results

    failed: list[Failed[Cell]] = []
    if table:
        write_results(grid, command, page)
    else:
        from cai.cli.progress import ProgressDisplay
        from cai.cli.run import resumable
        from cai.cli.terminal import visible

        with resumable(), ProgressDisplay(json=json) as display:
            failed = run_study(grid, command, page, display.show)
        for each in failed:
            typer.echo(
                visible(f"A cell of seed {each.work.seed} failed, and is tried again next time: {each.problem}"), err=True
            )
    if not json:
        done = len(grid.results())
        Console(highlight=False).print(Text(f"{page}: {done} of {len(grid.cells)} cells"))
    if failed:
        from cai.cli.run import ROWS_FAILED

        raise typer.Exit(ROWS_FAILED)


def _grid(
    output: Path, questions: str, seeds: str, items: int, per_behaviour: int, policy: str | None, feedback: str | None
) -> Grid:
    """What the options ask for.

    Raises:
        typer.BadParameter: If a question or a seed is none.
        ModelError: If a model cannot be found.
    """
    from cai.lab.study.grid import Grid
    from cai.lab.study.recipes import QUESTIONS, Size, chosen_questions
    from cai.lab.study.setup import Setup
    from cai.models.spec import ModelSpec

    names = [question.id for question in QUESTIONS] if questions == ALL else [name.strip() for name in questions.split(",")]
    try:
        chosen = chosen_questions(names)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--questions") from None
    try:
        numbers = tuple(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{seeds!r} are no whole numbers", param_hint="--seeds") from None
    if min(numbers) < 0:
        raise typer.BadParameter("a seed is 0 or more", param_hint="--seeds")
    setup = Setup()
    if policy or feedback:
        plain = ModelSpec(name=policy) if policy else setup.plain
        other = ModelSpec(name=feedback) if feedback else plain if policy else setup.feedback
        setup = Setup(plain=plain, feedback=other)
    return Grid(output, chosen, numbers, Size(items, per_behaviour), setup, setup.fingerprint)


def _command(questions: str, seeds: str, items: int, per_behaviour: int, policy: str | None, feedback: str | None) -> str:
    """For the page: without the folder, which is somebody's own."""
    parts = [f"--items {items}", f"--per-behaviour {per_behaviour}", f"--seeds {seeds}"]
    parts += [f"--questions {questions}"] if questions != ALL else []
    parts += [f"--{name} {Path(model).name}" for name, model in (("policy", policy), ("feedback", feedback)) if model]
    return f"cai lab study {' '.join(parts)}"


def _print_plan(grid: Grid, *, json: bool) -> None:
    import json as json_

    from cai.lab.study.grid import plan as planned_cells

    cells = planned_cells(grid)
    waiting = [each for each in cells if not each.done]
    known = [each.seconds for each in waiting if each.seconds is not None]
    whole = len(known) == len(waiting)
    if json:
        rows = [
            {
                "recipe": each.work.recipe.model_dump(mode="json"),
                "seed": each.work.seed,
                "done": each.done,
                "seconds": each.seconds,
            }
            for each in cells
        ]
        typer.echo(json_.dumps({"cells": rows, "expected_seconds": sum(known) if whole else None}, indent=1))
        return
    from rich.table import Table
    from rich.text import Text

    from cai.cli.quantities import duration
    from cai.cli.terminal import tables

    out = tables()
    shown = Table(title=f"{len(cells)} cells, {len(cells) - len(waiting)} done", title_justify="left", title_style="bold")
    for name in ("question", "variant", "seeds done", "seeds to do", "expected"):
        shown.add_column(name)
    told: set[object] = set()
    for question in grid.questions:
        for variant in question.variants:
            own = [each for each in cells if each.work.recipe == variant.recipe]
            if not own:
                row = ("", "", "needs no training")
            elif variant.recipe in told:
                row = ("", "", "a cell of an earlier row")
            else:
                to_do = [each for each in own if not each.done]
                seconds = [each.seconds for each in to_do if each.seconds is not None]
                expected = "" if not to_do else duration(sum(seconds)) if len(seconds) == len(to_do) else "not known yet"
                row = (_seeds(each.work.seed for each in own if each.done), _seeds(each.work.seed for each in to_do), expected)
            told.add(variant.recipe)
            shown.add_row(question.id, variant.label, *row)
    out.print(shown)
    if waiting:
        expected = duration(sum(known)) if whole else "not known before the first cell is done"
        out.print(Text(f"Expected time: {expected}.", style="bold"))


def _seeds(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
