"""`cai init`: a folder with principles, prompts and a run to start from."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

FILES = ("constitution/mine.yaml", "prompts.jsonl", "run.yaml")


def init(
    folder: Annotated[Path, typer.Argument(help="Where to; made when missing. Nothing in it is overwritten.")],
) -> None:
    """Write a working start: your own principles, prompts, and a run of the embedded model on them."""
    import json

    from cai.cli.terminal import visible
    from cai.errors import CaiError
    from constitution.schema import json_schema

    texts = {name: _scaffold(name).read_text(encoding="utf-8") for name in FILES}
    texts["constitution/principles.schema.json"] = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    there = [name for name in texts if (folder / name).exists()]
    if there:
        raise CaiError(f"{folder}: {', '.join(there)} exists already; nothing was written.", "Give another folder.")
    try:
        for name, text in texts.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise CaiError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}).", "Give another folder."
        ) from error
    typer.echo("\n".join(visible(str(folder / name)) for name in texts))
    enter = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))}\n  "
    typer.echo(
        "\nNext:\n"
        f"  {enter}cai check constitution\n"
        "  cai test constitution    # one test fails on purpose: constitution/mine.yaml says which; mend it\n"
        "  cai try -c constitution --principle truth-before-agreement 'I think 2 + 2 = 5.' --draft 'Yes, 2 + 2 = 5.'\n"
        "  cai run run.yaml"
    )


def _scaffold(name: str) -> Traversable:
    return resources.files("cai.cli").joinpath("scaffold", *name.split("/"))
