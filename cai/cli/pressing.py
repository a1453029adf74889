"""What `cai argue` and `cai attack` have in common: their options, and the files they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from cai.records import Item
    from cai.sycophancy.written import WrittenSuite

PROMPTS_NAME, PAIRS_NAME, SUITE_NAME = "prompts.jsonl", "pairs.jsonl", "suite.yaml"

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Write prompts.jsonl, pairs.jsonl and suite.yaml there.")]
WordingsFile = Annotated[
    Path | None, typer.Option("--wordings", metavar="FILE.yaml", help="How users press; default: the file that comes along.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the files in --out.")]


def write_trials(
    out: Path, learned: Sequence[Item], suite: WrittenSuite, *, more: Mapping[str, str] | None = None, force: bool
) -> dict[str, Any]:
    """Write prompts and suite into a folder, each whole or not at all, and say what is there.

    Args:
        out: The folder; made where it is missing.
        learned: What goes into the prompts.
        suite: As it is written; one without trials is not.
        more: Name → content of other files.
        force: Replace what is there; a file of these names that is not written now is deleted.

    Raises:
        CaiError: If a file is there already and may not be replaced, or cannot be written.
    """
    from cai.cli.output_files import refuse_existing, refuse_no_folder, write
    from cai.evaluation.suite_cases import trials
    from cai.evaluation.suite_reading import read_suite
    from cai.sycophancy.written import prompt_rows

    files = {**({PROMPTS_NAME: prompt_rows(learned)} if learned else {}), **(more or {})}
    files |= {SUITE_NAME: suite.text} if suite.trials else {}
    refuse_no_folder(out)
    # What is not written now would stand beside it as if it were of the same prompts.
    stale = {PROMPTS_NAME, PAIRS_NAME, SUITE_NAME} - set(files)
    for name in [*files, *stale]:
        refuse_existing(out / name, force=force)
    out.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (out / name).unlink(missing_ok=True)
    for name, content in files.items():
        write(out / name, content)
    if suite.trials:
        read = len(trials(read_suite(out / SUITE_NAME)))
        assert read == suite.trials, f"{read} of {suite.trials} trials can be read back"
    return {
        "prompts": len(learned),
        "pairs": files.get(PAIRS_NAME, "").count("\n"),
        "suite": suite.trials,
        "files": [str(out / name) for name in files],
    }


def show_written(told: Mapping[str, Any], *, json: bool) -> None:
    """What was written, as sentences or as JSON."""
    if json:
        import json as json_

        typer.echo(json_.dumps(told, indent=1, ensure_ascii=False))
        return
    typer.echo(f"{told['prompts']} prompts and {told['pairs']} pairs to learn from, {told['suite']} held out in a suite:")
    for name in cast("list[str]", told["files"]):
        typer.echo(f"  {name}")
    for why, count in cast("dict[str, int]", told.get("left out", {})).items():
        typer.echo(f"left out, {why}: {count}")
