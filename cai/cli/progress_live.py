"""Progress on a terminal: a table that is redrawn in place a few times a second."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cai.cli.stage_table import stage_table
from cai.cli.terminal import visible
from cai.pipeline.events import Ended, Figures, ProgressEvent, RowsSettled, StageProgress

REFRESHES_PER_S = 4


class ProgressTable:
    """What `show` was told last, as a table that lives at the bottom of the terminal until `stop`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stages: dict[str, StageProgress] = {}
        self._figures = Figures()
        # stdout is for results: what goes there is not ours to redirect.
        self._live = Live(console=console, refresh_per_second=REFRESHES_PER_S, get_renderable=self.drawn, redirect_stdout=False)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def show(self, event: ProgressEvent) -> None:
        match event:
            case StageProgress():
                self._stages[event.stage] = event
            case Figures():
                self._figures = event
            case RowsSettled() | Ended():
                pass  # the command prints the ledger, and how it ended

    def message(self, text: str) -> None:
        """Something besides: a line above the table."""
        self._console.print(Text(visible(text)))

    def drawn(self) -> RenderableType:
        """The table as it stands, for the terminal at hand."""
        return stage_table(tuple(self._stages.values()), self._figures, self._console.width, self._console.height)
