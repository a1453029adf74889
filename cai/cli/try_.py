"""`cai try`: one prompt through the loop, on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cai.cli.run import ROWS_FAILED, AsJson

EMBEDDED = "smollm2-135m"


def try_(
    prompt: Annotated[str, typer.Argument(help="What the user says.")],
    constitution: Annotated[
        list[str] | None, typer.Option("--constitution", "-c", help="Principle files or folders; default: the shipped ones.")
    ] = None,
    principle: Annotated[
        list[str] | None, typer.Option("--principle", "-p", help="Use only this principle. May be repeated: one round each.")
    ] = None,
    draft: Annotated[str | None, typer.Option(help="Start from this draft instead of letting the policy write one.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"The policy: folder, hub id or the embedded model; default: {EMBEDDED}.")
    ] = None,
    feedback: Annotated[
        str | None,
        typer.Option(help="The model that critiques and revises; default: the policy, the embedded one with its adapter."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="RUN.yaml", help="Take policy and feedback model from this run; flags win.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=16, help="Rounds of critique and revision.")] = 1,
    tags: Annotated[str, typer.Option(help="Tags of the prompt, by commas: they choose principles.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0, max=5.0, help="Of the draft; 0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest text, in tokens.")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="Draws the principle and the noise.")] = 0,
    gate_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the gate, e.g. on_reject=retry; implies --gate. May be repeated."
        ),
    ] = None,
    *,
    gate: Annotated[
        bool, typer.Option("--gate", help="Judge each revision against the text before it, and show the verdicts.")
    ] = False,
    json: AsJson = False,
) -> None:
    """One prompt through draft → critique → revision, with word diffs. Writes nothing."""
    from cai.cli.progress import ProgressDisplay
    from cai.cli.trying import Trial, try_prompt
    from cai.config import read_section
    from cai.loop import GateSettings
    from cai.records import FailureRecord

    trial = Trial(
        prompt=prompt,
        constitution=tuple(constitution or ["shipped"]),
        principles=tuple(principle or ()),
        draft=draft,
        model=model,
        feedback=feedback,
        config=config,
        system=system,
        rounds=rounds,
        tags=tuple(tag.strip() for tag in tags.split(",") if tag.strip()),
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        gate=read_section(GateSettings, "loop.gate", gate_settings or []) if gate or gate_settings else None,
    )
    with ProgressDisplay():  # tells of the models that are loaded
        outcomes = try_prompt(trial)
    if json:
        typer.echo("\n".join(each.model_dump_json() for each in outcomes))
    else:
        from rich.console import Console
        from rich.text import Text

        from cai.cli.summary import print_transcripts
        from cai.cli.terminal import visible

        out = Console(highlight=False)
        for each in outcomes:
            if isinstance(each, FailureRecord):
                out.print(Text(f"failed in {each.stage}: {each.cause}: {visible(each.detail)}", style="red"))
            else:
                print_transcripts([each], out)
                if not each.rounds:
                    out.print(
                        Text("No principle applies to this prompt: give --tags, or name one with --principle.", style="yellow")
                    )
    if any(isinstance(each, FailureRecord) for each in outcomes):
        raise typer.Exit(ROWS_FAILED)
