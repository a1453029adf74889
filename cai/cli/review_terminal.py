"""The review in a terminal: one question after the other, single keys, blind. Texts are printed as text, never as codes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from cai.cli.terminal import visible
from cai.diffs import word_diff
from cai.review.desk import Desk, Question, Said
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
STYLES = ("cyan", "yellow")


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
        question = self.desk.next(self.reviewer)
        while question is not None:
            self._show(question)
            began = time.monotonic()
            while (action := self.read().strip().lower()) in ("n", "d", "?"):
                self._prepare(action, question)
            if action in ("", "q"):
                self.out.print(Text("Every verdict you gave is kept; the same command goes on."))
                return
            question = self._done(action, question, time.monotonic() - began)
        self.out.print(Text("Nothing is left for you."))

    def _done(self, action: str, question: Question, seconds: float) -> Question | None:
        if action == "u":
            again = self.desk.undo(self.reviewer)
            told = "There is no verdict of yours to take back." if again is None else "Taken back: judge again."
            self.out.print(Text(told, style="yellow"))
            return again or question
        said = (KEYS_OF_ONE if question.answers.single else KEYS).get(action)
        if said is None:
            self.out.print(Text(visible(f"{action!r} is none of these."), style="yellow"))
            return question
        self.desk.judge(self.reviewer, question.answers.key, said, note=self.note, seconds=seconds)
        self.note, self.differences = "", False
        return self.desk.next(self.reviewer)

    def _prepare(self, action: str, question: Question) -> None:
        if action == "n":
            self.out.print(Text("Note (one line): "), end="")
            self.note = typer.prompt("", default="", show_default=False) if sys.stdin.isatty() else self.read().strip()
        elif action == "d" and not question.answers.single:
            self.differences = not self.differences
            self._show(question)
            return
        self._ask(question)

    def _show(self, question: Question) -> None:
        progress = self.desk.progress(self.reviewer)
        self.out.rule(Text(f"{progress.judged_by:,} judged, {progress.open_for:,} left"))
        for turn in as_text(question.answers.prompt):
            self.out.print(Text(f"{turn.role}: ", style="bold").append(visible(turn.content), style="not bold"))
        for title, text, style in zip(("A", "B"), self._texts(question), STYLES, strict=False):
            self.out.print(
                Panel(text, title=None if question.answers.single else title, title_align="left", border_style=style)
            )
        self._ask(question)

    def _ask(self, question: Question) -> None:
        self.out.print(Text(ASK_OF_ONE if question.answers.single else ASK, style="dim"))

    def _texts(self, question: Question) -> list[Text]:
        if question.answers.single or not self.differences:
            return [Text(visible(text)) for text in question.shown]
        left, right = ("", "") if self.out.color_system else ("[", "]")
        pieces = word_diff(*question.shown)
        return [
            Text.assemble(
                *(
                    visible(each.text) if each.kind == "kept" else (f"{left}{visible(each.text)}{right}", f"bold {style}")
                    for each in pieces
                    if each.kind in ("kept", only)
                )
            )
            for only, style in zip(("removed", "added"), STYLES, strict=True)
        ]


def _key() -> str:
    """One key, without Enter. End of input and Ctrl-D end the review."""
    key = typer.getchar()
    return "q" if key in ("\x04", "\x1a") else key
