"""`cai show`: the exact prompts of principles, and the principles there are."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    from cai.cli.asking import Question
    from constitution.schema import Constitution, Principle

ShownStage: TypeAlias = Literal[
    "critique", "revision", "direct-revision", "verdict", "comparison", "argument", "yes-no", "contrast", "all"
]

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
        ShownStage | None,
        typer.Option(
            help="`verdict` is the pointwise label, `comparison` the one by letters, in both orders, `argument` what the "
            "advocates of a debate are asked; default: `critique`, or `all` with --all."
        ),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Prompts in any form that a run reads; multi-turn ones are kept whole.")
    ] = None,
    item: Annotated[
        str | None,
        typer.Option(metavar="UID|ROW|longest", help="Which of them: its uid, or its row in the file; default: the first."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What the user says; default: that of the principle's first test.")] = None,
    draft: Annotated[str | None, typer.Option(help="The reply in question; default: the test's worse one.")] = None,
    other: Annotated[str | None, typer.Option(help="The other reply of a comparison; default: the test's better one.")] = None,
    critique: Annotated[str | None, typer.Option(help="The critique that a revision or a verdict goes on from.")] = None,
    argument: Annotated[str | None, typer.Option(help="What an advocate has said, for either reply of a debate.")] = None,
    system: Annotated[str | None, typer.Option(help="System message, where the prompt has none of its own.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Whose tokenizer, chat template and context length; weights are not needed. Default: the embedded model where "
            "it is at hand; `none`: turns only."
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="N[,N…]", help="Context lengths, in tokens; default: the model's own.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.yaml", help="Take principles, prompts, feedback model and the stages' `max_tokens` from this run."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With --config: override a setting. May be repeated.")
    ] = None,
    *,
    base: Annotated[bool, typer.Option("--base", help="The plain text that base models get.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the principles.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="A table: tokens of every principle and stage, for one prompt.")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="One line for each token: place, id, text.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show the exact prompts of a principle: tokens, what they share, and whether they fit. Nothing is generated."""
    from cai.cli.asking import Wanted, question_of

    if principle_id is not None and all_:
        raise typer.BadParameter("shows every principle: leave out the id, or --all", param_hint="--all")
    wanted = Wanted(
        constitution=tuple(constitution or ()),
        prompts=prompts,
        item=item,
        prompt=prompt,
        draft=draft,
        other=other,
        critique=critique,
        argument=argument,
        system=system,
        model=model,
        contexts=_contexts(context),
        config=config,
        settings=tuple(settings or ()),
        base=base,
    )
    question = question_of(wanted)
    if list_ or (principle_id is None and not all_):
        _print_list(question.constitution, json=json)
    elif principle_id is None:
        _show_all(question, "all" if stage is None else stage, json=json)
    else:
        _show_one(question, _find(question.constitution, principle_id), stage or "critique", tokens=tokens, json=json)


def _contexts(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of token counts such as 512,2048,4096", param_hint="--context")
    return tuple(sorted({int(part) for part in parts}))


def _find(constitution: Constitution, principle_id: str) -> Principle:
    from cai.errors import UnknownPrincipleError

    if principle_id not in constitution.ids:
        raise UnknownPrincipleError(principle_id, constitution.ids, advice="`cai show --list` lists them")
    return constitution.by_id(principle_id)


def _show_one(question: Question, principle: Principle, stage: ShownStage, *, tokens: bool, json: bool) -> None:
    from cai.cli.asking import stages_of
    from cai.cli.show_json import preview_json, turns_json
    from cai.cli.showing import print_previews, print_turns

    case = question.case(principle)
    model = question.model()
    if model is None:
        if tokens:
            raise typer.BadParameter("needs a model: its tokenizer makes the tokens", param_hint="--tokens")
        from cai.authoring.previews.stages import ask
        from cai.authoring.previews.turns import plain_text, turns_text

        text_of = plain_text if question.wanted.base else turns_text
        asked = [each for name in stages_of(stage) for each in ask(principle, name, case, question.settings)]
        if json:
            typer.echo(json_.dumps(turns_json(principle, case, asked, text_of), indent=1, ensure_ascii=False))
        else:
            print_turns(principle, case, asked, text_of)
        return
    previews = model.previewer.preview(principle, case, stages_of(stage))
    if json:
        typer.echo(json_.dumps(preview_json(model, principle, case, previews, tokens=tokens), indent=1, ensure_ascii=False))
    else:
        print_previews(model, principle, case, previews, tokens=tokens)


def _show_all(question: Question, stage: ShownStage, *, json: bool) -> None:
    from cai.cli.asking import stages_of
    from cai.cli.show_table import print_table, table_json
    from cai.errors import ConfigError

    principles = question.constitution.principles
    case = question.case(next((each for each in principles if each.tests), principles[0]))
    model = question.model()
    if model is None:
        raise ConfigError("--all counts tokens, and there is no model here", "give --model FOLDER; its tokenizer is enough")
    previews, totals = model.previewer.table(case, stages_of(stage))
    if json:
        typer.echo(json_.dumps(table_json(model, case, previews, totals), indent=1, ensure_ascii=False))
    else:
        print_table(model, case, previews, totals)


def _print_list(constitution: Constitution, *, json: bool) -> None:
    from constitution.rendering import principle_text

    if json:
        rows = [principle.model_dump(mode="json", exclude={"demonstrations"}) for principle in constitution.principles]
        typer.echo(json_.dumps(rows, indent=1, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import tables, visible

    console = tables(WIDTH_OF_FILES)
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
