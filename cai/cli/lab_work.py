"""What the lab's long commands have in common: options, seeds and models, progress, plans, how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

if TYPE_CHECKING:
    from cai.lab.series import Failed, OfSeed, Planned
    from cai.lab.study.setup import Setup
    from cai.pipeline.events import OnProgress

    Work = TypeVar("Work", bound=OfSeed)

Chosen = TypeVar("Chosen")

ALL = "all"

OutputOption: TypeAlias = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where all of it is kept; a second call goes on there.")
]
SeedsOption: TypeAlias = Annotated[str, typer.Option(metavar="N,…", help="Seeds of each; three at least say something.")]
PerBehaviourOption: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Held-out prompts of each of seven behaviours, for each model.")
]
PolicyOption: TypeAlias = Annotated[
    str | None, typer.Option("--policy", help="Model to train: a folder or a hub id; by default the embedded one.")
]
FeedbackOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Model that gives feedback; by default the embedded one with its adapter, or the policy.")
]
PlanOption: TypeAlias = Annotated[
    bool, typer.Option("--plan", help="Only say what there is to do, what is done, and how long it takes.")
]
TableOption: TypeAlias = Annotated[bool, typer.Option("--table", help="Only write the page anew, of what is done.")]
JSONOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Progress, or the plan, as JSON.")]


def chosen(named: str, every: Iterable[str], choose: Callable[[list[str]], Chosen], option: str) -> Chosen:
    """What is named, by commas, or `every`.

    Raises:
        typer.BadParameter: If there is none of that name.
    """
    try:
        return choose(list(every) if named == ALL else [name.strip() for name in named.split(",")])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def seed_numbers(seeds: str) -> tuple[int, ...]:
    """Each once, in the order given.

    Raises:
        typer.BadParameter: If one is none.
    """
    try:
        numbers = tuple(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{seeds!r} are no whole numbers", param_hint="--seeds") from None
    if min(numbers) < 0:
        raise typer.BadParameter("a seed is 0 or more", param_hint="--seeds")
    return numbers


def setup_of(policy: str | None, feedback: str | None) -> Setup:
    """The lab's setup with these models."""
    from cai.lab.study.setup import Setup
    from cai.models.spec import ModelSpec

    setup = Setup()
    if not (policy or feedback):
        return setup
    plain = ModelSpec(name=policy) if policy else setup.plain
    other = ModelSpec(name=feedback) if feedback else plain if policy else setup.feedback
    return Setup(plain=plain, feedback=other)


def command_of(
    name: str,
    items: int,
    per_behaviour: int,
    seeds: str,
    others: Iterable[str],
    policy: str | None,
    feedback: str | None,
) -> str:
    """For the page: without the folder, which is somebody's own."""
    parts = [f"--items {items}", f"--per-behaviour {per_behaviour}", f"--seeds {seeds}", *others]
    parts += [f"--{option} {Path(model).name}" for option, model in (("policy", policy), ("feedback", feedback)) if model]
    return f"cai lab {name} {' '.join(parts)}"


def follow(
    page: Path,
    work: Callable[[OnProgress], list[Failed[Work]]],
    write: Callable[[], None],
    done: Callable[[], str],
    *,
    table: bool,
    json: bool,
) -> None:
    """Do it with its progress shown, then say where the page is, how much of it there is, and what failed.

    Args:
        page: What it comes to.
        work: Does it; writes the page.
        write: Writes the page alone.
        done: How much of it is done, in words.
        table: Only write the page.
        json: Progress as JSON.

    Raises:
        typer.Exit: If something failed.
    """
    failed: list[Failed[Work]] = []
    if table:
        write()
    else:
        from cai.cli.progress import ProgressDisplay
        from cai.cli.run import resumable

        with resumable(), ProgressDisplay(json=json) as display:
            failed = work(display.show)
    from rich.console import Console
    from rich.text import Text

    from cai.cli.run import ROWS_FAILED
    from cai.cli.terminal import visible

    for each in failed:
        typer.echo(visible(f"Seed {each.work.seed} failed once, and is tried again next time: {each.problem}"), err=True)
    if not json:
        Console(highlight=False).print(Text(f"{page}: {done()}"))
    if failed:
        raise typer.Exit(ROWS_FAILED)


def print_plan_json(name: str, pieces: Iterable[tuple[Mapping[str, Any], Planned[Any]]]) -> None:
    """A plan as JSON: `name` → each piece as it is described, whether it is done, its seconds."""
    import json

    listed = list(pieces)
    rows = [{**described, "done": each.done, "seconds": each.seconds} for described, each in listed]
    typer.echo(json.dumps({name: rows, "expected_seconds": expected_seconds([each for _, each in listed])}, indent=1))


def expected_seconds(pieces: Sequence[Planned[Any]]) -> float | None:
    """Of all that is to be done; None where that is not known yet."""
    seconds = [each.seconds for each in pieces if not each.done]
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def print_expected(pieces: Sequence[Planned[Any]], noun: str) -> None:
    """The time that a plan takes, below its table."""
    from rich.text import Text

    from cai.cli.quantities import duration
    from cai.cli.terminal import tables

    if all(each.done for each in pieces):
        return
    seconds = expected_seconds(pieces)
    told = f"not known before the first {noun} is done" if seconds is None else duration(seconds)
    tables().print(Text(f"Expected time: {told}.", style="bold"))


def seed_cells(own: Sequence[Planned[Any]]) -> tuple[str, str, str]:
    """Cells of a plan's table: seeds that are done, seeds to be done, the time these take."""
    from cai.cli.quantities import duration

    to_do = [each for each in own if not each.done]
    seconds = expected_seconds(own)
    told = "" if not to_do else "not known yet" if seconds is None else duration(seconds)
    done = ", ".join(str(each.work.seed) for each in own if each.done)
    return done, ", ".join(str(each.work.seed) for each in to_do), told
