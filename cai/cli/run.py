"""`cai run`, its stages `generate` and `label`, and what all stages share."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.records import Stage

if TYPE_CHECKING:
    from cai.config import ReadConfig
    from cai.pipeline import Inputs

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The run, as a YAML file; `cai init` writes one.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set dpo.beta=0.2. May be repeated."),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object, and progress on stderr as JSON lines."),
]
AsPlan = Annotated[bool, typer.Option("--plan", help="Only say what would be done, why, and how long it would take.")]

OfShard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Work on the I-th of N shares of the prompts, up to the labels, in RUN/shard-I-of-N; `cai merge` joins them.",
    ),
]

AllowWeak = Annotated[
    bool,
    typer.Option(
        "--allow-weak-labels",
        help="Write pairs also from a labeller that is not better than chance or mostly names a place; the card says so.",
    ),
]

ROWS_FAILED = 3


def run(
    config: ConfigFile,
    settings: Settings = None,
    *,
    shard: OfShard = None,
    allow_weak_labels: AllowWeak = False,
    plan: AsPlan = False,
    json: AsJson = False,
) -> None:
    """All of it: principles and prompts in; data sets, a trained model, before/after and a report out. Resumes by itself."""
    until = Stage.EVALUATE if shard is None else Stage.LABEL
    (foresee if plan else perform)(
        read(config, _with(settings, allow_weak_labels=allow_weak_labels)), until=until, json=json, shard=shard
    )


def generate(
    config: ConfigFile, settings: Settings = None, *, shard: OfShard = None, plan: AsPlan = False, json: AsJson = False
) -> None:
    """Draft, critique and revise."""
    (foresee if plan else perform)(read(config, settings), until=Stage.GENERATE, json=json, shard=shard)


def label(
    config: ConfigFile,
    settings: Settings = None,
    *,
    shard: OfShard = None,
    allow_weak_labels: AllowWeak = False,
    plan: AsPlan = False,
    json: AsJson = False,
) -> None:
    """Label pairs by AI feedback (what comes before is done first, or reused)."""
    (foresee if plan else perform)(
        read(config, _with(settings, allow_weak_labels=allow_weak_labels)), until=Stage.LABEL, json=json, shard=shard
    )


def _with(settings: list[str] | None, *, allow_weak_labels: bool) -> list[str]:
    return [*(settings or []), *(["labels.allow_weak_labels=true"] if allow_weak_labels else [])]


@contextmanager
def resumable(kept: str | None = None) -> Generator[None]:
    """Ctrl-C inside the block ends the command with code 130, and says what is kept; by default, with which command to go on.

    The first one stops the work, and what is finished is written; another one cuts short what is still tidied up then.
    """
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is written: another Ctrl-C need not be polite
        command = shlex.join(["cai", *sys.argv[1:]])
        said = f" Finished work is kept; go on with:\n  {command}" if kept is None else kept
        typer.echo(f"\nInterrupted.{said}", err=True)
        raise typer.Exit(130) from None


def read(path: Path | None, settings: list[str] | None) -> ReadConfig:
    """The checked configuration of a run, and where its values come from."""
    from cai.config import read_config

    return read_config(path, settings or [])


def checked_inputs(given: ReadConfig, shard: str | None) -> Inputs:
    """The checked inputs of a run, or of a shard of it, which has a folder of its own."""
    from cai.pipeline import read_inputs
    from cai.pipeline.sharding import Shard

    origins = {".".join(path): origin for path, origin in given.origins.items()}
    if shard is None:
        return read_inputs(given.config, origins=origins)
    part = Shard.parse(shard)
    return read_inputs(part.placed(given.config), part, origins=origins)


def perform(given: ReadConfig, *, until: Stage, json: bool, shard: str | None = None) -> None:
    """Run up to a stage, show progress on stderr and the result on stdout.

    Raises:
        typer.Exit: With 3 if rows failed, 130 if it was interrupted.
    """
    from cai.cli.progress import ProgressDisplay
    from cai.cli.summary import print_summary, summary_json
    from cai.pipeline import open_session
    from cai.pipeline import run as run_stages

    inputs = checked_inputs(given, shard)
    with resumable(), ProgressDisplay(json=json) as display, open_session(inputs, display.show) as session:
        summary = run_stages(session, until=until)
    if json:
        typer.echo(summary_json(summary))
    else:
        print_summary(summary)
    if summary.failed_rows:
        raise typer.Exit(ROWS_FAILED)


def foresee(given: ReadConfig, *, until: Stage, json: bool, shard: str | None = None) -> None:
    """Say what running up to a stage would do; nothing is computed or written."""
    import json as json_

    from cai.cli.planned import print_plan
    from cai.pipeline import plan

    found = plan(checked_inputs(given, shard), until=until)
    if json:
        typer.echo(json_.dumps(found.as_json(), indent=1, ensure_ascii=False))
    else:
        print_plan(found)
