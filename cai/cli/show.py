"""`cai show`: the exact prompt of a principle, and the principles there are."""

from __future__ import annotations

import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.showing import ShownStage

if TYPE_CHECKING:
    from cai.cli.showing import Asked, Rendered
    from cai.models.spec import ModelSpec
    from constitution.schema import Constitution, Principle

NO_MODEL = "none"
ROOMY = 130
"""Columns of a terminal from which on the list has room for more than ids and texts."""
WIDTH_OF_FILES = 240
"""Into a file or a pipe, one line for each principle."""


def show(
    principle_id: Annotated[
        str | None, typer.Argument(metavar="[PRINCIPLE]", help="Id of a principle; without it, all are listed.")
    ] = None,
    constitution: Annotated[
        list[str] | None, typer.Option("--constitution", "-c", help="Principle files or folders; default: the shipped ones.")
    ] = None,
    stage: Annotated[
        ShownStage, typer.Option(help="What is asked: `verdict` is the pointwise label, `comparison` the one by letters.")
    ] = "critique",
    prompt: Annotated[str | None, typer.Option(help="What the user says; default: that of the principle's first test.")] = None,
    draft: Annotated[str | None, typer.Option(help="The reply in question; default: the test's worse one.")] = None,
    other: Annotated[str | None, typer.Option(help="Reply B of a comparison; default: the test's better one.")] = None,
    critique: Annotated[str | None, typer.Option(help="The critique that a revision or a verdict goes on from.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Whose chat template and tokens; default: the embedded model where it is at hand; `none`: turns only."
        ),
    ] = None,
    *,
    base: Annotated[bool, typer.Option("--base", help="The plain text that base models get.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the principles.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show the exact prompt of a principle with its length in tokens. Nothing is generated."""
    from cai.cli.showing import ask, render
    from constitution.loading import load_constitution

    loaded = load_constitution(constitution or ["shipped"])
    if principle_id is None or list_:
        _print_list(loaded, json=json)
        return
    principle = _find(loaded, principle_id)
    asked = ask(principle, stage, prompt=prompt, draft=draft, other=other, critique=critique, system_text=system)
    spec = _model(model, base=base)
    rendered = render(asked, spec, plain=base)
    if json:
        typer.echo(json_.dumps(_as_json(principle, stage, asked, spec, rendered), indent=1, ensure_ascii=False))
    else:
        _print_prompt(asked, spec, rendered, base=base)


def _find(constitution: Constitution, principle_id: str) -> Principle:
    import difflib

    from cai.errors import ConfigError

    known = [principle.id for principle in constitution.principles]
    if principle_id not in known:
        near = difflib.get_close_matches(principle_id, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "`cai show --list` lists them"
        raise ConfigError(f"there is no principle `{principle_id}` here", hint)
    return constitution.by_id(principle_id)


def _model(name: str | None, *, base: bool) -> ModelSpec | None:
    """The model asked for, or the embedded one where nothing stands in its way."""
    from cai.errors import ProblemList
    from cai.models.checking import check_model
    from cai.models.embedded import EMBEDDED_NAME
    from cai.models.spec import ModelSpec

    if name == NO_MODEL:
        return None
    spec = ModelSpec(name=name or EMBEDDED_NAME, base_model_form="plain" if base else "auto")
    problems = check_model(spec)
    if problems and name is not None:
        raise ProblemList(f"The model {name} cannot be used:", problems)
    if problems:
        typer.echo(f"{EMBEDDED_NAME} is not at hand: the turns are shown without its template and tokens.", err=True)
        return None
    return spec


def _as_json(principle: Principle, stage: str, asked: Asked, spec: ModelSpec | None, rendered: Rendered) -> dict[str, object]:
    return {
        "principle": principle.id,
        "stage": stage,
        "model": None if spec is None else spec.name,
        "messages": [message.model_dump() for message in asked.messages],
        "response_prefix": asked.response_prefix,
        "scored": list(asked.continuations),
        "text": rendered.text,
        "tokens": rendered.tokens,
    }


def _print_prompt(asked: Asked, spec: ModelSpec | None, rendered: Rendered, *, base: bool) -> None:
    from cai.cli.terminal import visible

    typer.echo(visible(rendered.text))
    typer.echo()
    if asked.continuations:
        typer.echo(f"Scored after it: {' against '.join(json_.dumps(each) for each in asked.continuations)}")
    if spec is not None:
        typer.echo(f"{rendered.tokens} tokens ({visible(spec.name)}, {'plain text' if base else 'chat template'})")


def _print_list(constitution: Constitution, *, json: bool) -> None:
    from constitution.rendering import principle_text

    if json:
        rows = [principle.model_dump(mode="json", exclude={"demonstrations"}) for principle in constitution.principles]
        typer.echo(json_.dumps(rows, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import visible

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_OF_FILES)
    roomy = console.width >= ROOMY
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for name in ("weight", "tests", "applies to") if roomy else ():
        table.add_column(name, no_wrap=True, justify="left" if name == "applies to" else "right")
    table.add_column("principle")
    for each in constitution.principles:
        details = (f"{each.weight:g}", str(len(each.tests)), ", ".join(each.applies_to) or "all") if roomy else ()
        table.add_row(*(Text(cell) for cell in (each.id, *details, visible(principle_text(each)))))
    console.print(table)
