"""`cai show --all`: one prompt under every principle, as a table of tokens and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cai.authoring.previews.encoding import Preview, StageTotals
from cai.cli.show_json import case_json, counts_json
from cai.cli.terminal import tables, visible

if TYPE_CHECKING:
    from cai.authoring.previews.cases import Case
    from cai.authoring.previews.contexts import Fate
    from cai.cli.asking import ShownModel

WIDTH_OF_FILES = 240
_SHORT = {"direct-revision": "direct"}
_NAMED = 4
"""So many principles are named in a line before the rest is counted."""
_SIGNS = {"refused": ("!", "red"), "reply_cut": ("~", "yellow")}


def print_table(model: ShownModel, case: Case, previews: Sequence[Preview], totals: Sequence[StageTotals]) -> None:
    """Tokens of each prompt with the share that every principle has in common, then totals, then each context length."""
    console = tables(WIDTH_OF_FILES)
    principles = list(dict.fromkeys(preview.principle_id for preview in previews))
    about = f"Tokens by {visible(model.name)} ({model.form}) for {visible(case.origin)}"
    console.print(Text(f"{about}; per cent: the start that is the same under every principle.", style="dim"))
    table = Table(box=None, pad_edge=False)
    table.add_column("principle", overflow="fold")
    for total in totals:
        table.add_column(_name(total), justify="right", no_wrap=True)
    for name in principles:
        row = [preview for preview in previews if preview.principle_id == name]
        table.add_row(Text(name), *(_cell(model, preview) for preview in row))
    table.add_section()
    for label, figures in (
        ("total", [total.tokens for total in totals]),
        ("the same under every principle", [total.common_tokens for total in totals]),
        ("total, that computed once", [total.tokens_computed for total in totals]),
    ):
        table.add_row(Text(label, style="bold"), *(f"{figure:,}" for figure in figures))
    console.print(table)
    for context in model.contexts:
        for line, style in _about(context, previews):
            console.print(Text(line, style=style))
    if not model.contexts:
        console.print(Text("The model's context length is not known (no config.json): give --context."))


def _name(total: StageTotals) -> str:
    if total.order is not None:
        return "comparison" if total.order == "first_second" else "swapped"
    return total.speaks_for or _SHORT.get(total.stage, total.stage)


def _cell(model: ShownModel, preview: Preview) -> Text:
    if preview.failure is not None:
        return Text("refused", style="red")
    cell = Text(f"{len(preview.ids):,}")
    if preview.common_tokens is not None:
        cell.append(f" {preview.common_tokens / len(preview.ids):>4.0%}", style="dim")
    for fate, (sign, style) in _SIGNS.items():
        where = [context for context in model.contexts if preview.outcome(context).fate == fate]
        if where:
            cell.append(f" {sign}{max(where)}", style=style)
    return cell


def _about(context: int, previews: Sequence[Preview]) -> Iterator[tuple[str, str]]:
    """Which prompts a context refuses, and in which a reply is cut; now, and when the texts in them are at their longest."""
    asked = [preview for preview in previews if preview.failure is None]
    refused = _with_fate(asked, context, "refused")
    cut = _with_fate(asked, context, "reply_cut")
    if not refused and not cut:
        yield f"context of {context:,}: all {len(asked)} prompts fit, their replies too", "green"
    for fate, found, words in (
        ("refused", refused, "refused; such a row fails as `prompt_too_long` and is counted"),
        ("reply_cut", cut, "fit, but their longest replies would be cut"),
    ):
        if found:
            sign, style = _SIGNS[fate]
            yield (
                f"context of {context:,}: {len(found)} of {len(asked)} {words} ({sign}{context}): {_places(found, asked)}",
                style,
            )
    grown = _with_fate(asked, context, "refused", grown=True)
    if len(grown) > len(refused):
        lengths = {each.name: each.most_tokens for preview in asked for each in preview.asked.written}
        longest = ", ".join(f"{name} {count:,}" for name, count in lengths.items())
        yield (
            f"  about {len(grown)} would be refused with texts at their longest ({longest}): {_places(grown, asked)}",
            "yellow",
        )


def _with_fate(previews: Sequence[Preview], context: int, fate: Fate, *, grown: bool = False) -> list[Preview]:
    return [preview for preview in previews if preview.outcome(context, grown=grown).fate == fate]


def _places(previews: Sequence[Preview], asked: Sequence[Preview]) -> str:
    """`every critique; revision of two-sided, kind-words and 3 more`."""
    texts: list[str] = []
    for stage in dict.fromkeys(preview.asked.stage for preview in previews):
        names, everyone = (
            list(dict.fromkeys(each.principle_id for each in group if each.asked.stage == stage)) for group in (previews, asked)
        )
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        texts.append(f"every {stage}" if names == everyone else f"{stage} of {', '.join(names[:_NAMED])}{more}")
    return "; ".join(texts)


def table_json(model: ShownModel, case: Case, previews: Sequence[Preview], totals: Sequence[StageTotals]) -> dict[str, object]:
    """The whole table; texts are those of `cai show PRINCIPLE --stage all --json`."""
    return {
        "model": model.name,
        "form": "plain" if model.plain else "chat",
        "contexts": list(model.contexts),
        "item": case_json(case),
        "stages": [
            {
                "stage": total.stage,
                "order": total.order,
                "speaks_for": total.speaks_for,
                "prompts": total.prompts,
                "tokens": total.tokens,
                "every_principle_tokens": total.common_tokens,
                "tokens_computed": total.tokens_computed,
            }
            for total in totals
        ],
        "prompts": [
            {
                "principle": preview.principle_id,
                "stage": preview.asked.stage,
                "order": preview.asked.order,
                "speaks_for": preview.asked.speaks_for,
                "max_tokens": preview.asked.max_tokens,
                **counts_json(model, preview),
            }
            for preview in previews
        ],
    }
