"""Progress on stderr, in the form fit for what reads it: a live table on a terminal, plain lines elsewhere, JSON for programs.

Nothing goes to stdout: that is for results. Progress that cannot be shown stops no run.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from types import TracebackType

from rich.console import Console

from cai.cli.progress_lines import JsonLines, PlainLines
from cai.cli.progress_live import ProgressTable
from cai.pipeline.events import ProgressEvent

_MODELS = logging.getLogger("cai.models")
"""Tells when loading a model takes long."""


class ProgressDisplay:
    """Shows progress events. Use as a context manager, and pass `show` to the pipeline.

    Args:
        json: Write JSON lines, whatever stderr is.
        console: Of the terminal; by default stderr.
    """

    def __init__(self, *, json: bool = False, console: Console | None = None) -> None:
        console = console or Console(stderr=True, highlight=False)
        live = console.is_terminal and not console.is_dumb_terminal
        self._form = JsonLines(_write) if json else ProgressTable(console) if live else PlainLines(_write)
        self._handler = _Messages(self._form)

    def __enter__(self) -> ProgressDisplay:
        _MODELS.addHandler(self._handler)
        _MODELS.setLevel(logging.INFO)
        if isinstance(self._form, ProgressTable):
            self._form.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _MODELS.removeHandler(self._handler)
        if isinstance(self._form, ProgressTable):
            self._form.stop()

    def show(self, event: ProgressEvent) -> None:
        """Take note of an event; what is on the screen follows in its own time."""
        self._form.show(event)


class _Messages(logging.Handler):
    def __init__(self, form: JsonLines | PlainLines | ProgressTable) -> None:
        super().__init__(logging.INFO)
        self._form = form

    def emit(self, record: logging.LogRecord) -> None:
        self._form.message(record.getMessage())


def _write(line: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads any more
        print(line, file=sys.stderr, flush=True)
