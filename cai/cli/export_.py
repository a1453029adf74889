"""`cai export`: the data sets of a run, as a stage of it, or in the form of another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.run import AsJson, AsPlan, Settings, foresee, perform, read, resumable
from cai.records import Stage

if TYPE_CHECKING:
    from cai.data.exporting import ExportOutcome
    from cai.review.flow import Waiting

Run = Annotated[
    Path, typer.Argument(metavar="RUN|CONFIG.yaml", help="Folder of a run, or its YAML file; without --to, the YAML file.")
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="trl, trl-standard, axolotl, llama-factory, alignment-handbook, inverse-cai, hh-rlhf, jsonl, parquet or datasets.",
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="--to: folder to write, new or of an earlier export.")]
Split = Annotated[
    float | None, typer.Option("--split", metavar="SHARE", help="--to: share of the prompts that goes to a test part, as 0.1.")
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", metavar="P", help="--to: leave out pairs whose p_chosen is below, from 0.5 to 1.")
]
Tokenizer = Annotated[
    str | None,
    typer.Option("--tokenizer", help="--to: model whose tokenizer counts what a trainer would cut; default: the policy's."),
]
Licence = Annotated[
    str | None, typer.Option("--licence", "--license", help="--to: of the data set, as the hub names it: apache-2.0 …")
]
Languages = Annotated[list[str] | None, typer.Option("--language", help="--to: code of a language, as en. May be repeated.")]
Push = Annotated[
    str | None, typer.Option("--push", metavar="OWNER/NAME", help="--to: upload the export to the hub, too, in one commit.")
]


def export(
    run: Run,
    settings: Settings = None,
    *,
    to: To = None,
    output: Output = None,
    split: Split = None,
    threshold: Threshold = None,
    tokenizer: Tokenizer = None,
    licence: Licence = None,
    language: Languages = None,
    push: Push = None,
    private: Annotated[bool, typer.Option("--private", help="--push: a repository that only its owner sees.")] = False,
    plan: AsPlan = False,
    json: AsJson = False,
) -> None:
    """Write the data sets (what comes before is done first, or reused); with --to, those of a finished run for another program.

    With --to nothing is computed: the run's folder is read, also beside its own process. Nothing is left out, changed or made
    certain without a word, here and on the card.
    """
    if to is None:
        given = (output, split, threshold, tokenizer, licence, language, push, private or None)
        _refuse_stage_misuse(run, options_given=any(each is not None for each in given))
        (foresee if plan else perform)(read(run, settings), until=Stage.EXPORT, json=json)
        return
    from cai.data.exporting import format_named

    form = format_named(to)
    if output is None:
        raise typer.BadParameter("--to needs --output, the folder to write")
    if plan:
        raise typer.BadParameter("--plan is of the stage; --to computes nothing that could be planned")
    _check_number("--split", split, 0.0, 0.9, open_below=True)
    _check_number("--threshold", threshold, 0.5, 1.0)
    _check_words("--licence", licence)
    for each in language or ():
        _check_words("--language", each)
    if private and push is None:
        raise typer.BadParameter("--private is of --push")
    folder = run if run.is_dir() or run.suffix not in {".yaml", ".yml"} else read(run, settings).config.run
    from cai.pipeline.run_exports import export_run

    with resumable(" Nothing was written."):
        if push is not None:
            from cai.data.hub import check_push

            check_push(push)
        outcome = export_run(
            folder,
            form,
            output,
            threshold=threshold,
            test_share=split,
            tokenizer=tokenizer,
            licence=licence,
            languages=tuple(language or ()),
        )
    address = None
    if push is not None:
        from cai.data.hub import push_folder

        with resumable(f" {output} is whole; nothing was pushed."):
            address = push_folder(output, push, private=private)
    from cai.review.flow import waiting
    from cai.store import RunFolder

    with RunFolder.open(folder, create=False, read_only=True, checked=False) as opened:
        held_back = waiting(opened)
    _print(outcome, output, address, held_back, as_json=json)


def _refuse_stage_misuse(run: Path, *, options_given: bool) -> None:
    if options_given:
        raise typer.BadParameter("these options belong to --to FORMAT")
    if run.is_dir():
        from cai.data.exporting import FORMATS

        raise typer.BadParameter(f"{run} is a folder: say in which form, with --to {', '.join(FORMATS)}")


def _check_number(option: str, value: float | None, least: float, most: float, *, open_below: bool = False) -> None:
    if value is not None and not (least < value <= most if open_below else least <= value <= most):
        raise typer.BadParameter(
            f"{value:g} is not {'above' if open_below else 'from'} {least:g} and at most {most:g}", param_hint=option
        )


def _check_words(option: str, value: str | None) -> None:
    import re

    from cai.data.front_matter import LANGUAGE, LICENCE

    if value is not None and not re.fullmatch(LICENCE if option == "--licence" else LANGUAGE, value):
        like = "apache-2.0, cc-by-4.0 or other" if option == "--licence" else "en, de or yue"
        raise typer.BadParameter(f"{value!r} is not like {like}", param_hint=option)


def _print(outcome: ExportOutcome, output: Path, address: str | None, held_back: Waiting, *, as_json: bool) -> None:
    from cai.cli.terminal import visible

    if as_json:
        import json

        content = _as_json(outcome, output, address)
        content["waiting_for_review"] = {"pairs": held_back.pairs, "rows": held_back.rows}
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False))
        return
    for each in outcome.written():
        for split, name in each.files.items():
            typer.echo(visible(f"{output / name}: {each.rows[split]:,} rows"))
    for line in outcome.told():
        typer.echo(visible(f"- {line}"))
    if held_back:
        typer.echo(f"- {held_back}, and are in none of these files: see `cai review`")
    if address is not None:
        typer.echo(visible(f"Pushed: {address}"))


def _as_json(outcome: ExportOutcome, output: Path, address: str | None) -> dict[str, object]:
    tables = [
        {
            "name": each.table.name,
            "files": {split: str(output / name) for split, name in each.files.items()},
            "rows": each.rows,
            "left_out": dict(each.left_out),
            "changed": dict(each.notes),
            "below_threshold": each.below_threshold,
            "soft_labels": each.soft,
            "over_limit": None
            if each.lengths is None or each.table.limit is None
            else {
                "setting": each.table.limit.setting,
                "tokens": each.table.limit.tokens,
                "rows": each.lengths.over,
                "of": each.lengths.counted,
            },
        }
        for each in outcome.tables
    ]
    pushed = {} if address is None else {"pushed": address}
    return {"format": outcome.format.name, "folder": str(output), "tables": tables, "told": list(outcome.told()), **pushed}
