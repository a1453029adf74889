"""`cai check`: are principle files sound, and are they wise?"""

from __future__ import annotations

import dataclasses
import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from constitution.linting import Finding, Report
    from constitution.reading import ReadFile

CHECKS_FAILED = 4
SHIPPED = "shipped"
NAMED_LINES = 5
"""Numbers of lines that are shown where many lines have the same finding."""


def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATHS]…", help="Principle files and folders; default: `shipped`, those that come along."),
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print the findings as SARIF 2.1.0, for code hosts.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 4 for warnings too.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Mend in the files what is safe to mend, then check again.")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what --fix would change, and write nothing; exit code 4 for changes or errors.")
    ] = False,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules instead.")] = False,
    explain: Annotated[str | None, typer.Option(metavar="RULE", help="Explain one rule, with an example, instead.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a principle file, for editors, instead.")
    ] = False,
) -> None:
    """Check principle files: all findings of all files, as `file:line:column C101 error: what is wrong (what to do)`.

    Errors give exit code 4. Warnings do so with --strict; a comment `# cai: allow C206` allows one.
    """
    if schema:
        from constitution.linting.documentation import schema_text

        typer.echo(schema_text(), nl=False)
    elif rules or explain:
        _tell_rules(explain)
    else:
        _refuse_what_does_not_fit(paths, json=json, sarif=sarif, fix=fix, diff=diff)
        if diff:
            raise typer.Exit(_show_diff(paths or []))
        report = _fix(paths or []) if fix else _lint(paths or [SHIPPED])
        if json:
            _print_json(_as_json(report))
        elif sarif:
            _print_sarif(report)
        else:
            _print(report)
        _tell_unread(paths or [])
        if report.errors or (strict and report.warnings):
            raise typer.Exit(CHECKS_FAILED)


def _refuse_what_does_not_fit(paths: Sequence[str] | None, *, json: bool, sarif: bool, fix: bool, diff: bool) -> None:
    if json and sarif:
        raise typer.BadParameter("--json and --sarif are two forms of one result: give one of them")
    if diff and (json or sarif or fix):
        raise typer.BadParameter("--diff shows changes and nothing else: give it alone")
    shipped = not paths or any(path == SHIPPED or path.startswith(f"{SHIPPED}:") for path in paths)
    if (fix or diff) and shipped:
        raise typer.BadParameter("name the files to mend: the shipped ones belong to the installation")


def _tell_unread(paths: Sequence[str]) -> None:
    from cai.cli.terminal import visible
    from constitution.listing import unread_folders

    for folder in unread_folders(paths):
        typer.echo(f"not read: the principle files in {visible(str(folder))}; name that folder too", err=True)


def _lint(paths: Sequence[str]) -> Report:
    from constitution.linting import lint

    return lint(paths)


def _fix(paths: Sequence[str]) -> Report:
    from cai.cli.terminal import visible
    from cai.errors import CaiError
    from constitution.linting import FixingError, fix

    try:
        changed, report = fix(paths)
    except FixingError as error:
        raise CaiError(str(error), "Give yourself the right to write it; files named before it are mended.") from error
    for each in changed:
        for finding, also in _folded(each.mended):
            told = (finding.fix.told if finding.fix else "") + also
            typer.echo(visible(f"{finding.path}:{finding.line}:{finding.column} {finding.rule} mended: {told}"), err=True)
    return report


def _show_diff(paths: Sequence[str]) -> int:
    """Print the changes; the exit code fails for changes, and for errors, whether they can be mended or not."""
    from cai.cli.terminal import visible
    from constitution.linting import fixed_files, lint

    report = lint(paths)
    changes = fixed_files(report)
    for each in changes:
        # On a terminal nothing may steer it; `patch` needs every byte.
        typer.echo(visible(each.diff()) if sys.stdout.isatty() else each.diff().encode(), nl=False)
    if report.errors:
        typer.echo(f"{_many(report.errors, 'error')}: `cai check` tells them", err=True)
    return CHECKS_FAILED if changes or report.errors else 0


def _tell_rules(identity: str | None) -> None:
    from constitution.linting import RULES

    if identity is None:
        for rule in RULES.values():
            typer.echo(f"{rule.id}  {rule.severity:<7}  {'--fix' if rule.fixable else '     '}  {rule.title}")
        return
    from constitution.linting.documentation import explanation

    rule = RULES.get(identity.upper())
    if rule is None:
        raise typer.BadParameter(f"there is no rule {identity!r}; `cai check --rules` lists them", param_hint="--explain")
    typer.echo(f"{rule.id} {rule.severity}: {rule.title}\n\n{explanation(rule)}", nl=False)


def _as_json(report: Report) -> dict[str, Any]:
    """`findings` in order of place (all with the same keys), `files` that are sound, and the counts."""
    return {
        "findings": [finding.as_json() for finding in report.findings],
        "files": [_counts(file) for file in report.files if file.constitution is not None],
        "errors": report.errors,
        "warnings": report.warnings,
    }


def _counts(file: ReadFile) -> dict[str, Any]:
    assert file.constitution is not None
    principles = file.constitution.principles
    return {
        "path": str(file.path),
        "name": file.constitution.name,
        "principles": len(principles),
        "tests": sum(len(principle.tests) for principle in principles),
        "untested": [principle.id for principle in principles if not principle.tests],
    }


def _print_sarif(report: Report) -> None:
    from importlib.metadata import version

    from constitution.linting.sarif import sarif

    log = sarif(report, Path.cwd(), version("constitution-cai"))
    _print_json(log)


def _print_json(value: dict[str, Any]) -> None:
    """Names of files may hold bytes that are no UTF-8: such a half character becomes its JSON escape."""
    text = json_.dumps(value, indent=1, ensure_ascii=False)
    typer.echo(text.encode(errors="backslashreplace").decode())


def _print(report: Report) -> None:
    from cai.cli.terminal import visible

    if not report.findings:
        _print_table(report.files)
        return
    for finding, also in _folded(report.findings):
        shown = dataclasses.replace(finding, path=_short(Path(finding.path)), problem=finding.problem + also)
        typer.echo(visible(str(shown)).replace("\n", "\\n"))
    files = len({finding.path for finding in report.findings})
    fixable = sum(finding.fix is not None for finding in report.findings)
    told = f"{_many(report.errors, 'error')} and {_many(report.warnings, 'warning')} in {_many(files, 'file')}"
    typer.echo(told + (f"; --fix mends {fixable} of them" if fixable else ""), err=True)


def _folded(findings: Iterable[Finding]) -> Iterable[tuple[Finding, str]]:
    """The findings as people read them: what many lines have alike is told once, with where it is found besides."""
    from constitution.linting import LINE_BY_LINE

    alike: dict[object, list[Finding]] = {}
    for finding in findings:
        line = 0 if finding.rule in LINE_BY_LINE else (finding.line, finding.column)
        alike.setdefault((finding.path, finding.rule, finding.problem, line), []).append(finding)
    for first, *others in alike.values():
        named = ", ".join(str(other.line) for other in others[:NAMED_LINES])
        more = f" and {len(others) - NAMED_LINES} more" if len(others) > NAMED_LINES else ""
        yield first, f", also on line{'s' * (len(others) != 1)} {named}{more}" if others else ""


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _print_table(files: Sequence[ReadFile]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cai.cli.terminal import visible

    counts = [_counts(each) for each in files]
    totals = [sum(each[key] for each in counts) for key in ("principles", "tests")]
    table = Table(box=None, pad_edge=False, show_footer=len(files) > 1)
    table.add_column("file", Text(f"{len(files)} files"), overflow="fold")
    table.add_column("principles", str(totals[0]), justify="right")
    table.add_column("tests", str(totals[1]), justify="right")
    for each in counts:
        table.add_row(Text(visible(_short(Path(each["path"])))), str(each["principles"]), str(each["tests"]))
    console = Console(highlight=False)
    console.print(table)
    untested = [principle for each in counts for principle in each["untested"]]
    if untested:
        console.print(Text(f"Sound. Without tests of their own: {', '.join(untested)}."))
    else:
        console.print(Text("Sound."))


def _short(path: Path) -> str:
    """A path from the working directory, where it lies below it."""
    resolved, here = path.resolve(), Path.cwd()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)
