"""`cai lab compare`: ways from a constitution to a model, side by side."""

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
    from cai.lab.comparison.rounds import Comparison


def compare(
    output: OutputOption = Path("runs/comparison"),
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAME,…", help="best_of, sl_cai, dpo, sl_cai_dpo, online_dpo, rloo, sl_cai_rloo; dpo is always among them."
        ),
    ] = ALL,
    seeds: SeedsOption = "0,1,2",
    items: Annotated[int, typer.Option(min=4, help="Prompts that DPO takes; what it costs is everybody's budget.")] = 200,
    per_behaviour: PerBehaviourOption = 20,
    policy: PolicyOption = None,
    feedback: FeedbackOption = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="The page; by default COMPARISON.md in the folder. Its picture lies beside it."),
    ] = None,
    *,
    plan: PlanOption = False,
    table: TableOption = False,
    json: JSONOption = False,
) -> None:
    """SFT, SL-CAI, DPO, online DPO and RL at equal compute, judged by exact truth.

    DPO takes the prompts asked for. What that costs, in tokens that pass through a model from the first draft to the last step
    of training, is the budget of every other method. Each is done with several seeds and tried on the same held-out prompts.
    Killed at any moment it loses the model in work; the same command goes on. After every model the page is written:
    behaviours with intervals, KL, tokens and seconds.
    """
    comparison = _comparison(output, methods, seeds, items, per_behaviour, policy, feedback)
    page = results or output / "COMPARISON.md"
    narrowed = [] if methods == ALL else [f"--methods {methods}"]
    command = command_of("compare", items, per_behaviour, seeds, narrowed, policy, feedback)
    if plan:
        _print_plan(comparison, json=json)
        return
    from cai.pipeline.comparing import run_comparison, write_comparison

    follow(
        page,
        lambda tell: run_comparison(comparison, command, page, tell),
        lambda: write_comparison(comparison, command, page),
        lambda: f"{len(comparison.results())} of {len(comparison.entries)} models",
        table=table,
        json=json,
    )


def _comparison(
    output: Path, methods: str, seeds: str, items: int, per_behaviour: int, policy: str | None, feedback: str | None
) -> Comparison:
    """What the options ask for.

    Raises:
        typer.BadParameter: If a method or a seed is none.
        ModelError: If a model cannot be found.
    """
    from cai.lab.comparison.methods import METHODS, chosen_methods
    from cai.lab.comparison.rounds import Comparison
    from cai.lab.comparison.setup import ContestSetup
    from cai.lab.study.recipes import Size

    wanted = chosen(methods, (method.id for method in METHODS), chosen_methods, "--methods")
    numbers, setup = seed_numbers(seeds), ContestSetup(study=setup_of(policy, feedback))
    return Comparison(output, wanted, numbers, Size(items, per_behaviour), setup, setup.fingerprint)


def _print_plan(comparison: Comparison, *, json: bool) -> None:
    from cai.lab.comparison.rounds import plan as planned_entries

    entries = planned_entries(comparison)
    if json:
        print_plan_json("models", [({"method": each.work.method, "seed": each.work.seed}, each) for each in entries])
        return
    from rich.table import Table

    from cai.cli.terminal import tables

    done = sum(each.done for each in entries)
    shown = Table(title=f"{len(entries)} models, {done} done", title_justify="left", title_style="bold")
    for name in ("method", "seeds done", "seeds to do", "expected"):
        shown.add_column(name)
    for method in comparison.methods:
        shown.add_row(method.label, *seed_cells([each for each in entries if each.work.method == method.id]))
    tables().print(shown)
    print_expected(entries, "model")
