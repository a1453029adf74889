"""`cai eval`: before and after on held-out prompts, of a run."""

from __future__ import annotations

from cai.cli.run import AsJson, ConfigFile, Settings, perform, read
from cai.records import Stage


def evaluate(config: ConfigFile, settings: Settings = None, *, json: AsJson = False) -> None:
    """Measure before and after on held-out prompts (what comes before is done first, or reused)."""
    perform(read(config, settings), until=Stage.EVALUATE, json=json)
