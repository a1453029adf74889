"""Runs the stages in order: the only writer to the run folder."""

from cai.pipeline.events import OnProgress, StageProgress
from cai.pipeline.planning import plan
from cai.pipeline.plans import Plan
from cai.pipeline.preflight import Inputs, read_inputs
from cai.pipeline.running import RunSummary, run
from cai.pipeline.session import Session, open_session

__all__ = [
    "Inputs",
    "OnProgress",
    "Plan",
    "RunSummary",
    "Session",
    "StageProgress",
    "open_session",
    "plan",
    "read_inputs",
    "run",
]
