"""Draft → critique → revise, any number of rounds, each revision past a gate."""

from cai.loop.chain import LoopEvent, OnLoopEvent, noise_key, run_loop
from cai.loop.gate import gate_problems
from cai.loop.settings import GateSettings, LoopSettings
from cai.loop.tally import GateCount, GateReason, GateTally, gate_tally
from cai.loop.tidying import tidy_revision

__all__ = [
    "GateCount",
    "GateReason",
    "GateSettings",
    "GateTally",
    "LoopEvent",
    "LoopSettings",
    "OnLoopEvent",
    "gate_problems",
    "gate_tally",
    "noise_key",
    "run_loop",
    "tidy_revision",
]
