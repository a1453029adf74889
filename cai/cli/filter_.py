"""`cai filter`: what the filters took out of a run or a file, or would take out, and why."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai.cli.run import ROWS_FAILED, AsJson

if TYPE_CHECKING:
    from cai.data.filters.overview import Explanation, Overview
    from cai.data.filters.settings import FilterRules

RUN_OR_DATA = "give the folder of a run, or --data FILE"


def filter_(
    folder: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Folder of a run; or give --data.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Preference or supervised rows (.jsonl, .csv, .parquet …), ours or others'.")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only this rule.")] = None,
    explain: Annotated[
        str | None,
        typer.Option(metavar="ROW", help="What every rule says of one row: a uid, `uid#replica`, or a line of the file."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Look anew with another setting, e.g. --set pii=drop. Repeatable."),
    ] = None,
    write: Annotated[Path | None, typer.Option(help="With --data: put the rows that are kept here, as JSONL.")] = None,
    dropped: Annotated[
        Path | None, typer.Option(help="With --data: put the rows that are dropped here, with their rule.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Look anew with every rule; those that are off only flag.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    json: AsJson = False,
) -> None:
    """What the filters dropped and flagged, rule by rule, with examples; or what they say of one row.

    Of a run, what is stored with it; with --set or --all, what these settings would find. A run is never changed: rules go into
    its configuration, under `filters`. Of a file, rows are judged now, and can be written without those that are dropped.
    """
    if (folder is None) == (data is None):
        raise typer.BadParameter(RUN_OR_DATA)
    if data is None and (write is not None or dropped is not None):
        raise typer.BadParameter("--write and --dropped go with --data; a run writes its data sets itself")
    _check_rule(rule)
    found = (
        _of_run(folder, explain, settings, every=every)
        if folder is not None
        else _of_file(_given(data), explain, settings, write, dropped, every=every, force=force)
    )
    if json:
        typer.echo(json_.dumps(_only(found.as_json(), rule), indent=1, ensure_ascii=True))
    else:
        from cai.cli.filtered import print_explanation, print_overview
        from cai.cli.terminal import tables
        from cai.data.filters.overview import Overview

        if isinstance(found, Overview):
            print_overview(found, tables(), rule)
        else:
            print_explanation(found, tables(), rule)
    if getattr(found, "unreadable_rows", 0):
        raise typer.Exit(ROWS_FAILED)


def _of_run(folder: Path, row: str | None, settings: list[str] | None, *, every: bool) -> Overview | Explanation:
    from cai.data.filters.stored import rules_of, stored_overview
    from cai.pipeline.sifting import explain, trial_overview
    from cai.store import RunFolder

    with RunFolder.open(folder, create=False, read_only=True) as run:
        if row is None and not settings and not every:
            return stored_overview(run)
        rules = _changed(rules_of(run), settings, every=every)
        return trial_overview(run, rules) if row is None else explain(run, row, rules)


def _of_file(
    path: Path,
    row: str | None,
    settings: list[str] | None,
    kept: Path | None,
    dropped: Path | None,
    *,
    every: bool,
    force: bool,
) -> Overview | Explanation:
    from cai.data.filters.files import explain_row, filter_file
    from cai.data.filters.settings import FilterRules
    from cai.pipeline.filtering import evaluation_sets

    for target in (kept, dropped):
        if target is not None:
            _check_target(target, path, force=force)
    rules = _changed(FilterRules(), settings, every=every)
    sets = evaluation_sets(rules)
    if row is not None:
        return explain_row(path, row, rules, sets)
    return filter_file(path, rules, sets, kept=kept, dropped=dropped)


def _changed(rules: FilterRules, settings: list[str] | None, *, every: bool) -> FilterRules:
    """The rules with other settings; with `every`, those that were off flag."""
    from cai.config import read_section
    from cai.data.filters.leakage import evaluation_set_problems
    from cai.data.filters.settings import FilterRules
    from cai.data.filters.sieve import RULE_IDS
    from cai.errors import ProblemList

    if every:
        off = [name for name in RULE_IDS if rules.action(name) == "off"]
        rules = rules.model_copy(update=dict.fromkeys(off, "flag"))
    given = read_section(FilterRules, "filters", settings or [])
    rules = rules.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})
    if problems := evaluation_set_problems(rules.evaluation_sets):
        raise ProblemList("these evaluation sets cannot be read:", problems)
    return rules


def _check_rule(rule: str | None) -> None:
    from cai.data.filters.sieve import RULE_IDS

    if rule is not None and rule not in RULE_IDS:
        from cai.data.tables import nearest

        raise typer.BadParameter(f"no rule {rule!r}.{nearest(rule, RULE_IDS)} Rules: {', '.join(RULE_IDS)}")


def _check_target(target: Path, source: Path, *, force: bool) -> None:
    from cai.errors import CaiError

    if target.suffix not in (".jsonl", ".ndjson"):
        raise typer.BadParameter(f"{target}: rows are written as JSONL; name the file *.jsonl")
    if target.resolve() == source.resolve():
        raise CaiError(f"{target}: is the file that is read; nothing was written.", "Give another place.")
    if target.is_dir() or (target.exists() and not force):
        raise CaiError(f"{target}: exists already; nothing was written.", "Give another place, or replace it with --force.")


def _given(data: Path | None) -> Path:
    if data is None:
        raise typer.BadParameter(RUN_OR_DATA)
    return data


def _only(content: dict[str, Any], rule: str | None) -> dict[str, Any]:
    return content | {"rules": [each for each in content["rules"] if rule in (None, each["rule"])]}
