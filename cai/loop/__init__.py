"""Draft → critique → revise, any number of rounds."""

from cai.loop.chain import LoopEvent, OnLoopEvent, noise_key, run_loop, tidy_revision
from cai.loop.settings import LoopSettings

__all__ = ["LoopEvent", "LoopSettings", "OnLoopEvent", "noise_key", "run_loop", "tidy_revision"]
