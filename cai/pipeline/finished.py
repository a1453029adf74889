"""Whether a finished stage still stands: what a session and a plan both go by."""

from __future__ import annotations

from cai.records import EVALUATIONS, FailureRecord, RecordKind, Stage
from cai.store import LASTING_FAILURES, RunFolder

ORDER = tuple(Stage)
_MADE = {
    Stage.GENERATE: (RecordKind.REVISION, RecordKind.FAILURE),
    Stage.LABEL: (RecordKind.PREFERENCE, RecordKind.UNDECIDED, RecordKind.FAILURE, RecordKind.FINDING),
    Stage.EVALUATE: EVALUATIONS,
}
"""Under which names each stage keeps what it made."""


def is_current(folder: RunFolder, stage: Stage, key: str) -> bool:
    """Whether a stage was finished on these very inputs and has nothing left to do.

    It has where a row failed of what may pass (memory, a server that did not answer), and where what it made is damaged or
    at odds with the ledger; it is then put together again, from stored calls. So is every stage after it.
    """
    finished = folder.stage(stage)
    if finished is None or finished.fingerprint != key:
        return False
    return not any(_has_more_to_do(folder, each) for each in ORDER[: ORDER.index(stage) + 1])


def _has_more_to_do(folder: RunFolder, stage: Stage) -> bool:
    if any(folder.damaged(kind) for kind in _MADE.get(stage, ())):
        return True
    if stage not in (Stage.GENERATE, Stage.LABEL):
        return False
    if stage is Stage.GENERATE and folder.contradictions():
        return True
    failures = folder.records(RecordKind.FAILURE, FailureRecord)
    return any(
        each.cause not in LASTING_FAILURES and (each.stage == Stage.LABEL) == (stage is Stage.LABEL) for each in failures
    )
