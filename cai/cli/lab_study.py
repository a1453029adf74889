"""`cai lab study`: the questions of the method, put to the small world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.lab_work import (
    ALL,
    FeedbackOption,
    JSONOption,
    OutputOption,
    PerBehaviourOption,
    PlanOption,
    PolicyOption,
    SeedsOption,
    TableOption,
    chosen,
    command_of,
    follow,
    print_expected,
    print_plan_json,
    seed_cells,
    seed_numbers,
    setup_of,
)

if TYPE_CHECKING:
    from cai.lab.study.grid import Grid


def study(
    output: OutputOption = Path("runs/study"),
    questions: Annotated[
        str,
        typer.Option(
            metavar="NAME,…",
            help="rounds, sft, critique, beta, principles, data, labels, noise; in the order given they are worked on.",
        ),
    ] = ALL,
    seeds: SeedsOption = "0,1,2",
    items: Annotated[int, typer.Option(min=4, help="Prompts for the loop in each cell.")] = 200,
    per_behaviour: PerBehaviourOption = 20,
    policy: PolicyOption = None,
    feedback: FeedbackOption = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="The page; by default RESULTS.md in the folder. Pictures lie beside it."),
    ] = None,
    *,
    plan: PlanOption = False,
    table: TableOption = False,
    json: JSONOption = False,
) -> None:
    """The questions of the method, put to the small world: rounds, SFT, critique, beta, principles, data, labels.

    Each cell is a recipe with a seed: drafts, chains, labels, training, and held-out prompts judged by exact truth. What cells
    have in common is made once. Killed at any moment it loses the cell in work; the same command goes on. After every cell the
    page is written: tables with intervals, pictures, and what was not found.
    """
    grid = _grid(output, questions, seeds, items, per_behaviour, policy, feedback)
    page = results or output / "RESULTS.md"
    narrowed = [] if questions == ALL else [f"--questions {questions}"]
    command = command_of("study", items, per_behaviour, seeds, narrowed, policy, feedback)
    if plan:
        _print_plan(grid, json=json)
        return
    from cai.pipeline.studying import run_study, write_results

    follow(
        page,
        lambda tell: run_study(grid, command, page, tell),
        lambda: write_results(grid, command, page),
        lambda: f"{len(grid.results())} of {len(grid.cells)} cells",
        table=table,
        json=json,
    )


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

    wanted = chosen(questions, (question.id for question in QUESTIONS), chosen_questions, "--questions")
    numbers, setup = seed_numbers(seeds), setup_of(policy, feedback)
    return Grid(output, wanted, numbers, Size(items, per_behaviour), setup, setup.fingerprint)


def _print_plan(grid: Grid, *, json: bool) -> None:
    from cai.lab.study.grid import plan as planned_cells

    cells = planned_cells(grid)
    if json:
        told = [({"recipe": each.work.recipe.model_dump(mode="json"), "seed": each.work.seed}, each) for each in cells]
        print_plan_json("cells", told)
        return
    from rich.table import Table

    from cai.cli.terminal import tables

    done = sum(each.done for each in cells)
    shown = Table(title=f"{len(cells)} cells, {done} done", title_justify="left", title_style="bold")
    for name in ("question", "variant", "seeds done", "seeds to do", "expected"):
        shown.add_column(name)
    earlier: set[object] = set()
    for question in grid.questions:
        for variant in question.variants:
            own = [each for each in cells if each.work.recipe == variant.recipe]
            if not own:
                row = ("", "", "needs no training")
            elif variant.recipe in earlier:
                row = ("", "", "a cell of an earlier row")
            else:
                row = seed_cells(own)
            earlier.add(variant.recipe)
            shown.add_row(question.id, variant.label, *row)
    tables().print(shown)
    print_expected(cells, "cell")
