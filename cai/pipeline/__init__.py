"""Runs the stages in order: the only writer to the run folder."""

from cai.pipeline.events import Ended, Figures, OnProgress, ProgressEvent, RowsSettled, StageProgress
from cai.pipeline.metering import Meter
from cai.pipeline.planning import plan
from cai.pipeline.plans import Plan
from cai.pipeline.preflight import Inputs, read_inputs
from cai.pipeline.running import RunSummary, run
from cai.pipeline.session import Session, open_session

__all__ = [
    "Ended",
    "Figures",
    "Inputs",
    "Meter",
    "OnProgress",
    "Plan",
    "ProgressEvent",
    "RowsSettled",
    "RunSummary",
    "Session",
    "StageProgress",
    "open_session",
    "plan",
    "read_inputs",
    "run",
]
