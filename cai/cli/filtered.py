"""What the filters found, for a terminal: texts of models escaped, what triggered a rule marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cai.cli.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console

    from cai.data.filters.overview import Example, Explanation, Overview
    from cai.data.filters.sieve import Looked

SHOWN_CHARACTERS = 4000
"""Of a text; a longer one is shown up to here, and around its spans."""
MARKS = ("⟪", "⟫")
"""Around what triggered a rule; in colour also reversed."""
STYLES = {"drop": "red", "flag": "yellow"}


def print_overview(found: Overview, out: Console, rule: str | None = None) -> None:
    """The table of rules, then examples."""
    title = f"{visible(found.name)}: {found.rows} rows, {found.dropped} dropped, {found.flagged} kept with a flag"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("does")
    for name in ("found in", "dropped", "share"):
        table.add_column(name, justify="right")
    table.add_column("what it finds", overflow="fold")
    shown = [each for each in found.rules if rule in (None, each.rule)]
    for each in shown:
        share = f"{each.found / found.rows:.2%}" if found.rows else "–"
        numbers = (str(each.found), str(each.dropped), share) if each.action != "off" else ("–", "–", "–")
        style = STYLES.get(each.action, "dim") if each.found else "dim" if each.action == "off" else ""
        table.add_row(each.rule, each.action, *numbers, each.description, style=style)
    out.print(table)
    if found.revisions is not None and (blind := [each for each in found.blind if rule in (None, each)]):
        untold = f"{found.rows - found.revisions} of {found.rows} rows are no revision of a text that is known"
        out.print(Text(f"{untold}: {', '.join(blind)} did not look at them.", style="yellow"))
    for each in shown:
        if each.examples:
            out.print()
            out.print(Text(each.rule, style="bold"))
        for example in each.examples:
            out.print(_example(example))
    if found.unreadable_rows:
        out.print()
        out.print(Text(f"{found.unreadable_rows} rows are no training rows and were not looked at:", style="red"))
        for line in found.unreadable:
            out.print(Text(f"  {visible(line)}"))


def print_explanation(found: Explanation, out: Console, rule: str | None = None) -> None:
    """How the row ended, what each rule says, and the texts with what was found marked."""
    out.print(Text(f"{visible(found.uid)}#{found.replica}: {visible(found.outcome)}", style="bold"))
    if found.reply is None:
        out.print(Text("The filters never saw it."))
        return
    looked = [each for each in found.looked if rule in (None, each.rule.id)]
    table = Table(box=None, pad_edge=False)
    for name in ("rule", "does", "thresholds"):
        table.add_column(name, no_wrap=name == "rule")
    table.add_column("found", overflow="fold")
    for each in looked:
        limits = ", ".join(f"{name} {value}" for name, value in each.limits.items())
        style = STYLES[each.action] if each.finding is not None else "dim" if each.action == "off" else ""
        table.add_row(
            each.rule.id,
            each.action,
            Text(visible(limits)),
            Text(_finding(each, revised=found.reply.before is not None)),
            style=style,
        )
    out.print(table)
    for title, place, text in (("prompt", "prompt", found.reply.question), ("before", None, found.reply.before)):
        if text is not None:
            out.print(_titled(title, text, _spans(looked, place)))
    out.print(_titled("reply", found.reply.text, _spans(looked, "reply")))


def _finding(looked: Looked, *, revised: bool) -> str:
    if looked.action == "off":
        return "not asked"
    found = looked.finding
    if found is None and looked.rule.of_revisions and not revised:
        return "does not look: no revision of a text that is known"
    if found is None:
        return "nothing"
    measured = "" if found.score is None else f" ({found.score:.4g} against {found.limit:.4g})"
    return visible(found.detail) + measured


def _spans(looked: Sequence[Looked], place: str | None) -> list[tuple[int, int]]:
    found = (each.finding for each in looked)
    return sorted(each.span for each in found if each is not None and each.span is not None and each.place == place)


def _titled(title: str, text: str, spans: Sequence[tuple[int, int]]) -> Text:
    return Text(f"\n{title}\n", style="bold").append_text(marked(text, spans))


def marked(text: str, spans: Sequence[tuple[int, int]]) -> Text:
    """A text, escaped, with marks around the spans (in order); a long one only in part."""
    out = Text(style="not bold")
    at = 0
    for start, end in spans:
        if start < at:
            continue  # inside of what is marked already
        _append(out, text[at:start])
        out.append(MARKS[0], style="bold red")
        _append(out, text[start:end], style="reverse")
        out.append(MARKS[1], style="bold red")
        at = end
    _append(out, text[at:])
    return out


def _append(out: Text, text: str, style: str = "") -> None:
    if len(text) > SHOWN_CHARACTERS:
        half = SHOWN_CHARACTERS // 2
        left_out = f" […{len(text) - SHOWN_CHARACTERS} characters…] "
        text = f"{text[:half]}{left_out}{text[-half:]}"
    out.append(visible(text), style=style)


def _example(example: Example) -> Text:
    line = Text(f"  {visible(example.uid)}#{example.replica}  {visible(example.detail)}", style="dim")
    if example.excerpt is not None:
        before, inside, after = (visible(part) for part in example.excerpt)
        line.append(f"\n    …{before}")
        line.append(f"{MARKS[0]}{inside}{MARKS[1]}", style="not dim reverse")
        line.append(f"{after}…")
    return line
