"""`cai review`: people judge what matters most of a run; figures, conflicts, and the way to other programs and back."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cai.cli.run import ROWS_FAILED, resumable
from cai.cli.terminal import visible

if TYPE_CHECKING:
    from cai.review.desk import Desk
    from cai.review.exchange import Imported
    from cai.review.figures import ReviewFigures

SHOWN_BAD_ROWS = 20
FormChoice = Literal["csv", "argilla", "label-studio"]


def review(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run whose labels are made, at work or not.")],
    *,
    page: Annotated[
        bool, typer.Option("--page", help="Serve the review as a web page on this machine, for several people.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="--page: to listen on; 0: any free one.")] = 0,
    name: Annotated[str | None, typer.Option("--name", help="Who judges; default: your user name.")] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Only tell what verdicts say of the labels, and of each other.")
    ] = False,
    conflicts: Annotated[bool, typer.Option("--conflicts", help="Only list what people disagree on.")] = False,
    export: Annotated[
        FormChoice | None, typer.Option("--export", help="Only write what is asked, for another program.")
    ] = None,
    which: Annotated[
        Literal["open", "judged", "all"], typer.Option("--which", help="--export: what wants a verdict, what has one, or both.")
    ] = "open",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="--export: file to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="--export: replace the file, and what was filled in there.")] = False,
    import_: Annotated[FormChoice | None, typer.Option("--import", help="Only take the verdicts in --input.")] = None,
    source: Annotated[Path | None, typer.Option("--input", "-i", help="--import: file to read.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="--figures, --conflicts, --export, --import: print one JSON object.")
    ] = False,
) -> None:
    """People judge: in this terminal, or with --page in a browser. What matters most comes first, blind and in random places.

    Asked are undecided pairs, those of high impact (`review.tags`, `review.detectors`) and a random part, from which the
    quality of all labels is estimated. Verdicts beat AI feedback in the next export and training. The run is not locked.
    """
    if sum(map(bool, (page, figures, conflicts, export, import_))) > 1:
        raise typer.BadParameter("--page, --figures, --conflicts, --export and --import exclude each other")
    if name is not None and (page or figures or conflicts or export or import_):
        raise typer.BadParameter("--name is of the terminal; the page asks everybody for theirs")
    if (export is None) is not (output is None):
        raise typer.BadParameter("--export and --output belong together")
    if force and export is None:
        raise typer.BadParameter("--force is of --export")
    if (import_ is None) is not (source is None):
        raise typer.BadParameter("--import and --input belong together")
    if figures:
        _tell_figures(run, as_json=json)
    elif conflicts:
        _tell_conflicts(run, as_json=json)
    elif export is not None and output is not None:
        _refuse_to_replace(export, output, force=force)
        _export(run, export, which, output, as_json=json)
    elif import_ is not None and source is not None:
        _import(run, import_, source, as_json=json)
    elif page:
        _serve(run, port)
    else:
        from cai.cli.review_terminal import review_in_terminal

        with resumable(" Every verdict you gave is kept."):
            review_in_terminal(run, name or getpass.getuser())


def _serve(run: Path, port: int) -> None:
    from cai.review.desk import Desk
    from cai.review.server import ReviewServer

    with Desk(run, "page") as desk:
        server = ReviewServer(desk, port)
        try:
            _tell_waiting(desk)
            typer.echo("Open this address; whoever has it may judge. Ctrl-C ends the review; verdicts are kept as they come.")
            typer.echo(f"  {server.url}")
            typer.echo(
                f"From another machine: ssh -L {server.port}:127.0.0.1:{server.port} THIS_MACHINE, then the same address."
            )
            with resumable(" Every verdict is kept."):
                server.serve()
        finally:
            server.close()


def _tell_waiting(desk: Desk) -> None:
    if waiting := desk.waiting():
        typer.echo(f"{waiting}; until then they are in no data set and no training.")


def _tell_figures(run: Path, *, as_json: bool) -> None:
    from cai.report.review_in_words import review_in_words
    from cai.review.figures import review_figures
    from cai.store import RunFolder

    with RunFolder.open(run, create=False, read_only=True) as folder:
        found = review_figures(folder)
    if as_json:
        typer.echo("null" if found is None else found.model_dump_json(indent=1))
        return
    if found is None:
        typer.echo("Nobody has reviewed this run.")
        return
    _print_figures(found, [*review_in_words(found)])


def _print_figures(found: ReviewFigures, lines: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import tables

    table = Table.grid(padding=(0, 2))
    for figure, meaning in lines:
        table.add_row(Text(figure, style="bold", justify="right"), Text(visible(meaning), overflow="fold"))
    out = tables()
    out.print(table)
    if found.conflicts:
        out.print(Text("See --conflicts for what people disagree on.", style="yellow"))


def _tell_conflicts(run: Path, *, as_json: bool) -> None:
    import json

    from cai.review.desk import Desk

    with Desk(run) as desk:
        disputed = desk.conflicts()
    if as_json:
        content = [[each.model_dump(mode="json") for each in opinion.verdicts] for opinion, _ in disputed]
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False))
        return
    if not disputed:
        typer.echo("Nobody contradicts anybody.")
    for opinion, answers in disputed:
        typer.echo(visible(f"{opinion.verdicts[0].uid}: {'' if answers is None else answers.prompt[-1].content[:200]}"))
        for each in opinion.verdicts:
            preferred = {"first": 0, "second": 1}.get(each.judgement.value)
            text = "" if answers is None or preferred is None else f" “{answers.texts[preferred][:100]}”"
            note = f" ({each.note})" if each.note else ""
            said = each.judgement.value.replace("_", " ") if preferred is None else "prefers"
            typer.echo(visible(f"  {each.reviewer}, {each.at[:16]}: {said}{text}{note}"))


def _refuse_to_replace(form: FormChoice, output: Path, *, force: bool) -> None:
    """Somebody may have written verdicts into a file that was exported before."""
    from cai.errors import CaiError
    from cai.review.exchange import FORMS

    beside = FORMS[form].beside
    if beside is not None and output.suffix == beside[0]:
        raise CaiError(f"{output}: that is where the labelling configuration goes.", f"Name it {output.with_suffix('.json')}.")
    for each in (output, *([output.with_suffix(beside[0])] if beside is not None else [])):
        if each.is_file() and not force:
            raise CaiError(
                f"{each}: exists already; nothing was written.",
                "Take verdicts in it with --import first; then name another file, or replace it with --force.",
            )


def _export(run: Path, form: FormChoice, which: Literal["open", "judged", "all"], output: Path, *, as_json: bool) -> None:
    import json

    from cai.review.exchange import FORMS, export_review

    done = export_review(run, FORMS[form], output, which=which)
    if as_json:
        content = {"files": [str(each) for each in done.files], "questions": done.questions, "verdicts": done.verdicts}
        typer.echo(json.dumps(content, indent=1))
        return
    for each in done.files:
        typer.echo(visible(str(each)))
    typer.echo(f"{done.questions:,} questions, with {done.verdicts:,} verdicts. {FORMS[form].told}")


def _import(run: Path, form: FormChoice, source: Path, *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from cai.review.exchange import FORMS, import_review

    done = import_review(run, FORMS[form], source)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=1, ensure_ascii=False))
    else:
        _print_import(done)
    if done.bad:
        raise typer.Exit(ROWS_FAILED)


def _print_import(done: Imported) -> None:
    taken = f"{done.added:,} verdict{'s' * (done.added != 1)} taken"
    typer.echo(f"{taken}; {done.known:,} known before; rows that nobody had judged: {done.empty:,}.")
    if done.bad:
        typer.echo(f"{len(done.bad):,} row{'s' * (len(done.bad) != 1)} could not be taken:", err=True)
    for each in done.bad[:SHOWN_BAD_ROWS]:
        typer.echo(visible(f"- {each}"), err=True)
    if len(done.bad) > SHOWN_BAD_ROWS:
        typer.echo(f"- … and {len(done.bad) - SHOWN_BAD_ROWS:,} more; --json lists all.", err=True)
