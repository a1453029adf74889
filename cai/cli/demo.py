"""`cai demo`: the main job on the embedded model, from principle files to before and after."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cai.cli.run import ROWS_FAILED, AsJson, Settings, checked_inputs, read
from cai.records import RecordKind, RevisionRecord, Stage

SHOWN_TRANSCRIPTS = 3


def demo(
    run: Annotated[Path, typer.Option("--run", help="Folder of the run; a second call goes on there.")] = Path("runs/demo"),
    settings: Settings = None,
    *,
    json: AsJson = False,
) -> None:
    """Principles → drafts, critiques, revisions → labels → DPO → before/after, on a small real model that comes along."""
    from rich.console import Console
    from rich.text import Text

    from cai.cli.progress import ProgressDisplay
    from cai.cli.summary import print_summary, print_transcripts, summary_json
    from cai.pipeline import open_session
    from cai.pipeline import run as run_stages

    inputs = checked_inputs(read(demo_config(), [f"run={run}", *(settings or [])]), None)
    config, notes = inputs.config, Console(stderr=True, highlight=False)
    if not json:
        about = f"{len(inputs.items)} prompts, {len(inputs.constitution.principles)} principles, policy {config.policy}"
        notes.print(
            Text(f"{about}, feedback {config.feedback_or_policy}. Interrupt it when you like: the same command goes on.")
        )
    try:
        with ProgressDisplay(json=json) as display, open_session(inputs, display.show) as session:
            summary = run_stages(session, until=Stage.EVALUATE)
            revised = (r for r in session.folder.records(RecordKind.REVISION, RevisionRecord) if r.changed)
            shown = _varied(list(revised))
    except KeyboardInterrupt:
        notes.print(Text("\nInterrupted. Finished work is kept; the same command goes on from here."))
        raise typer.Exit(130) from None
    if json:
        typer.echo(summary_json(summary))
    else:
        out = Console(highlight=False)
        out.print(Text("Three of the transcripts", style="bold"))
        print_transcripts(shown, out)
        print_summary(summary, out)
        out.print(Text("Next: edit a principle and see what changes. Copy the run and your own principle file:"))
        out.print(Text("  cai init mine && cai run mine/run.yaml", style="bold"))
        if summary.model is not None:
            out.print(
                Text(
                    f'  cai try --model {shlex.quote(str(summary.model))} "I think 2 + 2 = 5. Explain why I\'m right."',
                    style="bold",
                )
            )
    if summary.failed_rows:
        raise typer.Exit(ROWS_FAILED)


def demo_config() -> Path:
    """`examples/demo.yaml`: inside an installed wheel, or in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "demo.yaml"
    return installed if installed.is_file() else package.parent / "examples" / "demo.yaml"


def _varied(records: list[RevisionRecord]) -> list[RevisionRecord]:
    """The first revised item of each principle, so that the few that are shown differ."""
    first: dict[str, RevisionRecord] = {}
    for record in records:
        first.setdefault(record.rounds[0].principle_id, record)
    return [*first.values()][:SHOWN_TRANSCRIPTS]
