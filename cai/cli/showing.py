"""Prompts on the terminal: their text, whose words they are, their tokens and what becomes of them."""

from __future__ import annotations

import json as json_
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from cai.authoring.previews.stages import Asked, Request
from cai.cli.terminal import visible
from cai.engines.base import ScoreRequest

if TYPE_CHECKING:
    from cai.authoring.previews.cases import Case
    from cai.authoring.previews.encoding import Preview
    from cai.authoring.previews.parts import Part
    from cai.cli.asking import ShownModel
    from constitution.schema import Principle

STYLES = {
    "conversation": "",
    "demonstration": "blue",
    "reply": "green",
    "critique": "yellow",
    "argument": "bright_blue",
    "principle": "bold magenta",
}
_NOTES = {
    "fits": "",
    "reply_cut": "Cut replies are marked as cut, and kept.",
    "refused": "Refused: the row fails as `prompt_too_long` and is counted. Nothing is ever cut out of a prompt.",
}
_FEW = 3
"""So many principles that spoil what the others share are named."""
_FRAME = "italic"
"""The toolkit's fixed wording and the text between the turns."""
_CONTROL = "cyan"
_SHARED = "dim"


def print_turns(principle: Principle, case: Case, asked: Sequence[Asked], text_of: Callable[[Request], str]) -> None:
    """The prompts without a tokenizer."""
    for each in asked:
        _print_heading(each, alone=len(asked) == 1)
        typer.echo(visible(text_of(each.request)))
        typer.echo()
        _print_scored(each)
    _print_notes(principle, case, asked)


def print_previews(model: ShownModel, principle: Principle, case: Case, previews: Sequence[Preview], *, tokens: bool) -> None:
    """Each prompt's very text, then what there is to know about it. Colours only on a terminal."""
    console = Console(highlight=False)
    notes: list[str] = []
    for preview in previews:
        _print_heading(preview.asked, alone=len(previews) == 1)
        parts = model.previewer.parts(principle, case, preview)
        if preview.failure is not None:
            typer.echo(f"refused by the chat template: {visible(preview.failure.detail)}")
        elif tokens:
            _print_tokens(model, preview, parts)
        elif console.is_terminal:
            console.print(coloured(model, preview, parts), soft_wrap=True)
        else:
            typer.echo(visible(preview.text))
        typer.echo()
        _print_scored(preview.asked)
        for line in facts(model, preview):
            typer.echo(line)
        if len(previews) > 1:
            typer.echo()
        notes += (_NOTES[outcome.fate] for context in model.contexts for outcome in preview.outcomes(context))
    for note in dict.fromkeys(filter(None, notes)):
        typer.echo(note)
    if console.is_terminal and not tokens:
        console.print(_legend())
    _print_notes(principle, case, [preview.asked for preview in previews])


def facts(model: ShownModel, preview: Preview) -> Iterator[str]:
    """What there is to know about a prompt, a line each."""
    if preview.failure is not None:
        yield f"A row of which this is asked fails as `{preview.failure.cause}`, and is counted."
        return
    total = len(preview.ids)
    yield f"{total:,} tokens ({visible(model.name)}, {model.form})"
    if preview.asked.earlier is not None and preview.earlier_tokens is not None:
        stage, count = preview.asked.earlier.stage, preview.earlier_tokens
        yield f"  {count:,} ({count / total:.0%}) from its start are those of the {stage} before it: a kept cache covers them"
    if preview.common_tokens is not None:
        count = preview.common_tokens
        odd = min(_FEW, model.previewer.principles - 2)
        few = preview.differing if len(preview.differing) <= odd else ()
        apart = f"; only {', '.join(few)} differ{'s' * (len(few) == 1)} there" if few else ""
        yield f"  {count:,} ({count / total:.0%}) from its start are the same under every principle of the constitution{apart}"
    if preview.control_texts:
        count = preview.control_texts
        yield f"  {count} text{'s' * (count != 1)} of control tokens in the messages: encoded as plain text, without effect"
    for context in model.contexts:
        yield f"  {fate(preview, context)}"


def fate(preview: Preview, context: int) -> str:
    """What becomes of a prompt in a context, also when the texts that models write in it are as long as they may be."""
    now, grown = preview.outcomes(context)
    if grown.fate == now.fate:
        return str(now)
    longest = " and ".join(f"a {each.name} of {each.most_tokens:,}" for each in preview.asked.written)
    return f"{now}\n    with {longest} tokens, about: {grown}"


def coloured(model: ShownModel, preview: Preview, parts: Sequence[Part]) -> Text:
    """The prompt's text: dim where every principle has the same tokens, each part in its colour, control tokens in theirs."""
    styles = [_FRAME] * len(preview.text)
    for part in parts:
        styles[part.start : part.end] = [STYLES[part.kind]] * (part.end - part.start)
    place = 0
    for number, (token, piece) in enumerate(zip(preview.ids, model.previewer.pieces(preview.ids), strict=True)):
        end = place + len(piece)
        if model.previewer.is_control(token):
            styles[place:end] = [_CONTROL] * len(piece)
        if number < (preview.common_tokens or 0):
            styles[place:end] = [f"{_SHARED} {style}".strip() for style in styles[place:end]]
        place = end
    text = Text()
    start = 0
    for end in range(1, len(styles) + 1):
        if end == len(styles) or styles[end] != styles[start]:
            text.append(visible(preview.text[start:end]), style=styles[start])
            start = end
    return text


def _legend() -> Text:
    text = Text()
    for name, style in STYLES.items():
        text.append(name, style=style).append(" · ")
    text.append("fixed wording", style=_FRAME).append(" · ").append("control tokens", style=_CONTROL).append(" · ")
    return text.append("same tokens under every principle", style=_SHARED)


def _print_tokens(model: ShownModel, preview: Preview, parts: Sequence[Part]) -> None:
    """One line for each token: place, id, whose it is, text as a JSON string. A line marks where principles go apart."""
    place = 0
    for number, (token, piece) in enumerate(zip(preview.ids, model.previewer.pieces(preview.ids), strict=True)):
        if number == preview.common_tokens:
            typer.echo("----- up to here the same under every principle")
        end = place + len(piece)
        # A token across a border (the blank before a word) is that of the part in which it ends.
        kind = next((part.kind for part in parts if part.start < end <= part.end), "")
        whose = "control" if model.previewer.is_control(token) else kind
        typer.echo(f"{number:>5} {token:>7} {whose:<13} {visible(json_.dumps(piece, ensure_ascii=False))}")
        place = end


def _print_heading(asked: Asked, *, alone: bool) -> None:
    if not alone:
        which = f", order {asked.order}" if asked.order else f" for {asked.speaks_for}" if asked.speaks_for else ""
        typer.echo(f"== {asked.stage}{which} ==")


def _print_scored(asked: Asked) -> None:
    if isinstance(asked.request, ScoreRequest):
        typer.echo(f"Scored after it: {' against '.join(json_.dumps(each) for each in asked.request.continuations)}")


def _print_notes(principle: Principle, case: Case, asked: Sequence[Asked]) -> None:
    if not case.draws(principle):
        typer.echo(
            f"No round draws `{principle.id}` for this item: it applies to {', '.join(principle.applies_to)}, "
            f"and the item's tags are {visible(', '.join(case.item.tags))}.",
            err=True,
        )
    shown = {each.name for one in asked for each in one.written}
    made_up = [name for name in case.stand_ins if name in shown or (name == "critique" and "ground" in shown)]
    if made_up:
        typer.echo(
            f"Stand-ins, not a model's words: {', '.join(made_up)}; give your own with --{' --'.join(made_up)}.", err=True
        )
