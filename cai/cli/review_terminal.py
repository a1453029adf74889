"""The review in a terminal: one question after the other, single keys, blind. Texts are printed as text, never as codes."""

from __future__ import annotations

import pydoc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from cai.cli.terminal import visible
from cai.diffs import word_diff
from cai.review.desk import Desk, Question, Said
from constitution.messages import Message
from constitution.tool_text import as_text

KEYS: dict[str, Said] = {
    "1": "a",
    "a": "a",
    "2": "b",
    "b": "b",
    "3": "tie",
    "t": "tie",
    "4": "both_bad",
    "x": "both_bad",
    "s": "skip",
}
KEYS_OF_ONE: dict[str, Said] = {"1": "good", "a": "good", "2": "bad", "b": "bad", "s": "skip"}
ASK = "[1] A better  [2] B better  [3] tie  [4] both bad  [s]kip  [n]ote  [d]ifferences  [u]ndo  [q]uit"
ASK_OF_ONE = "[1] good  [2] bad  [s]kip  [n]ote  [u]ndo  [q]uit"
ASK_AT_THE_END = "[u]ndo your last verdict  [q]uit"
ASK_FOR_ALL = "  [f]ull texts"
STYLES = ("cyan", "yellow")

SHOWN_LINES, SHOWN_CHARACTERS, SHOWN_TURNS = 60, 6_000, 20
"""So much of a text, and so many turns of a conversation, are shown at once: nobody reads 100,000 lines that scroll by."""
KEPT_LINES, KEPT_CHARACTERS = 4, 200
"""Of what two long answers have in common, no more is shown on either side of a difference."""


def review_in_terminal(run: Path, reviewer: str, out: Console | None = None, *, read: Callable[[], str] | None = None) -> None:
    """Ask until nothing is left or the reviewer has had enough.

    Args:
        run: The run folder.
        reviewer: Who judges.
        out: Where to print.
        read: Gives the next answer, "" at the end; default: a key of the terminal, or a line where there is none.
    """
    console = out or Console(highlight=False)
    with Desk(run) as desk:
        if waiting := desk.waiting():
            console.print(Text(f"{waiting}; until then they are in no data set and no training.", style="yellow"))
        _Sitting(desk, reviewer, console, read or (_key if sys.stdin.isatty() else sys.stdin.readline)).go_on()


@dataclass
class _Sitting:
    """One reviewer at a desk. `read` gives a key or a line; "" ends the sitting."""

    desk: Desk
    reviewer: str
    out: Console
    read: Callable[[], str]
    note: str = ""
    differences: bool = False

    def go_on(self) -> None:
        question = self.desk.next(self.reviewer) or self._at_the_end()
        while question is not None:
            self._show(question)
            began = time.monotonic()
            action = self._action(question)
            if action == "q":
                self.out.print(Text("Every verdict you gave is kept; the same command goes on."))
                return
            question = self._done(action, question, time.monotonic() - began) or self._at_the_end()

    def _action(self, question: Question) -> str:
        """The next key that leads on; the end of all keys is `q`. Whatever else is pressed is done, or told, meanwhile."""
        while key := self.read():
            if (action := key.strip().lower()) in ("u", "q", *self._keys(question)):
                return action
            self._prepare(action, question)
        return "q"

    def _at_the_end(self) -> Question | None:
        """A last verdict given by mistake may still be taken back."""
        self.out.print(Text("Nothing is left for you."))
        if not self.desk.progress(self.reviewer).judged_by:
            return None
        self.out.print(Text(ASK_AT_THE_END, style="dim"))
        return self.desk.undo(self.reviewer) if self.read().strip().lower() == "u" else None

    def _done(self, action: str, question: Question, seconds: float) -> Question | None:
        if action == "u":
            again = self.desk.undo(self.reviewer)
            told = "There is no verdict of yours to take back." if again is None else "Taken back: judge again."
            self.out.print(Text(told, style="yellow"))
            return again or question
        said = self._keys(question)[action]
        self.desk.judge(self.reviewer, question.answers.key, said, note=self.note, seconds=seconds)
        self.note, self.differences = "", False
        return self.desk.next(self.reviewer)

    def _keys(self, question: Question) -> dict[str, Said]:
        return KEYS_OF_ONE if question.answers.single else KEYS

    def _prepare(self, action: str, question: Question) -> None:
        """Whatever key gives no verdict."""
        if action == "n":
            self.out.print(Text("Note (one line): "), end="")
            self.note = (
                typer.prompt("", default="", show_default=False, prompt_suffix="")
                if sys.stdin.isatty()
                else self.read().strip()
            )
        elif action == "d" and not question.answers.single:
            self.differences = not self.differences
            self._show(question)
            return
        elif action == "f":
            self._show_all(question)
        elif action not in ("", "?"):
            self.out.print(Text(visible(f"{action!r} is none of these."), style="yellow"))
        self._ask(question)

    def _show(self, question: Question) -> None:
        progress = self.desk.progress(self.reviewer)
        self.out.rule(Text(f"{progress.judged_by:,} judged, {progress.open_for:,} left"))
        turns = _turns(question)
        if hidden := max(0, len(turns) - SHOWN_TURNS):
            self.out.print(Text(f"… {hidden:,} earlier turns are not shown here …", style="dim"))
        for turn in turns[hidden:]:
            self.out.print(Text.assemble((f"{turn.role}: ", "bold"), _bounded([turn.content])))
        for title, text, style in zip(("A", "B"), self._texts(question), STYLES, strict=False):
            self.out.print(
                Panel(text, title=None if question.answers.single else title, title_align="left", border_style=style)
            )
        self._ask(question)

    def _ask(self, question: Question) -> None:
        turns = _turns(question)
        cut = len(turns) > SHOWN_TURNS or any(map(_is_long, (*(turn.content for turn in turns), *question.shown)))
        ask = ASK_OF_ONE if question.answers.single else ASK
        self.out.print(Text(ask + (ASK_FOR_ALL if cut else ""), style="dim"))

    def _show_all(self, question: Question) -> None:
        """Every text as it is: in the terminal's pager, where there is one, for it may be long. No box is drawn around it."""
        texts = [f"{turn.role}: {turn.content}" for turn in _turns(question)]
        titles = ("",) if question.answers.single else ("A", "B")
        texts += [f"── {title} ──\n{text}".lstrip() for title, text in zip(titles, question.shown, strict=True)]
        whole = visible("\n\n".join(texts)) + "\n"
        if self.out.is_terminal and sys.stdin.isatty():
            pydoc.pager(whole)
        else:
            self.out.file.write(whole)

    def _texts(self, question: Question) -> list[Text]:
        if question.answers.single or not self.differences:
            return [_bounded([text]) for text in question.shown]
        left, right = ("", "") if self.out.color_system else ("[", "]")
        pieces, long = word_diff(*question.shown), any(map(_is_long, question.shown))
        return [
            _bounded(
                [
                    (_around(each.text) if long else each.text)
                    if each.kind == "kept"
                    else (f"{left}{each.text}{right}", f"bold {style}")
                    for each in pieces
                    if each.kind in ("kept", only)
                ]
            )
            for only, style in zip(("removed", "added"), STYLES, strict=True)
        ]


def _turns(question: Question) -> Sequence[Message]:
    return as_text(question.answers.prompt)


def _is_long(text: str) -> bool:
    return len(text) > SHOWN_CHARACTERS or text.count("\n") >= SHOWN_LINES


def _around(text: str) -> str:
    """What both answers have in common, without its middle."""
    head = "\n".join(text[:KEPT_CHARACTERS].split("\n")[:KEPT_LINES])
    tail = "\n".join(text[len(head) :][-KEPT_CHARACTERS:].split("\n")[-KEPT_LINES:])
    left_out = len(text) - len(head) - len(tail)
    return f"{head}\n… {left_out:,} characters that are the same in both …\n{tail}" if left_out else text


def _bounded(pieces: Sequence[str | tuple[str, str]]) -> Text:
    """A text of pieces, some with a style; of a long one, its beginning and its end, and how much is left out between them."""
    parts = [(each, "") if isinstance(each, str) else each for each in pieces]
    whole = "".join(text for text, _ in parts)
    if not _is_long(whole):
        return Text.assemble(*((visible(text), style) for text, style in parts))
    head = "\n".join(whole[: SHOWN_CHARACTERS * 2 // 3].split("\n")[: SHOWN_LINES * 2 // 3])
    tail = "\n".join(whole[len(head) :][-SHOWN_CHARACTERS // 3 :].split("\n")[-SHOWN_LINES // 3 :])
    start, end = len(head), len(whole) - len(tail)
    lines = whole.count("\n", start, end)
    told = f"\n… {end - start:,} characters{f' in {lines:,} lines' if lines > 1 else ''} are left out here; [f] shows all …\n"
    return Text.assemble(*_between(parts, 0, start), (told, "dim"), *_between(parts, end, len(whole)))


def _between(parts: Sequence[tuple[str, str]], start: int, end: int) -> Iterator[tuple[str, str]]:
    """What of the parts lies between two places in their text."""
    at = 0
    for text, style in parts:
        if found := text[max(0, start - at) : max(0, end - at)]:
            yield visible(found), style
        at += len(text)


def _key() -> str:
    """One key, without Enter. End of input and Ctrl-D end the review."""
    key = typer.getchar()
    return "q" if key in ("\x04", "\x1a") else key
